"""Errors as Alibaba's clients know them: of the gateway by HTTP status 400 to 503, of the service by `Code` with 200.

Its SDKs raise for the former and return the latter.
"""

from __future__ import annotations

from collections.abc import Mapping

from relay.errors import Refused


class GatewayError(Exception):
    """An error of the gateway. `message` names no value of a parameter."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class CodedRefusal(Refused):
    """A refusal with a code of its own, such as of a value that means nothing here."""

    def __init__(self, code: str, message: str, kind: str = "invalid") -> None:
        super().__init__(kind, "", message)
        self.code = code


ILLEGAL_ARGUMENT = "isv.ILLEGAL_ARGUMENT"
FORBIDDEN_ACTION = "isv.FORBIDDEN_ACTION"
NO_SUBSCRIPTION = "isv.SUBS_NOT_EXIST"
NO_NUMBER = "isv.NO_NOT_EXIST"

# By kind of refusal, else by its field.
CODES: Mapping[str, str] = {
    "forbidden": "isp.RAM_PERMISSION_DENY",
    "business_not_approved": "isv.ACCOUNT_ABNORMAL",
    "unqualified": "isv.ACCOUNT_ABNORMAL",
    "mode_not_allowed": "isv.PRODUCT_UNSUBSCRIBE",
    "conflict": "isv.BIND_CONFLICT",
    "state_conflict": "isv.UPDATE_CONFLICT",
    "pool_empty": "isv.NO_AVAILABLE_NUMBER",
    "number_full": "isv.NO_AVAILABLE_NUMBER",
    "number_cooling": "isv.NO_AVAILABLE_NUMBER",
    "rate_limited": "isv.FLOW_LIMIT",
    "store_busy": "isp.DAO_EXCEPTION",
    "relay_unavailable": "isp.SYSTEM_ERROR",
    "idempotency_mismatch": ILLEGAL_ARGUMENT,
}
_FIELDS: Mapping[tuple[str, str], str] = {
    ("invalid", "a"): "isv.MOBILE_NUMBER_ILLEGAL",
    ("invalid", "b"): "isv.MOBILE_NUMBER_ILLEGAL",
    ("invalid", "number"): "isv.MOBILE_NUMBER_ILLEGAL",
    ("invalid", "members"): "isv.MOBILE_NUMBER_ILLEGAL",
    ("invalid", "expires_at"): "isv.EXPIRE_DATE_ILLEGAL",
    ("not_found", "pool"): "isv.POOLKEY_NOT_EXISTS",
    ("not_found", "binding"): NO_SUBSCRIPTION,
    ("not_found", "number"): NO_NUMBER,
}


def code_of(refused: Refused) -> str:
    """The documented code of a refusal; what relay700's rules forbid otherwise is "isv.FORBIDDEN_ACTION"."""
    if isinstance(refused, CodedRefusal):
        return refused.code
    if refused.kind in CODES:
        return CODES[refused.kind]
    by_field = _FIELDS.get((refused.kind, refused.field.partition(".")[0]))
    return by_field or (ILLEGAL_ARGUMENT if refused.kind in ("invalid", "not_found") else FORBIDDEN_ACTION)
