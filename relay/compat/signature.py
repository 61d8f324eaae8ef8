"""Alibaba Cloud's two signatures of a request: ACS3-HMAC-SHA256 in headers, and HMAC-SHA1 in parameters (RPC).

It reads no clock and no store. An access key is one of relay700's keys: its id, and `ApiKey.access_key_secret`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

from relay.compat.errors import GatewayError
from relay.defence.nonces import SeenNonces

BEHIND_S = 900  # maximum age of a request, as for Alibaba
AHEAD_S = 300  # maximum lead of the client's clock: a nonce is remembered for both together
_ACS3 = "ACS3-HMAC-SHA256"
_AUTHORIZATION = re.compile(
    rf"{_ACS3} +Credential=([^,\s]{{1,64}}), *SignedHeaders=([a-z0-9;-]{{1,1024}}), *Signature=([0-9a-f]{{64}})",
    re.ASCII,
)
_FORM = "application/x-www-form-urlencoded"
# Headers that say what is asked. One that is not signed could be replaced.
_SIGNED = ("host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce", "x-acs-version")
_RPC = (
    "AccessKeyId",
    "Action",
    "Signature",
    "SignatureMethod",
    "SignatureNonce",
    "SignatureVersion",
    "Timestamp",
    "Version",
)
_OF_RPC = frozenset([*_RPC, "Format", "SignatureType"])
# Parameters of all actions that mean nothing here: the account follows from the key.
COMMON = frozenset(["OwnerId", "RegionId", "ResourceOwnerAccount", "ResourceOwnerId"])


class HttpRequest(NamedTuple):
    """A request as received. Names of headers are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class SignedRequest(NamedTuple):
    """The action of a signed request, and the text that its signature must match."""

    key_id: str
    action: str
    version: str
    parameters: dict[str, str]  # of the action
    nonce: str
    at_s: int  # Unix seconds
    signature: str
    text: bytes  # the string to sign
    is_rpc: bool

    def is_by(self, secret: str) -> bool:
        """Whether the secret made the signature, compared in constant time."""
        if self.is_rpc:
            made = b64encode(hmac.digest(f"{secret}&".encode(), self.text, "sha1")).decode()
        else:
            made = hmac.digest(secret.encode(), self.text, "sha256").hex()
        return hmac.compare_digest(made.encode(), self.signature.encode())


def mismatch(text: bytes) -> GatewayError:
    """The fault of a wrong signature of this text. Alibaba's older SDK reads what follows the colon; a hash of the text
    tells as much as the text, and repeats no number.
    """
    digest = hashlib.sha256(text).hexdigest()
    problem = (
        f"Specified signature is not matched with our calculation. SHA-256 of the server string to sign is:{digest}"
    )
    return GatewayError("SignatureDoesNotMatch", problem)


def read_request(request: HttpRequest) -> SignedRequest:
    """Parse a request of either scheme. Raises GatewayError."""
    if request.method not in ("GET", "POST"):
        raise GatewayError("UnsupportedHTTPMethod", "This http method is not supported: use GET or POST.")
    sent = _pairs(request.query)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
        sent += _pairs(request.body.decode("utf-8", "replace"))
    elif request.body:  # the header is not signed: without it, what the body asks would go unnoticed
        raise GatewayError("UnsupportedContentType", f"A body must be {_FORM}.")
    parameters = dict(sent)
    if len(parameters) < len(sent):
        raise GatewayError("InvalidParameter", "A parameter is given twice.")
    if "authorization" in request.headers:
        return _read_acs3(request, parameters)
    return _read_rpc(request.method, parameters)


def _read_acs3(request: HttpRequest, parameters: dict[str, str]) -> SignedRequest:
    headers = request.headers
    found = _AUTHORIZATION.fullmatch(headers["authorization"].strip())
    if found is None:
        raise GatewayError(
            "IncompleteSignature", f"Authorization must be {_ACS3} Credential=, SignedHeaders=, Signature=."
        )
    key_id, listed, signature = found.groups()
    names = listed.split(";")
    for name in _SIGNED:
        if not headers.get(name):
            raise GatewayError("MissingParameter", f"The header {name} is mandatory.")
        if name not in names:
            raise GatewayError("IncompleteSignature", f"The header {name} must be signed.")
    if hashlib.sha256(request.body).hexdigest() != headers["x-acs-content-sha256"]:  # no secret is compared
        raise mismatch(headers["x-acs-content-sha256"].encode())
    lines = "".join(f"{name}:{headers.get(name, '').strip()}\n" for name in names)
    query = _canonical(dict(_pairs(request.query)))
    canonical = f"{request.method}\n{request.path}\n{query}\n{lines}\n{listed}\n{headers['x-acs-content-sha256']}"
    text = f"{_ACS3}\n{hashlib.sha256(canonical.encode('utf-8', 'surrogateescape')).hexdigest()}"
    return SignedRequest(
        key_id=key_id,
        action=headers["x-acs-action"],
        version=headers["x-acs-version"],
        parameters=_of_action(parameters, COMMON),
        nonce=headers["x-acs-signature-nonce"],
        at_s=_moment(headers["x-acs-date"]),
        signature=signature,
        text=text.encode(),
        is_rpc=False,
    )


def _read_rpc(method: str, parameters: dict[str, str]) -> SignedRequest:
    for name in _RPC:
        if not parameters.get(name):
            raise GatewayError(f"Missing{name}", f"{name} is mandatory for this action.")
    if (parameters["SignatureMethod"], parameters["SignatureVersion"]) != ("HMAC-SHA1", "1.0"):
        raise GatewayError("InvalidSignatureMethod", "SignatureMethod must be HMAC-SHA1, and SignatureVersion 1.0.")
    if parameters.get("Format", "JSON").upper() != "JSON":
        raise GatewayError("InvalidParameter.Format", "Format must be JSON.")
    signed = {name: value for name, value in parameters.items() if name != "Signature"}
    text = f"{method}&%2F&{_quoted(_canonical(signed))}"
    return SignedRequest(
        key_id=parameters["AccessKeyId"],
        action=parameters["Action"],
        version=parameters["Version"],
        parameters=_of_action(parameters, COMMON | _OF_RPC),
        nonce=parameters["SignatureNonce"],
        at_s=_moment(parameters["Timestamp"]),
        signature=parameters["Signature"],
        text=text.encode("utf-8", "surrogateescape"),
        is_rpc=True,
    )


def _of_action(parameters: dict[str, str], others: frozenset[str]) -> dict[str, str]:
    """An empty value is none, as for Alibaba."""
    return {name: value for name, value in parameters.items() if value and name not in others}


def _pairs(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=100, errors="strict")
    except ValueError:  # UnicodeDecodeError as well
        raise GatewayError("InvalidParameter", "Parameters must be UTF-8, percent-encoded, and at most 100.") from None


def _canonical(parameters: dict[str, str]) -> str:
    return "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted(parameters.items()))


def _quoted(text: str) -> str:
    return quote(text, safe="~")


def _moment(text: str) -> int:
    try:
        return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise GatewayError("InvalidTimeStamp.Format", "The time must be UTC, such as 2026-01-31T08:00:00Z.") from None


# -- Each request once


class SignatureNonces:
    """The nonces of requests that are still in time, so that none is accepted twice.

    A request signed by a clock that is ahead, and accepted before a restart, can be accepted once more after it.
    """

    def __init__(self, started_s: float) -> None:
        self._seen = SeenNonces(int(started_s), BEHIND_S, AHEAD_S)  # times of requests have no fraction

    def admit(self, request: SignedRequest, now_s: float, is_within_limits: Callable[[], bool]) -> bool:
        """Accept a request whose signature is valid, once, if it is within its limits. Raises GatewayError.

        A repeated one does not count towards the limits, and one over them is not remembered: it was not carried out.
        """
        if not self._seen.is_in_time(request.at_s, now_s):
            problem = "Specified time stamp or date value is expired, ahead, or from before the start of the service."
            raise GatewayError("InvalidTimeStamp.Expired", problem)
        if self._seen.is_known(request.at_s, request.key_id, request.nonce):
            raise GatewayError("SignatureNonceUsed", "Specified signature nonce was used already.")
        if not is_within_limits():
            return False
        self._seen.keep(request.at_s, request.key_id, request.nonce)
        return True
