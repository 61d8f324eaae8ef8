"""The look-up of an earlier time finds what a call of that time found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from relay.model.call import Refusal
from relay.model.numbers import MOBILES_ALONE
from relay.policy.evaluate import DialledCall, LookupResult, evaluate
from relay.policy.rules import LastCaller, Recent, Rules
from relay.service.businesses import set_state
from relay.service.filings import FilingWords, add_filing, remove_filing
from relay.service.groups import set_entry
from relay.service.hooks import set_hook
from relay.service.placement import BindRules, release_due
from relay.store.journal.rows import caller_row
from relay.store.lookup_at import OF_CALLER, Moment, PastLookUps
from tests.service.test_model import CALLS, COOL_MS, NUMBERS, PARTIES, Store
from tests.support.acting import Acting, acting
from tests.support.papers import PAPERS, apply
from tests.support.shelf import Shelf, call
from tests.support.stored import NOW_MS, A, B, X, binding, put
from tests.support.written import change

C, FOREIGN = "8613700000003", "14155550100"
RULES = BindRules(phase="transition")


def outcome(found: LookupResult | Refusal, moment: Moment, rules: Rules = CALLS) -> object:
    assert isinstance(found, LookupResult)
    asked = DialledCall(moment.number, moment.caller, moment.at_ms / 1000, 0, 0)
    answer = evaluate(found._replace(locked=found.locked and 0), asked, rules, Recent())
    return answer.outcome if isinstance(answer, Refusal) else (answer.binding_id, answer.callee, answer.shown)


class Watched(Store):
    """Calls are looked up again when all has changed. Times differ, as they do for calls and changes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Moment, object]] = []

    @rule(number=st.sampled_from(NUMBERS))
    def calls_all(self, number: str) -> None:
        self.now += 1
        for caller in PARTIES:
            moment = Moment(number, caller, self.now)
            self.seen.append((moment, outcome(self.reader.fetch(number, caller, self.now / 1000), moment)))
        self.now += 1

    def teardown(self) -> None:
        past = PastLookUps(self.connection, self.sealer, CALLS.parties)
        try:
            for moment, seen in self.seen:
                assert outcome(past.found_at(moment, filing=False, cool_down_ms=COOL_MS), moment) == seen, moment
        finally:
            super().teardown()


TestWatched = Watched.TestCase
QUICK = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
TestWatched.settings = settings(
    max_examples=12, stateful_step_count=30, suppress_health_check=list(HealthCheck), deadline=None, phases=QUICK
)


# -- what has its own history


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as store:
        put(store.path, store.sealer, binding("000000000001", expires_at=NOW_MS + 50_000))
        yield store


def found(store: Acting, after_s: float, number: str = X, caller: str = A, *, filing: bool = False) -> LookupResult:
    moment = Moment(number, caller, NOW_MS + int(1000 * after_s))
    return PastLookUps(store.reader, store.sealer, MOBILES_ALONE).found_at(moment, filing=filing, cool_down_ms=0)


def test_a_binding_is_found_with_its_terms_and_end_of_that_time(store: Acting) -> None:
    store.now_ms = NOW_MS + 10_000
    store.run(lambda unit: change(unit, "000000000001", {"expires_in": "100s", "hours": "08:00-20:00"}, RULES))
    before, after = found(store, 5).bound, found(store, 20).bound
    assert before is not None and after is not None
    assert (before.expires_at, before.hours) == (NOW_MS + 50_000, None)
    assert (after.expires_at, after.hours) == (NOW_MS + 110_000, "08:00-20:00")
    assert found(store, -1).bound is None


def test_the_state_of_a_business_user_is_that_of_the_time(store: Acting) -> None:
    store.run(lambda unit: apply(unit, "Acme", "acme", **PAPERS))
    store.run(lambda unit: set_state(unit, "acme", "approve", "checked"))
    number = X[:-1] + "3"
    put(store.path, store.sealer, binding("000000000003", business="acme", x=number))
    store.now_ms += 10_000
    store.run(lambda unit: set_state(unit, "acme", "suspend", "late"))
    states = []
    for after_s in (5, 20):
        bound = found(store, after_s, number).bound
        assert bound is not None
        states.append(bound.business_state)
    assert states == ["approved", "suspended"]


@pytest.mark.parametrize(("enabled", "hook"), [(True, 1), (False, None)])
def test_a_business_user_has_the_hook_that_it_has_now(store: Acting, enabled: bool, hook: int | None) -> None:
    rules = BindRules(hooks=True)
    store.run(lambda unit: set_hook(unit, "default", rules, url="https://a.example/", enabled=enabled))
    bound = found(store, 5).bound
    assert bound is not None
    assert bound.hook == hook


def test_list_entries_and_filings_count_from_when_they_were_made(store: Acting) -> None:
    store.now_ms = NOW_MS + 10_000
    store.run(lambda unit: set_entry(unit, "binding", "000000000001", A, "black"))
    store.run(lambda unit: add_filing(unit, "default", FilingWords(A, "CT-1")))
    store.now_ms = NOW_MS + 20_000
    store.run(lambda unit: remove_filing(unit, "default", A))
    entries = [getattr(found(store, after_s).bound, "entry", "") for after_s in (5, 15)]
    filed = [bool(getattr(found(store, after_s, filing=True).bound, "filed_until", "")) for after_s in (5, 15, 25)]
    assert (entries, filed) == ([None, "black"], [False, True, False])


def test_a_call_back_reaches_the_last_caller_of_that_time(store: Acting) -> None:
    number = X[:-1] + "2"
    put(store.path, store.sealer, binding("000000000002", mode="AXN", x=number, b=None))
    shelf = Shelf(store.path, store.sealer)
    for n, caller in ((10, B), (15, FOREIGN), (30, C)):  # the relay notes none that may be no party
        shelf.add(
            call(n, number_dialled=number, caller=caller, callee=A, binding_id="000000000002", direction="b_to_a")
        )
    last = LastCaller("000000000002", number, C, NOW_MS + 30_000)
    shelf.connection.execute("INSERT INTO last_caller VALUES (?, ?, ?, ?, ?)", caller_row(store.sealer, last))
    shelf.connection.close()
    reached = [getattr(found(store, after_s, number).bound, "last_caller", "") for after_s in (5, 20, 40)]
    assert reached == [None, B, C]
    assert found(store, 20, number, C).bound is not None and not found(store, 20, number, C).is_own


def test_anyone_hears_that_a_binding_has_expired(store: Acting) -> None:
    """Also before its numbers are released, which takes a moment, and afterwards: as in the look-up of a call."""
    number = X[:-1] + "2"
    put(store.path, store.sealer, binding("000000000002", mode="AXN", x=number, b=None, expires_at=NOW_MS + 10_000))
    store.now_ms = NOW_MS + 20_000
    store.run(lambda unit: release_due(unit, RULES))
    for caller, is_own in ((A, True), (C, False)):
        for after_s in (15, 25):
            expired = found(store, after_s, number, caller)
            assert (expired.is_own, getattr(expired.bound, "in_force", None)) == (is_own, 0)


def test_anyone_hears_that_the_last_axn_has_expired_though_others_are_bound_there_since(store: Acting) -> None:
    number = X[:-1] + "2"
    put(store.path, store.sealer, binding("000000000002", mode="AXN", x=number, b=None, expires_at=NOW_MS + 10_000))
    store.now_ms = NOW_MS + 20_000
    store.run(lambda unit: release_due(unit, RULES))
    later = store.now_ms + 2 * RULES.cool_down_ms
    put(store.path, store.sealer, binding("000000000003", x=number, created_at=later), now_ms=later)
    after_s = (later - NOW_MS) // 1000 + 1
    stranger, party = found(store, after_s, number, C), found(store, after_s, number, A)
    assert (getattr(stranger.bound, "binding_id", None), getattr(stranger.bound, "in_force", None)) == (
        "000000000002",
        0,
    )
    assert getattr(party.bound, "binding_id", None) == "000000000003"


def test_a_call_whose_unknown_caller_a_hook_bound_finds_that_binding(store: Acting) -> None:
    """Not so an earlier call of that caller, which was refused."""
    later, number = NOW_MS + 60_800, X[:-1] + "4"
    hooked = binding("000000000004", a=C, b=A, x=number, created_at=later, created_by="hook")
    put(store.path, store.sealer, hooked, binding("000000000005", a=FOREIGN, b=B, x=number, created_at=later))
    shelf = Shelf(store.path, store.sealer)
    of_hook = {"caller": C, "number_dialled": number, "binding_id": "000000000004"}
    shelf.add(call(1, **of_hook, received_at=NOW_MS + 60_000))
    bound = found(store, 60, number, C).bound
    assert bound is not None and (bound.binding_id, bound.in_force) == ("000000000004", 1)
    assert found(store, 55, number, C).bound is None
    assert found(store, 60, number, FOREIGN).bound is None


def test_an_anonymous_caller_and_an_unknown_number_find_nothing(store: Acting) -> None:
    assert found(store, 5, caller="").bound is None
    unknown = found(store, 5, "700999999990001")
    assert (unknown.locked, unknown.bound) == (None, None)


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_a_party_is_not_searched_among_all_bindings_of_a_number(store: Acting) -> None:
    """A number may have had thousands, and a replay looks up a million calls."""
    asked = {"party": store.sealer.lookup_hash(A), "number": X, "at": NOW_MS}
    plan = [row[3] for row in store.reader.execute(f"EXPLAIN QUERY PLAN {OF_CALLER}", asked).fetchall()]
    assert "SEARCH binding USING PRIMARY KEY (id=?)" in plan
    assert not [step for step in plan if "binding_x" in step or "binding_y" in step]
