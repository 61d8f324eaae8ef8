"""The look-up of a call as it was at an earlier time, from the history of bindings and businesses.

Owns which binding a caller had on a number then. Number locks, list entries and limits of a business user have no
history: they are those of now. It is for explanations: slower than `relay.store.lookup`, and it grants nothing.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final, NamedTuple

from relay.errors import StoreError
from relay.model.binding import GROUP_MODES, Binding, compile_lines
from relay.model.numbers import Parties
from relay.policy.evaluate import ALWAYS_MS, BindingContext, LookupResult
from relay.store.bindings import find_binding, history
from relay.store.businesses import Business, find_business, state_changes
from relay.store.connection import Connection
from relay.store.filings import filing_at
from relay.store.groups import of_binding, of_business, was_member
from relay.store.hooks import find_hook
from relay.store.journal.rows import open_caller
from relay.store.records import LAST_MS, RecordFilter, live_calls, read_all
from relay.store.sealing.sealer import Sealer

# Driven by the party: a number may have had thousands of bindings. "|| ''" keeps the indexes of numbers unused.
OF_CALLER: Final = """
WITH membership AS (
    SELECT group_id FROM group_member WHERE hash = :party UNION SELECT group_id FROM past_member WHERE hash = :party)
SELECT id FROM binding WHERE (x || '' = :number OR y || '' = :number) AND created_at <= :at AND id IN (
    SELECT id FROM binding WHERE a_hash = :party UNION SELECT id FROM binding WHERE b_hash = :party
    UNION SELECT binding_id FROM past_party WHERE hash = :party
    UNION SELECT id FROM binding WHERE group_id IN (SELECT group_id FROM membership)
    UNION SELECT binding_id FROM past_party WHERE hash IN (SELECT CAST(group_id AS BLOB) FROM membership))
ORDER BY created_at DESC
"""
# A call without a binding of its own falls under the number's last AXN, ended or not, whatever was bound there since.
_AXNS: Final = "SELECT created_at, id FROM binding WHERE x = ? AND mode = 'AXN' ORDER BY created_at DESC"
_COOL_DOWN: Final = """
SELECT prefix.cool_down_ms FROM number JOIN prefix ON prefix.prefix = number.prefix WHERE number.number = ?
"""
_NUMBER: Final = "SELECT locked, legacy FROM number WHERE number = ?"
_ENTRY: Final = "SELECT kind FROM list_entry WHERE owner = ? AND caller_hash = ? AND added_at <= ?"
_LAST: Final = "SELECT number, caller_hash, sealed FROM last_caller WHERE binding_id = ? AND at <= ?"
_LATER: Final = "SELECT 1 FROM last_caller WHERE binding_id = ? AND at > ?"
MOST_KEPT: Final = 10_000
_LONGEST_HOOK_MS: Final = 15_000  # from a call's arrival to the binding that a hook makes for its unknown caller


class Moment(NamedTuple):
    """A call of an earlier time."""

    number: str  # dialled
    caller: str  # E.164 without "+", "" if anonymous
    at_ms: int


class PastLookUps:
    """Look-ups of several moments. Bindings are kept in memory, at most `MOST_KEPT` of them."""

    def __init__(self, connection: Connection, sealer: Sealer, parties: Parties) -> None:
        """`parties`: only such callers can be called back."""
        self._connection = connection
        self._parties = parties
        self._sealer = sealer
        self._versions: dict[str, tuple[Binding, ...]] = {}
        self._axns: dict[str, list[tuple[int, str]]] = {}  # by number
        self._businesses: dict[str, Business | None] = {}
        self._states: dict[str, list[tuple[int, str]]] = {}
        self._hooks: dict[str, int | None] = {}

    def found_at(self, asked: Moment, *, filing: bool, cool_down_ms: int) -> LookupResult:
        """The look-up. `filing`: A numbers must be filed. `cool_down_ms`: the configured one. Raises StoreError."""
        caller_hash = self._sealer.lookup_hash(asked.caller)
        number = self._connection.execute(_NUMBER, (asked.number,)).fetchone()
        locked, legacy = number or (None, 0)
        own = self._own(asked, caller_hash)
        chosen = own
        if own is None or own[0].released_at is not None:
            chosen = self._anybodys(asked, cool_down_ms, even_ended=own is None) or own
        is_unknown = chosen is None or not chosen[0].is_live(asked.at_ms)
        if is_unknown and (bound_at_ms := self._bound_by_hook(asked, caller_hash)) is not None:
            return self.found_at(asked._replace(at_ms=bound_at_ms), filing=filing, cool_down_ms=cool_down_ms)
        bound = None if chosen is None else self._bound(asked, *chosen, caller_hash, filing=filing)
        return LookupResult(caller_hash, locked, legacy, chosen is not None and chosen is own, bound, (), ())

    def _own(self, asked: Moment, caller_hash: bytes) -> tuple[Binding, str] | None:
        """The caller's binding in force, else its latest one, and the caller's role."""
        if not asked.caller:
            return None
        values = {"party": caller_hash, "number": asked.number, "at": asked.at_ms}
        ended: list[tuple[int, Binding, str]] = []
        for (binding_id,) in self._connection.execute(OF_CALLER, values).fetchall():
            binding = self.version_at(binding_id, asked.at_ms)
            role = None if binding is None else self._role(binding, asked, caller_hash)
            if binding is None or role is None:
                continue
            if binding.is_live(asked.at_ms):
                return binding, role
            ended.append((min(binding.ended_at or LAST_MS, binding.expires_at or LAST_MS), binding, role))
        return max(ended, key=lambda each: each[0])[1:] if ended else None

    def _bound_by_hook(self, asked: Moment, caller_hash: bytes) -> int | None:
        """The time when a hook bound the unknown caller of this call, which was then looked up again."""
        values = {"party": caller_hash, "number": asked.number, "at": asked.at_ms + _LONGEST_HOOK_MS}
        for (binding_id,) in self._connection.execute(OF_CALLER, values).fetchall():
            made = self._read(binding_id)[0]
            if made.created_by == "hook" and made.created_at > asked.at_ms and self._is_recorded(asked, binding_id):
                return made.created_at
        return None

    def _is_recorded(self, asked: Moment, binding_id: str) -> bool:
        """Whether a call with that binding is up, or has a record. A float of its time may lose a millisecond."""
        wanted = RecordFilter(number=asked.number, since_ms=asked.at_ms - 1, until_ms=asked.at_ms + 2)
        calls = (*live_calls(self._connection, self._sealer), *read_all(self._connection, self._sealer, wanted))
        return any(call.caller == asked.caller and call.binding_id == binding_id for call in calls if wanted.fits(call))

    def _anybodys(self, asked: Moment, cool_down_ms: int, *, even_ended: bool) -> tuple[Binding, str] | None:
        """The AXN on the number, unless the caller was its party a until a change, and it still rests for him.

        `even_ended`: the caller has had no binding there, so that the end of the AXN is what he hears of.
        """
        binding_id = self._axn(asked)
        binding = None if binding_id is None else self.version_at(binding_id, asked.at_ms)
        if binding is None or not (even_ended or binding.released_at is None):
            return None
        pairs = pairwise(self._versions[binding.binding_id])
        left = [_changed(new) for old, new in pairs if old.a == asked.caller != new.a and _changed(new) <= asked.at_ms]
        if not left:
            return binding, "*"
        (own_ms,) = self._connection.execute(_COOL_DOWN, (asked.number,)).fetchone() or (None,)
        rests_until = left[-1] + (cool_down_ms if own_ms is None else own_ms)
        return None if asked.at_ms < rests_until else (binding, "*")

    def _axn(self, asked: Moment) -> str | None:
        if asked.number not in self._axns:
            if len(self._axns) >= MOST_KEPT:
                self._axns.clear()
            self._axns[asked.number] = self._connection.execute(_AXNS, (asked.number,)).fetchall()
        return next((id_ for created_at, id_ in self._axns[asked.number] if created_at <= asked.at_ms), None)

    def _role(self, binding: Binding, asked: Moment, caller_hash: bytes) -> str | None:
        members: tuple[str, ...] = ()
        if binding.group_id is not None and was_member(
            self._connection, binding.group_id, caller_hash, asked.at_ms, asked.at_ms + 1
        ):
            members = (asked.caller,)
        lines = compile_lines(binding, members)
        return next((line.party for line in lines if line[:2] == (asked.number, asked.caller)), None)

    def version_at(self, binding_id: str, at_ms: int) -> Binding | None:
        """The binding as it was, with its end and release if they were before; None if it was not made yet."""
        versions = self._versions.get(binding_id)
        if versions is None:
            if len(self._versions) >= MOST_KEPT:
                self._versions.clear()
            versions = self._versions[binding_id] = self._read(binding_id)
        if not versions or versions[0].created_at > at_ms:
            return None
        then = next((old for old, new in pairwise(versions) if _changed(new) > at_ms), versions[-1])
        ends = (versions[-1].ended_at, versions[-1].released_at)
        ended_at, released_at = (None if end is None or end > at_ms else end for end in ends)
        return then._replace(ended_at=ended_at, released_at=released_at)

    def _read(self, binding_id: str) -> tuple[Binding, ...]:
        now = find_binding(self._connection, self._sealer, binding_id)
        return () if now is None else (*history(self._connection, self._sealer, binding_id), now)

    def _bound(self, asked: Moment, binding: Binding, role: str, caller_hash: bytes, *, filing: bool) -> BindingContext:
        business = self.business(binding.business)
        fields: dict[str, Any] = {name: getattr(binding, name) for name in _SAME}
        if business is not None:
            fields |= {"max_calls": business.max_calls, "max_cps": business.max_cps, "language": business.language}
            fields |= {"business_white_only": int(business.white_only), "business_hours": business.hours}
            fields |= {"live_events": int(business.live_events), "hook": self._hook(business.id)}
        bound = _EMPTY._replace(
            **fields,
            in_force=int(binding.is_live(asked.at_ms)),
            party=role,
            white_only=int(binding.white_only),
            record=int(binding.record),
            business_state=self._state(binding.business, asked.at_ms),
            entry=self._entry(binding, caller_hash, asked.at_ms),
            last_caller=self._last_caller(binding, role, asked.at_ms),
        )
        return bound._replace(filed_until=self._filed_until(bound, asked)) if filing else bound

    def business(self, business_id: str) -> Business | None:
        """The business user as it is now."""
        if business_id not in self._businesses:
            self._businesses[business_id] = find_business(self._connection, self._sealer, business_id)
        return self._businesses[business_id]

    def _hook(self, business_id: str) -> int | None:
        """1 if it has a hook now."""
        if business_id not in self._hooks:
            hook = find_hook(self._connection, self._sealer, business_id)
            self._hooks[business_id] = None if hook is None or hook.disabled_at is not None else 1
        return self._hooks[business_id]

    def _state(self, business_id: str, at_ms: int) -> str | None:
        """The state of the business user then; None if there is none."""
        if business_id not in self._states:
            changes = state_changes(self._connection, self._sealer, business_id)
            self._states[business_id] = [(change.at, change.state) for change in changes]
        if self.business(business_id) is None:
            return None
        return next((state for at, state in reversed(self._states[business_id]) if at <= at_ms), "approved")

    def _entry(self, binding: Binding, caller_hash: bytes, at_ms: int) -> str | None:
        for owner in (of_binding(binding.binding_id), of_business(binding.business)):
            row = self._connection.execute(_ENTRY, (owner, caller_hash, at_ms)).fetchone()
            if row is not None:
                return str(row[0])
        return None

    def _last_caller(self, binding: Binding, role: str, at_ms: int) -> str | None:
        """The target of a call back: as stored if nobody has called since, else from the records."""
        if not (role == "a" if binding.mode == "AXN" else role == "b" and binding.mode in GROUP_MODES):
            return None
        row = self._connection.execute(_LAST, (binding.binding_id, at_ms)).fetchone()
        caller: str | None
        if row is not None:
            caller = open_caller(self._sealer, binding.binding_id, row[0], row[2])
        else:
            later = self._connection.execute(_LATER, (binding.binding_id, at_ms)).fetchone()
            caller = None if later is None else self._last_recorded(binding, at_ms)
        if caller is None or binding.group_id is None:
            return caller
        member = was_member(self._connection, binding.group_id, self._sealer.lookup_hash(caller), at_ms, at_ms + 1)
        return caller if member else None

    def _last_recorded(self, binding: Binding, at_ms: int) -> str | None:
        by = "b_to_a" if binding.mode == "AXN" else "a_to_b"
        wanted = RecordFilter(number=binding.x, since_ms=binding.created_at, until_ms=at_ms)
        records = read_all(self._connection, self._sealer, wanted, newest_first=True)
        calls = (each for each in records if each.binding_id == binding.binding_id and each.routed_at is not None)
        return next((each.caller for each in calls if each.direction == by and self._parties.allow(each.caller)), None)

    def _filed_until(self, bound: BindingContext, asked: Moment) -> int:
        """Until when the A number of the call was filed; 0: it was not. As in the look-up of a call."""
        a = asked.caller if bound.party in ("a", "g") else bound.a
        if bound.party == "b" and bound.mode in GROUP_MODES and bound.last_caller is not None:
            a = bound.last_caller
        filing = filing_at(self._connection, self._sealer, bound.business, a, asked.at_ms) if a else None
        if filing is None or not filing.was_in_force(asked.at_ms):
            return 0
        return filing.expires_at or ALWAYS_MS


# Fields of a binding that a look-up takes as they are.
_SAME: Final = (
    *("binding_id", "mode", "business", "x", "y", "direction", "max_call_s", "ring_timeout_s", "hours", "expires_at"),
    *("ended_at", "a", "b", "order_id", "industrial_id"),
)
_EMPTY: Final = BindingContext._make([None] * (len(BindingContext._fields) - 1) + [ALWAYS_MS])


def _changed(version: Binding) -> int:
    """The time of the change that led to a version."""
    if version.changed_at is None:
        raise StoreError(f"version {version.version} of the binding {version.binding_id} has no time")
    return version.changed_at
