"""The rules of API keys: making, rotation, revocation, and the scopes that each requires."""

from __future__ import annotations

from collections.abc import Collection

from relay.errors import Refused
from relay.privacy.texts import mask_numbers
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.store.keys import ApiKey, add_key, count_good, find_key, set_expiry, set_revoked
from relay.store.unit_of_work import BUSINESS_SCOPES, Scope, UnitOfWork
from relay.store.unit_of_work import OPERATOR as OPERATOR_SCOPES

__all__ = ["BUSINESS_SCOPES", "OPERATOR_SCOPES", "Scope", "make_key", "revoke", "rotate"]

OPERATOR: Scope = "operator"
PARTIES: Scope = "parties:read"  # permits access to real numbers
MOST_KEYS = 100  # valid keys of one business user
LONGEST_NAME = 64
LONGEST_OVERLAP_S = 30 * 24 * 3600


def make_key(
    unit: UnitOfWork,
    business: str | None,
    scopes: Collection[str],
    expires_at: int | None = None,
    name: str | None = None,
) -> tuple[ApiKey, str]:
    """Make a key of a business, or an operator key (None), and its text `rk_ID_SECRET`, which is not stored.

    `expires_at` is in Unix milliseconds; `name`: of the program or person that has it, at most 64 characters. Raises
    Refused.
    """
    name = fields.text("name", name or "", LONGEST_NAME)
    if name and mask_numbers(name, sender="") != name:
        raise fields.invalid("name", "must not contain a phone number: the audit log shows it")
    _check_owner(unit, business)
    wanted = _check_scopes(business, scopes)
    unit.actor.must_have(wanted, "scopes")
    if expires_at is not None and expires_at <= unit.now_ms:
        raise fields.invalid("expires_at", "must be in the future")
    _check_end(unit, expires_at)
    _check_count(unit, business)
    key, text = add_key(unit, business, wanted, expires_at, name)
    unit.audit("key.make", key.id, business=business, details={"scopes": sorted(wanted), "expires_at": expires_at})
    return key, text


def rotate(unit: UnitOfWork, key_id: str, overlap_s: int = 0) -> tuple[ApiKey, str]:
    """Replace a key by one with its scopes and expiry. The old one stays valid for `overlap_s`. Raises Refused."""
    if not 0 <= overlap_s <= LONGEST_OVERLAP_S:
        raise fields.invalid("overlap_s", f"must be 0 to {LONGEST_OVERLAP_S} seconds")
    old = _good(unit, key_id)
    unit.actor.must_have(old.scopes, "scopes")
    _check_end(unit, old.expires_at)
    if overlap_s:
        _check_count(unit, old.business)
    key, text = add_key(unit, old.business, old.scopes, old.expires_at, old.name)
    set_expiry(unit, old.id, unit.now_ms + 1000 * overlap_s)
    unit.audit("key.rotate", old.id, business=old.business, details={"new": key.id, "overlap_s": overlap_s})
    return key, text


def revoke(unit: UnitOfWork, key_id: str, reason: str = "") -> ApiKey:
    """End a key: the next request with it is refused. Raises Refused, also if the key has a scope the actor lacks."""
    key = _good(unit, key_id)
    unit.actor.must_have(key.scopes, "key")
    set_revoked(unit, key_id)
    unit.audit("key.revoke", key_id, business=key.business, reason=fields.reason(reason))
    return key._replace(revoked_at=unit.now_ms)


def _good(unit: UnitOfWork, key_id: str) -> ApiKey:
    key = find_key(unit.connection, unit.sealer, key_id)
    if key is None or unit.actor.business not in (None, key.business):
        raise Refused("not_found", "key", "there is no such key")
    if not key.is_good(unit.now_ms):
        raise Refused("ended", "key", "already revoked or expired: make a new one")
    return key


def _check_owner(unit: UnitOfWork, business: str | None) -> None:
    if business is None and unit.actor.business is not None:
        raise Refused("not_found", "business", "there is no such business user")
    if business is not None and get_business(unit, business).state == "revoked":
        raise Refused("business_not_approved", "business", "the business user is revoked and cannot have keys")


def _check_scopes(business: str | None, scopes: Collection[str]) -> frozenset[str]:
    allowed = OPERATOR_SCOPES if business is None else BUSINESS_SCOPES
    if not scopes or not allowed.issuperset(scopes):
        raise fields.invalid("scopes", f"must be one or more of: {', '.join(sorted(allowed))}")
    return frozenset(scopes)


def _check_end(unit: UnitOfWork, expires_at: int | None) -> None:
    """Raise Refused if a key would outlive the one that makes it: a stolen key must not extend its life."""
    kind, _, own_id = unit.actor.name.partition(":")
    own = find_key(unit.connection, unit.sealer, own_id) if kind == "key" else None
    if own is not None and own.expires_at is not None and (expires_at is None or expires_at > own.expires_at):
        raise Refused("forbidden", "expires_at", "must not be later than the expiry of the key that makes it")


def _check_count(unit: UnitOfWork, business: str | None) -> None:
    if business is not None and count_good(unit, business) >= MOST_KEYS:
        raise Refused("quota", "business", f"limited to {MOST_KEYS} valid keys: revoke unused ones")
