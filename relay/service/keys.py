"""The rules for API keys: who may make, rotate and revoke which, and what a scope allows."""

from __future__ import annotations

from collections.abc import Collection

from relay.errors import Refused
from relay.store.act import Act
from relay.store.businesses import find_business
from relay.store.keys import ApiKey, add_key, find_key, set_expiry, set_revoked

OPERATOR = "operator"
BUSINESS_SCOPES = frozenset(
    [
        *("bindings:read", "bindings:write", "numbers:read", "calls:read", "calls:hangup", "parties:read"),
        *("webhooks", "lists", "reports", "keys"),
    ]
)
OPERATOR_SCOPES = BUSINESS_SCOPES | {"trace", OPERATOR}
LONGEST_OVERLAP_S = 30 * 24 * 3600


def make_key(
    act: Act, business: str | None, scopes: Collection[str], expires_at: int | None = None
) -> tuple[ApiKey, str]:
    """A key of a business, or an operator's (None), and its text `rk_ID_SECRET`, which is never shown again.

    `expires_at` is in Unix milliseconds. Raises Refused.
    """
    _check_owner(act, business)
    wanted = _check_scopes(business, scopes)
    _check_grant(act, wanted)
    if expires_at is not None and expires_at <= act.now_ms:
        raise Refused("invalid", "expires_at", "this moment is over: take one to come")
    key, text = add_key(act, business, wanted, expires_at)
    act.audit("key.make", key.id, business=business, details={"scopes": sorted(wanted), "expires_at": expires_at})
    return key, text


def rotate(act: Act, key_id: str, overlap_s: int = 0) -> tuple[ApiKey, str]:
    """A new key with the scopes and the end of the old one, which stays good for `overlap_s` more. Raises Refused."""
    if not 0 <= overlap_s <= LONGEST_OVERLAP_S:
        raise Refused("invalid", "overlap_s", f"it is 0 to {LONGEST_OVERLAP_S} seconds")
    old = _good(act, key_id)
    _check_owner(act, old.business)
    _check_grant(act, old.scopes)
    key, text = add_key(act, old.business, old.scopes, old.expires_at)
    set_expiry(act, old.id, act.now_ms + 1000 * overlap_s)
    act.audit("key.rotate", old.id, business=old.business, details={"new": key.id, "overlap_s": overlap_s})
    return key, text


def revoke(act: Act, key_id: str, reason: str = "") -> ApiKey:
    """Ends a key: the next request with it is refused. Raises Refused."""
    key = _good(act, key_id)
    set_revoked(act, key_id)
    act.audit("key.revoke", key_id, business=key.business, reason=reason)
    return key._replace(revoked_at=act.now_ms)


def _good(act: Act, key_id: str) -> ApiKey:
    key = find_key(act.connection, act.sealer, key_id)
    if key is None or act.actor.business not in (None, key.business):
        raise Refused("not_found", "key", "there is no such key")
    if not key.is_good(act.now_ms):
        raise Refused("ended", "key", "it is revoked or expired: make another")
    return key


def _check_owner(act: Act, business: str | None) -> None:
    found = None if business is None else find_business(act.connection, act.sealer, business)
    if act.actor.business not in (None, business) or (business is not None and found is None):
        raise Refused("not_found", "business", "there is no such business user")
    if found is not None and found.state == "revoked":
        raise Refused("business_not_approved", "business", "it is revoked: it gets no keys")


def _check_scopes(business: str | None, scopes: Collection[str]) -> frozenset[str]:
    allowed = OPERATOR_SCOPES if business is None else BUSINESS_SCOPES
    if not scopes or not allowed.issuperset(scopes):
        raise Refused("invalid", "scopes", f"they are some of: {', '.join(sorted(allowed))}")
    return frozenset(scopes)


def _check_grant(act: Act, scopes: frozenset[str]) -> None:
    """Nobody gives away more than they have."""
    if OPERATOR not in act.actor.scopes and not scopes <= act.actor.scopes:
        raise Refused("forbidden", "scopes", "a key cannot have more scopes than the one that makes it")
