"""The rules for API keys: who may make, rotate and revoke which, and what a scope allows."""

from __future__ import annotations

from collections.abc import Collection

from relay.errors import Refused
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.store.act import BUSINESS_SCOPES, Act, Scope
from relay.store.act import OPERATOR as OPERATOR_SCOPES
from relay.store.keys import ApiKey, add_key, count_good, find_key, set_expiry, set_revoked

__all__ = ["BUSINESS_SCOPES", "OPERATOR_SCOPES", "Scope", "make_key", "revoke", "rotate"]

OPERATOR: Scope = "operator"
PARTIES: Scope = "parties:read"  # real numbers are shown to it
MOST_KEYS = 100  # of one business user that are good
LONGEST_OVERLAP_S = 30 * 24 * 3600


def make_key(
    act: Act, business: str | None, scopes: Collection[str], expires_at: int | None = None
) -> tuple[ApiKey, str]:
    """A key of a business, or an operator's (None), and its text `rk_ID_SECRET`, which is never shown again.

    `expires_at` is in Unix milliseconds. Raises Refused.
    """
    _check_owner(act, business)
    wanted = _check_scopes(business, scopes)
    act.actor.must_have(wanted, "scopes")
    if expires_at is not None and expires_at <= act.now_ms:
        raise fields.invalid("expires_at", "this moment is over: take one to come")
    _check_end(act, expires_at)
    _check_count(act, business)
    key, text = add_key(act, business, wanted, expires_at)
    act.audit("key.make", key.id, business=business, details={"scopes": sorted(wanted), "expires_at": expires_at})
    return key, text


def rotate(act: Act, key_id: str, overlap_s: int = 0) -> tuple[ApiKey, str]:
    """A new key with the scopes and the end of the old one, which stays good for `overlap_s` more. Raises Refused."""
    if not 0 <= overlap_s <= LONGEST_OVERLAP_S:
        raise fields.invalid("overlap_s", f"it is 0 to {LONGEST_OVERLAP_S} seconds")
    old = _good(act, key_id)
    act.actor.must_have(old.scopes, "scopes")
    _check_end(act, old.expires_at)
    if overlap_s:
        _check_count(act, old.business)
    key, text = add_key(act, old.business, old.scopes, old.expires_at)
    set_expiry(act, old.id, act.now_ms + 1000 * overlap_s)
    act.audit("key.rotate", old.id, business=old.business, details={"new": key.id, "overlap_s": overlap_s})
    return key, text


def revoke(act: Act, key_id: str, reason: str = "") -> ApiKey:
    """Ends a key: the next request with it is refused. Raises Refused, also where it may do more than the actor."""
    key = _good(act, key_id)
    act.actor.must_have(key.scopes, "key")
    set_revoked(act, key_id)
    act.audit("key.revoke", key_id, business=key.business, reason=fields.reason(reason))
    return key._replace(revoked_at=act.now_ms)


def _good(act: Act, key_id: str) -> ApiKey:
    key = find_key(act.connection, act.sealer, key_id)
    if key is None or act.actor.business not in (None, key.business):
        raise Refused("not_found", "key", "there is no such key")
    if not key.is_good(act.now_ms):
        raise Refused("ended", "key", "it is revoked or expired: make another")
    return key


def _check_owner(act: Act, business: str | None) -> None:
    if business is None and act.actor.business is not None:
        raise Refused("not_found", "business", "there is no such business user")
    if business is not None and get_business(act, business).state == "revoked":
        raise Refused("business_not_approved", "business", "it is revoked: it gets no keys")


def _check_scopes(business: str | None, scopes: Collection[str]) -> frozenset[str]:
    allowed = OPERATOR_SCOPES if business is None else BUSINESS_SCOPES
    if not scopes or not allowed.issuperset(scopes):
        raise fields.invalid("scopes", f"they are some of: {', '.join(sorted(allowed))}")
    return frozenset(scopes)


def _check_end(act: Act, expires_at: int | None) -> None:
    """What is made with a key that was lost must not outlive it."""
    kind, _, own_id = act.actor.name.partition(":")
    own = find_key(act.connection, act.sealer, own_id) if kind == "key" else None
    if own is not None and own.expires_at is not None and (expires_at is None or expires_at > own.expires_at):
        raise Refused("forbidden", "expires_at", "a key cannot last longer than the one that makes it")


def _check_count(act: Act, business: str | None) -> None:
    if business is not None and count_good(act, business) >= MOST_KEYS:
        raise Refused("quota", "business", f"a business user has at most {MOST_KEYS} keys that are good: revoke some")
