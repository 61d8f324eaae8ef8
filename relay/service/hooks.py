"""Hooks of business users: an endpoint of their own that decides about a call when it is made.

A business user has one hook at most. Its secret signs the questions and the answers; it is shown only once. The rules
of URLs that business users give, and of numbers that they are told, are here as well.
"""

from __future__ import annotations

import secrets
from typing import Literal, get_args
from urllib.parse import urlsplit

from relay.errors import Refused
from relay.model.call import PROBE_BUSINESS
from relay.net.hosts import is_loopback
from relay.net.public_address import why_never
from relay.service import fields, keys
from relay.service.businesses import get as get_business
from relay.service.placement import BindRules
from relay.store.hooks import Hook, find_hook, put_hook, remove_hook
from relay.store.unit_of_work import UnitOfWork

Parties = Literal["none", "masked", "clear"]
PARTIES: tuple[Parties, ...] = get_args(Parties)
LONGEST_URL = 2_000


def set_hook(
    unit: UnitOfWork,
    business: str,
    rules: BindRules,
    *,
    url: str | None = None,
    parties: str | None = None,
    unknown_callers: bool | None = None,
    enabled: bool | None = None,
) -> tuple[Hook, str | None]:
    """Set the hook of a business user; fields that are not given keep their values. Raises Refused.

    Returns it, with the secret if it is new. If the hook gets real numbers in clear, or makes bindings, any change but
    switching it off needs the scope for that.
    """
    owner = get_business(unit, business)
    if owner.id == PROBE_BUSINESS:
        raise fields.invalid("business", "reserved for the probe: name another one")
    old = find_hook(unit.connection, unit.sealer, owner.id)
    if old is None and url is None:
        raise fields.invalid("url", "required: the business user has no hook yet")
    secret = f"whsec_{secrets.token_urlsafe(32)}"
    hook = old or Hook(owner.id, "", secret, "masked", False, None, unit.now_ms, unit.now_ms)
    if url is not None:
        hook = hook._replace(url=checked_url(unit, url), internal=is_operator(unit))
    if parties is not None:
        hook = hook._replace(parties=parties)
    if unknown_callers is not None:
        hook = hook._replace(unknown_callers=unknown_callers)
    if enabled is not None:
        hook = hook._replace(disabled_at=None if enabled else hook.disabled_at or unit.now_ms)
    hook = hook._replace(changed_at=unit.now_ms)
    if hook.disabled_at is None or (url, parties, unknown_callers) != (None, None, None):
        _check(unit, hook, rules)
    put_hook(unit, hook)
    _audit(unit, "hook.set", hook)
    return hook, hook.secret if old is None else None


def get_hook(unit: UnitOfWork, business: str) -> Hook:
    """The hook of a business user. Raises Refused if the actor may not see it, or there is none."""
    hook = find_hook(unit.connection, unit.sealer, get_business(unit, business).id)
    if hook is None:
        raise no_hook()
    return hook


def no_hook() -> Refused:
    return Refused("not_found", "", "this business user has no hook")


def drop_hook(unit: UnitOfWork, business: str) -> Hook:
    """Remove the hook of a business user: its bindings alone decide again. Raises Refused."""
    hook = get_hook(unit, business)
    remove_hook(unit, hook.business)
    _audit(unit, "hook.remove", hook)
    return hook


def _check(unit: UnitOfWork, hook: Hook, rules: BindRules) -> None:
    if not rules.hooks:
        raise Refused("state_conflict", "", "hooks are not configured on this relay: an operator adds [hooks]")
    checked_parties(unit, hook.parties)
    if hook.unknown_callers:
        unit.actor.must_have(frozenset(["bindings:write"]), "unknown_callers")


def _audit(unit: UnitOfWork, action: str, hook: Hook) -> None:
    details: dict[str, object] = {
        "url": hook.url, "parties": hook.parties, "unknown_callers": hook.unknown_callers,
        "enabled": hook.disabled_at is None,
    }  # fmt: skip
    unit.audit(action, hook.business, business=hook.business, details=details)


# -- URLs, and what is told of real numbers: the same for webhooks


def is_operator(unit: UnitOfWork) -> bool:
    """Operators may name hosts of their own network; a business user could only probe it."""
    return unit.actor.business is None


def checked_url(unit: UnitOfWork, url: str) -> str:
    """Return the URL: https, or for an operator http to this machine, where nobody can listen in. Raises Refused."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # as for a look-up: no label is empty or longer than 63 characters
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    fits = len(url) <= LONGEST_URL and url.isascii() and url.isprintable() and " " not in url
    if not fits or not host or "@" in parts.netloc or parts.fragment:
        raise fields.invalid("url", "write a URL without user or fragment, such as https://shop.example/events")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host) and is_operator(unit)):
        raise fields.invalid("url", "write https; http is for operators only, to this machine")
    if why := why_never(host, port, internal=is_operator(unit)):
        raise fields.invalid("url", why)
    return url


def checked_parties(unit: UnitOfWork, parties: str) -> str:
    """How real numbers are told. Raises Refused without the scope for it."""
    if parties not in PARTIES:
        raise fields.invalid("parties", f"write one of: {', '.join(PARTIES)}")
    if parties == "clear":
        unit.actor.must_have(frozenset([keys.PARTIES]), "parties")
    return parties
