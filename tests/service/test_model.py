"""Random sequences of requests against a reference model: the store has the same routes, counters and call decisions.

Independently of the model, no number is given to another party within its cool-down.
"""

from __future__ import annotations

import atexit
import copy
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from relay.errors import Refused
from relay.model.binding import Binding
from relay.model.call import Refusal
from relay.policy.evaluate import DialledCall, evaluate
from relay.policy.rules import Recent, Rules
from relay.service.bindings import end
from relay.service.businesses import change as change_business
from relay.service.businesses import set_state
from relay.service.groups import add_members, make_group, remove_members
from relay.service.numbers import lock, unlock
from relay.service.placement import BindRules, release_due
from relay.store.connection import one_moment
from relay.store.database import connect, open_store
from relay.store.groups import Group, insert_group
from relay.store.history import History
from relay.store.ledger import ledger_transaction
from relay.store.ledger_check import ledger_faults
from relay.store.sealing.rows import ANY_CALLER
from relay.store.sqlite.lookup import RouteReader
from relay.store.unit_of_work import Actor, UnitOfWork
from tests.service.model import ANYBODY, Made, Model
from tests.support.papers import PAPERS, apply
from tests.support.stored import NOW_MS, PBX
from tests.support.written import Written, bind, change, written

T = TypeVar("T")
NOTHING_ENDED = History()  # so only routes that do not fit their binding are named

NUMBERS = [f"7001000000100{n:02d}" for n in range(4)]
PARTIES = ["8001", "8002", "8003", "8004", "8613800000005"]
GROUPS = ["couriers", "riders"]
CAP, COOL_MS, MOST = 2, 100, 3
RULES = BindRules(cool_down_ms=COOL_MS, max_bindings=CAP, phase="transition", parties=PBX)
OPERATOR = Actor("cli:test", None, frozenset())
CALLS = Rules(international_allowed=True, parties=PBX)

numbers = st.sampled_from(NUMBERS)
parties = st.sampled_from(PARTIES)
groups = st.sampled_from(GROUPS)
spans_ms = st.one_of(st.none(), st.sampled_from([1_000, 2_000]))


class Grant(NamedTuple):
    """The right of a caller to dial a number, until a time; None: still valid."""

    binding: str
    number: str
    caller: str
    ends: frozenset[str]
    until: int | None


@cache
def template() -> Path:
    """A store with numbers, business users and groups, made once and copied."""
    folder = Path(tempfile.mkdtemp(prefix="relay700-model-"))
    atexit.register(shutil.rmtree, folder)
    sealer = open_store(folder / "relay.db", folder / "relay.key")
    with closing(connect(folder / "relay.db")) as connection, ledger_transaction(connection, sealer, NOW_MS):
        rows = [(number,) for number in NUMBERS]
        connection.executemany("INSERT INTO number (number, prefix, pool) VALUES (?, '', 'default')", rows)
        unit = UnitOfWork(connection, sealer, OPERATOR, NOW_MS)
        apply(unit, "Acme", "acme", **PAPERS)
        set_state(unit, "acme", "approve", "checked")
        change_business(unit, "acme", max_bindings=MOST)
        for name in GROUPS:
            insert_group(unit, Group(name, "default", name, 0, 1, NOW_MS))
        make_group(unit, "riders", RULES)
    return folder


class Store(RuleBasedStateMachine):
    """Requests in any order, at any time."""

    made = Bundle("made")

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="relay700-model-"))
        shutil.copytree(template(), self.folder, dirs_exist_ok=True)
        self.sealer = open_store(self.folder / "relay.db", self.folder / "relay.key")
        self.connection = connect(self.folder / "relay.db")
        self.connection.execute("PRAGMA synchronous = OFF")
        self.reader = RouteReader(self.folder / "relay.db", self.sealer, CALLS, lambda *_: None)
        self.hashes = {self.sealer.lookup_hash(party): party for party in PARTIES} | {ANY_CALLER: ANYBODY}
        self.now = NOW_MS
        self.model = Model(NUMBERS, CAP, COOL_MS, {"default": None, "acme": MOST})
        self.model.groups = {name: set() for name in GROUPS}
        self.grants: list[Grant] = []
        self.steps = 0

    def teardown(self) -> None:
        self.verify()
        self.connection.close()
        self.reader.close()
        shutil.rmtree(self.folder)

    def run(self, do: Callable[[UnitOfWork], T]) -> T | str:
        """The result of a unit of work, or the kind of its refusal."""
        try:
            with ledger_transaction(self.connection, self.sealer, self.now):
                return do(UnitOfWork(self.connection, self.sealer, OPERATOR, self.now))
        except Refused as refused:
            return refused.kind

    # -- requests

    @rule(
        target=made,
        mode=st.sampled_from(["AXB", "AXYB", "GXB", "GXYB", "AXN"]),
        business=st.sampled_from(["default", "default", "acme"]),
        ab=st.lists(parties, min_size=2, max_size=2, unique=True),
        group=groups,
        x=st.one_of(st.none(), numbers),
        y=st.one_of(st.none(), numbers),
        span_ms=spans_ms,
        both=st.booleans(),
        late=st.booleans(),
    )
    def binds(
        self,
        mode: str,
        business: str,
        ab: list[str],
        group: str,
        x: str | None,
        y: str | None,
        span_ms: int | None,
        both: bool,
        late: bool,
    ) -> str | None:
        a: str | None = ab[0]
        b: str | None = ab[1]
        if mode == "AXN" and not both:
            b = None
        late = late and mode in ("AXB", "AXYB")
        if late or (mode in ("GXB", "GXYB") and not both):
            a = None
        y = y if mode in ("AXYB", "GXYB") else None
        return self._bind(mode, business, a, b, group, x, y, span_ms, late=late)

    @rule(target=made, binding=made, mode=st.sampled_from(["AXB", "AXYB"]))
    def binds_the_same_two_again(self, binding: str | None, mode: str) -> str | None:
        of = self.model.bindings.get(binding or "")
        if of is None or not of.a or not of.b:
            return None
        return self._bind(mode, of.business, of.a, of.b, "", None, None, None)

    def _bind(
        self,
        mode: str,
        business: str,
        a: str | None,
        b: str | None,
        group: str,
        x: str | None,
        y: str | None,
        span_ms: int | None,
        *,
        late: bool = False,
    ) -> str | None:
        expires_at = None if span_ms is None else self.now + span_ms
        of_group = group if mode in ("GXB", "GXYB") else None
        span = None if span_ms is None else f"{span_ms // 1000}s"
        asked = written(mode, a or "", b or "", x=x, y=y, expires_in=span, business=business, group_id=of_group)
        asked["late"] = late
        answer = self.run(lambda unit: bind(unit, asked, RULES))
        wanted = Made(mode, business, "?", "?" if mode in ("AXYB", "GXYB") else None, a, b, of_group, expires_at)
        before = copy.deepcopy((self.model, self.grants))
        self._sweep()
        expected = self._expected(wanted, x, y, group if of_group else None, answer)
        if expected:
            assert answer in expected
            self.model, self.grants = before
            return None
        assert not isinstance(answer, str), answer
        made = replace(wanted, x=answer.x, y=answer.y)
        self._grant(answer.binding_id, made, made.left_sides(self.model.members(made)))
        self.model.bind(answer.binding_id, made, self.now)
        return answer.binding_id

    def _expected(self, wanted: Made, x: str | None, y: str | None, group: str | None, answer: object) -> set[str]:
        """The kinds of refusal that the model allows; a chosen number must be one of those that may be chosen."""
        if wanted.business in self.model.suspended:
            return {"business_not_approved"}
        if group is not None and wanted.business != "default":
            return {"not_found"}  # the groups belong to "default"
        if group is not None and wanted.b in self.model.groups[group]:
            return {"invalid"}
        left_x, left_y = ({given} if given else self._left(field, wanted) for field, given in (("x", x), ("y", y)))
        pairs = [(one, other) for one in left_x for other in left_y if one != other or (x and y)]
        if not (pairs if wanted.y else left_x):
            return {"pool_empty"}
        if isinstance(answer, Binding):
            self._check_choice(wanted, x, y, answer)
            return self.model.why_not_bound(replace(wanted, x=answer.x, y=answer.y), self.now)
        if x and x == y:
            return {"invalid"}
        # The refusal does not name the numbers tried. A chosen number is never the reason.
        tried = replace(wanted, x=x or next(iter(left_x)), y=wanted.y and (y or next(iter(left_y - {x}))))
        return self.model.why_not_bound(tried, self.now)

    def _left(self, field: str, wanted: Made) -> set[str]:
        again = set(self.model.again(field, wanted, self.now))
        return again | self.model.rested(self.now) | self.model.shareable(field, wanted, self.now)

    def _check_choice(self, wanted: Made, x: str | None, y: str | None, made: Binding) -> None:
        """y is chosen after x, or x after y."""

        def is_good(field: str, given: str | None, number: str | None, other: str | None) -> bool:
            return given is not None or self.model.may_be_chosen(field, str(number), other, wanted, self.now)

        if wanted.y is None:
            assert is_good("x", x, made.x, None)
            return
        x_first = is_good("x", x, made.x, y) and is_good("y", y, made.y, made.x)
        assert x_first or (is_good("y", y, made.y, None) and is_good("x", x, made.x, made.y))

    @rule(binding=consumes(made))
    def ends(self, binding: str | None) -> None:
        if binding is not None:
            answer = self.run(lambda unit: end(unit, binding, RULES))
            assert not isinstance(answer, str)
            self._close(binding)
            self.model.end(binding, self.now)

    @rule(binding=made, party=parties, which=st.sampled_from(["a", "b"]))
    def changes_a_party(self, binding: str | None, party: str, which: str) -> None:
        self._change(binding, {which: party}, {which: party})

    @rule(binding=made)
    def takes_a_away(self, binding: str | None) -> None:
        self._change(binding, {"a": ""}, {"a": None})

    @rule(binding=made)
    def swaps_the_parties(self, binding: str | None) -> None:
        made = self.model.bindings.get(binding or "")
        if made is not None and made.a and made.b:
            self._change(binding, {"a": made.b, "b": made.a}, {"a": made.b, "b": made.a})

    @rule(binding=made, group=groups)
    def changes_the_group(self, binding: str | None, group: str) -> None:
        if binding is not None and self.model.bindings[binding].group is not None:
            self._change(binding, {"group_id": group}, {"group": group})

    @rule(binding=made, span_ms=spans_ms)
    def changes_the_end(self, binding: str | None, span_ms: int | None) -> None:
        expires_at = None if span_ms is None else self.now + span_ms
        asked = {"expires_in": "" if span_ms is None else f"{span_ms // 1000}s"}
        self._change(binding, asked, {"expires_at": expires_at})

    def _change(self, binding: str | None, asked: Written, changes: dict[str, object]) -> None:
        if binding is None:
            return
        before = copy.deepcopy((self.model, self.grants))
        self._sweep()
        old = self.model.bindings[binding]
        new = replace(old, **changes)  # type: ignore[arg-type]
        answer = self.run(lambda unit: change(unit, binding, asked, RULES))
        expected = self._why_not_changed(binding, old, new)
        if expected:
            assert answer in expected
            self.model, self.grants = before
            return
        assert not isinstance(answer, str), answer
        sides, old_sides = (made.left_sides(self.model.members(made)) for made in (new, old))
        if new.ends != old.ends or sides.keys() != old_sides.keys():  # an AXYB whose parties swap has the same ends
            self._close(binding)
            self._grant(binding, new, sides, before=old_sides)
        self.model.change(binding, new, self.now)

    def _why_not_changed(self, binding: str, old: Made, new: Made) -> set[str]:
        if not self.model.is_live(old, self.now):
            return {"ended"}
        if new == old:
            return set()
        if (new.a is None and new.mode == "AXN") or new.a == new.b or new.b in self.model.members(new):
            return {"invalid"}
        return self.model.why_not_changed(binding, new, self.now)

    @rule(group=groups, party=parties)
    def adds_a_member(self, group: str, party: str) -> None:
        answer = self.run(lambda unit: add_members(unit, group, [party], RULES))
        if expected := self.model.why_not_added(group, party, self.now):
            assert answer in expected
            return
        assert answer == int(party not in self.model.groups[group])
        for binding, made in self.model.of_group(group) if answer else ():
            self._grant(binding, made, [(made.x, party)], before=made.left_sides(self.model.members(made)))
        self.model.add(group, party)

    @rule(group=groups, party=parties)
    def removes_a_member(self, group: str, party: str) -> None:
        answer = self.run(lambda unit: remove_members(unit, group, [party], RULES))
        assert answer == int(party in self.model.groups[group])
        for binding, _ in self.model.of_group(group) if answer else ():
            self._close(binding, party)
        self.model.remove(group, party, self.now)

    @rule(number=numbers)
    def locks(self, number: str) -> None:
        self.run(lambda unit: lock(unit, number, "test"))
        self.model.numbers[number].locked = True

    @rule(number=numbers)
    def unlocks(self, number: str) -> None:
        self.run(lambda unit: unlock(unit, number))
        self.model.numbers[number].locked = False

    @rule()
    def suspends_or_resumes(self) -> None:
        step = "resume" if "acme" in self.model.suspended else "suspend"
        answer = self.run(lambda unit: set_state(unit, "acme", step, "test"))  # type: ignore[arg-type]
        assert not isinstance(answer, str)
        self.model.suspended ^= {"acme"}

    @rule(span_ms=st.sampled_from([1, COOL_MS - 1, COOL_MS, 999, 1_000]))
    def time_passes(self, span_ms: int) -> None:
        self.now += span_ms

    @rule()
    def sweeps(self) -> None:
        due = sum(not made.released and not self.model.is_live(made, self.now) for made in self.model.bindings.values())
        assert self.run(lambda unit: release_due(unit, RULES)) == due
        self._sweep()

    # -- no number is given out inside its cool-down

    def _grant(
        self, binding: str, made: Made, sides: Iterable[tuple[str, str]], *, before: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Record the callers of each number from now on. `before`: those that this binding already had.

        A new caller did not use the number with another party within the cool-down. If nobody uses the number any more,
        no other party did at all.
        """
        for number in made.numbers:
            coming, there = ({who for at, who in each if at == number} for each in (sides, before))
            self._check_grant(binding, number, made, coming, there)
        self.grants += [Grant(binding, number, who, made.ends, None) for number, who in sides]

    def _check_grant(self, binding: str, number: str, made: Made, coming: set[str], there: set[str]) -> None:
        latest = {grant.caller: grant for grant in self.grants if grant.number == number and grant.binding != binding}
        held = {who for who, grant in latest.items() if grant.until is None}
        resting = {who for who, grant in latest.items() if grant.until is not None and grant.until + COOL_MS > self.now}
        strangers = {who for who in resting if latest[who].ends != made.ends}
        assert not coming & held
        assert not (coming - there) & strangers
        assert not held or ANYBODY not in coming | held
        if not there and not self.model.numbers[number].holders:
            assert not strangers

    def _close(self, binding: str, *callers: str) -> None:
        self.grants = [
            grant._replace(until=self.now)
            if grant.binding == binding and grant.until is None and (not callers or grant.caller in callers)
            else grant
            for grant in self.grants
        ]

    def _sweep(self) -> None:
        before = [binding for binding, made in self.model.bindings.items() if not made.released]
        self.model.sweep(self.now)
        for binding in before:
            if self.model.bindings[binding].released:
                self._close(binding)

    # -- invariants

    @invariant()
    def the_routes_are_the_models(self) -> None:
        rows = self.connection.execute("SELECT number, caller_hash, binding_id, party, free_at FROM route").fetchall()
        stored = {(number, self.hashes[caller]): rest for number, caller, *rest in rows}
        assert stored == {key: [use.holder, use.party, use.free_at] for key, use in self.model.uses.items()}

    @invariant()
    def the_counters_are_the_models(self) -> None:
        for number, bindings, exclusive, cools_until in self.connection.execute(
            "SELECT number, bindings, exclusive, cools_until FROM number"
        ):
            assert bindings == len(self.model.numbers[number].holders)
            assert exclusive == self.model.is_exclusive(number)
            assert cools_until == self.model.numbers[number].cools_until
        for business, live in self.connection.execute("SELECT business, live FROM business_count"):
            assert live == self.model.holding(business)

    @invariant()
    def every_row_proves_itself(self) -> None:
        """At every tenth step, and at the end: it takes most of the time, and a row without a proof stays so."""
        self.steps += 1
        if self.steps % 10 == 0:
            self.verify()

    def verify(self) -> None:
        with one_moment(self.connection):
            assert list(ledger_faults(self.connection, self.sealer)) == []
            assert list(NOTHING_ENDED.contradictions(self.connection, everywhere=True)) == []

    @rule(number=numbers, caller=parties)
    def calls(self, number: str, caller: str) -> None:
        found = self.reader.fetch(number, caller, self.now / 1000)
        assert not isinstance(found, Refusal)
        answer = evaluate(found, DialledCall(number, caller, self.now / 1000, 0, 0), CALLS, Recent())
        got = answer.outcome if isinstance(answer, Refusal) else (answer.callee, answer.shown)
        assert got == self.model.call(number, caller, self.now)


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=150, stateful_step_count=40, suppress_health_check=list(HealthCheck))
