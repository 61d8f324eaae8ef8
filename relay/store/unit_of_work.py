"""The unit of work: one change of the store by one actor, inside a write transaction.

Code that changes the store takes an `UnitOfWork`, and writes through it the rows, the audit entry and the events
(`relay.store.webhooks`) that belong together. It never begins, commits or rolls back: `relay.store.writer` does. Do not
keep it beyond its transaction.
"""

from __future__ import annotations

import getpass
from typing import Literal, NamedTuple, get_args

from relay.errors import Refused
from relay.store.audit import Entry, add_entry
from relay.store.connection import Connection
from relay.store.sealing import Sealer

BusinessScope = Literal[
    "bindings:read",
    "bindings:write",
    "numbers:read",
    "calls:read",
    "calls:hangup",
    "parties:read",
    "webhooks",
    "lists",
    "filings",
    "reports",
    "keys",
]
Scope = Literal[BusinessScope, "trace", "operator"]
BUSINESS_SCOPES: frozenset[str] = frozenset(get_args(BusinessScope))
OPERATOR: frozenset[str] = frozenset(get_args(Scope))  # all scopes, as the commands on this machine have them


class Actor(NamedTuple):
    """The author of a change: "key:ID", "cli:USER" or "relay". Without a business it is an operator."""

    name: str
    business: str | None
    scopes: frozenset[str]

    def must_have(self, rights: frozenset[str], field: str) -> None:
        """Raises Refused for `field` unless the actor has all `rights`: a key cannot grant, change or revoke others.

        The scope "operator" is one right among others and implies none of them.
        """
        if lacking := rights - self.scopes:
            raise Refused("forbidden", field, f"the key itself lacks the scope {min(lacking)}: use one that has it")


RELAY = Actor("relay", None, OPERATOR)


def operator_cli() -> Actor:
    """The user who runs a command on this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user id has no name
        user = "unknown"
    return Actor(f"cli:{user}", None, OPERATOR)


class UnitOfWork(NamedTuple):
    """A unit of work. Times are Unix milliseconds."""

    connection: Connection
    sealer: Sealer
    actor: Actor
    now_ms: int

    def audit(
        self,
        action: str,
        object_: str,
        *,
        business: str | None = None,
        reason: str = "",
        details: dict[str, object] | None = None,
    ) -> None:
        """Add an entry to the audit log. `object_` is stored in clear: an id or a 700 number, never a real number."""
        entry = Entry(self.now_ms, self.actor.name, action, object_, business, reason, details or {})
        add_entry(self.connection, self.sealer, entry)
