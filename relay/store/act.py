"""An act: one change of the store, made inside a write transaction by somebody at a moment.

Whatever changes the store takes an `Act`, and writes through it the rows, the audit line and the events
(`relay.store.outbox`) that belong together. It never begins, commits or rolls back: `relay.store.writer` does. It must
not be kept beyond its transaction.
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
OPERATOR: frozenset[str] = frozenset(get_args(Scope))  # all: whoever runs commands on this machine has them


class Actor(NamedTuple):
    """Who acts: "key:ID", "cli:USER" or "relay". Without a business it is an operator."""

    name: str
    business: str | None
    scopes: frozenset[str]

    def must_have(self, rights: frozenset[str], field: str) -> None:
        """Nobody grants, changes or revokes what he has not got himself. Raises Refused for `field`.

        A scope "operator" is one right among others: it stands for no other.
        """
        if lacking := rights - self.scopes:
            raise Refused("forbidden", field, f"the key lacks the scope {min(lacking)} itself: take one that has it")


RELAY = Actor("relay", None, OPERATOR)


def operator_cli() -> Actor:
    """Whoever runs a command on this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        user = "unknown"
    return Actor(f"cli:{user}", None, OPERATOR)


class Act(NamedTuple):
    """A change under way. Times are Unix milliseconds."""

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
        """Adds a line to the audit log. `object_` is stored in clear: an id or a 700 number, never a real number."""
        entry = Entry(self.now_ms, self.actor.name, action, object_, business, reason, details or {})
        add_entry(self.connection, self.sealer, entry)
