"""Timer values and the heap of all timers."""

from __future__ import annotations

import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.sip.timers import (
    FAR_S,
    RESEND,
    TERMINATED,
    TIMEOUT,
    Table,
    TimerHeap,
    Timings,
    Transaction,
    TransactionContext,
    WallClock,
)
from relay.sip.transaction import INVITE_SERVER, NON_INVITE_SERVER, PROCEEDING, TRYING
from relay.sip.transaction_client import ACCEPTED, CALLING, INVITE_CLIENT, NON_INVITE_CLIENT
from relay.sip.transaction_client import PROCEEDING as PROCEEDING_CLIENT
from relay.sip.transaction_client import TRYING as TRYING_CLIENT
from tests.sip.virtual_time import World


class Bell:
    """An object with a re-armable timer, as a transaction has.

    (It does not subclass Timer: only compiled classes may subclass one of a compiled module.)
    """

    def __init__(self) -> None:
        self.rung: list[float] = []
        rung = self.rung
        table: Table = {("waiting", TIMEOUT): ("waiting", (lambda _, now, __: rung.append(now),))}
        self.timer = Transaction(TransactionContext(Timings(), TimerHeap(), lambda *_: None), table, "waiting", "", {})

    def fire(self, now: float) -> None:
        self.rung.append(now)


@pytest.fixture
def heap() -> TimerHeap:
    return TimerHeap()


def test_the_default_timings_are_those_of_rfc_3261_table_4() -> None:
    timings = Timings()
    assert (timings.t1, timings.t2, timings.t4) == (0.5, 4.0, 5.0)
    assert timings.transaction_s == 32.0


@pytest.mark.parametrize(("t1", "timer_d"), [(0.01, 32.0), (0.5, 32.0), (1.0, 64.0)])
def test_timer_d_is_at_least_32_seconds(t1: float, timer_d: float) -> None:
    assert Timings(t1=t1).timer_d == timer_d


def test_timers_fire_by_time_and_then_in_the_order_set(heap: TimerHeap) -> None:
    fired: list[str] = []
    for name, when in (("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0)):
        heap.set(when, lambda _, name=name: fired.append(name))  # type: ignore[misc]
    heap.run(3.0)
    assert fired == ["a", "b1", "b2", "c"]


def test_a_run_fires_no_more_timers_than_wanted_and_the_next_one_goes_on(heap: TimerHeap) -> None:
    fired: list[str] = []
    for name, when in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        heap.set(when, lambda _, name=name: fired.append(name))  # type: ignore[misc]
    heap.run(3.0, most=2)
    assert (fired, heap.next()) == (["a", "b"], 3.0)
    heap.run(3.0, most=2)
    assert (fired, heap.next()) == (["a", "b", "c"], None)


def test_a_timer_does_not_fire_before_it_is_due_nor_twice(heap: TimerHeap) -> None:
    fired: list[float] = []
    heap.set(1.0, fired.append)
    heap.run(0.999)
    assert fired == []
    heap.run(1.25)
    heap.run(2.0)
    assert fired == [1.25]  # the current time, not the due time


def test_next_is_the_earliest_armed_timer(heap: TimerHeap) -> None:
    assert heap.next() is None
    first = heap.set(1.0, lambda _: None)
    heap.set(2.0, lambda _: None)
    assert heap.next() == 1.0
    heap.cancel(first)
    heap.run(1.0)
    assert heap.next() == 2.0
    heap.run(2.0)
    assert heap.next() is None


def test_a_cancelled_timer_does_not_fire_and_is_not_counted(heap: TimerHeap) -> None:
    fired: list[float] = []
    timer = heap.set(1.0, fired.append)
    assert len(heap) == 1
    heap.cancel(timer)
    heap.cancel(timer)
    assert len(heap) == 0
    heap.run(5.0)
    assert fired == []
    assert len(heap) == 0


def test_cancelling_none_or_a_fired_timer_has_no_effect(heap: TimerHeap) -> None:
    fired = heap.set(1.0, lambda _: None)
    heap.set(2.0, lambda _: None)
    heap.run(1.0)
    heap.cancel(fired)
    heap.cancel(None)
    assert len(heap) == 1


def test_timer_can_cancel_another_due_at_the_same_time(heap: TimerHeap) -> None:
    fired: list[float] = []
    heap.set(1.0, lambda _: heap.cancel(other))
    other = heap.set(1.0, fired.append)
    heap.run(1.0)
    assert fired == []


def test_due_timer_set_by_a_timer_fires_in_the_same_run(heap: TimerHeap) -> None:
    fired: list[float] = []

    def set_another(_: float) -> None:
        heap.set(1.5, fired.append)

    heap.set(1.0, set_another)
    heap.run(2.0)
    assert fired == [2.0]


def test_cancelled_timer_drops_its_callback(heap: TimerHeap) -> None:
    call = Bell()  # stands for a call that ends hours before its maximum duration
    seen = weakref.ref(call)
    timer = heap.set(14_400.0, call.fire)
    heap.cancel(timer)
    del call
    assert seen() is None


def test_a_timer_armed_again_fires_at_the_new_time_only(heap: TimerHeap) -> None:
    bell = Bell()
    heap.arm(bell.timer, 1.0)
    heap.arm(bell.timer, 2.0)
    assert len(heap) == 1
    heap.run(1.0)
    assert bell.rung == []
    assert heap.next() == 2.0
    heap.run(2.0)
    assert bell.rung == [2.0]
    heap.arm(bell.timer, 3.0)
    heap.run(3.0)
    assert bell.rung == [2.0, 3.0]
    assert len(heap) == 0


def test_thousands_of_cancelled_timers_do_not_affect_the_others(heap: TimerHeap) -> None:
    fired: list[int] = []
    timers = [heap.set(float(when), lambda _, when=when: fired.append(when)) for when in range(5000)]  # type: ignore[misc]
    bell = Bell()
    heap.arm(bell.timer, 10.0)
    heap.arm(bell.timer, 20.0)
    for timer in timers[500:]:
        heap.cancel(timer)
    assert len(heap) == 501
    heap.run(1e9)
    assert fired == list(range(500))
    assert bell.rung == [1e9]
    assert len(heap) == 0


def test_cancelled_timers_do_not_pile_up(heap: TimerHeap) -> None:
    """Each call sets timers hours ahead and cancels them: memory must not grow with past calls."""
    heap.run(1000.0)
    for _ in range(100):
        heap.cancel(heap.set(1000.0 + 14_400.0, lambda _: None))
        heap.cancel(heap.set(1000.0 + FAR_S, lambda _: None))
    assert heap.next() is None
    assert len(heap) == len(heap._heap) == len(heap._spans) == len(heap._far) == 0


def test_cancelled_timer_of_a_later_span_is_removed(heap: TimerHeap) -> None:
    """Each request sets a retransmission timer: under load these were most of the heap."""
    heap.run(1000.0)
    for step in range(100):
        heap.cancel(heap.set(1000.5 + step / 100, lambda _: None))
    assert heap.next() is None
    assert len(heap) == len(heap._heap) == len(heap._spans) == 0


def test_timers_armed_before_the_first_run_are_moved_to_far(heap: TimerHeap) -> None:
    """They are armed before the first run: kept by span, `next` would iterate over all of them."""
    for call in range(100):
        heap.set(1000.0 + FAR_S + call, lambda _: None)
    heap.run(1000.0)
    assert (len(heap), len(heap._far)) == (100, 100)


def test_run_before_the_timers_of_a_span_are_due_fires_none(heap: TimerHeap) -> None:
    fired: list[float] = []
    heap.run(1000.0)
    heap.set(1000.99, fired.append)
    heap.set(1000.98, fired.append)
    looks = []
    while (when := heap.next()) is not None:
        heap.run(when)
        looks.append(when)
    assert looks == [1000.9375, 1000.98, 1000.99]
    assert fired == looks[1:]


def test_far_timers_fire_in_time_among_the_others(heap: TimerHeap) -> None:
    now = 1000.0
    fired: list[tuple[float, float]] = []
    heap.run(now)
    for ahead_s in (14_400.0, FAR_S + 1, 2 * FAR_S, FAR_S - 1, FAR_S, 1.0, 14_399.0):
        when = now + ahead_s
        heap.set(when, lambda now, when=when: fired.append((now, when)))  # type: ignore[misc]
    while (when := heap.next()) is not None:
        assert when > now
        now = when
        heap.run(now)
    assert [when - 1000.0 for _, when in fired] == [1.0, FAR_S - 1, FAR_S, FAR_S + 1, 2 * FAR_S, 14_399.0, 14_400.0]
    assert all(at == when for at, when in fired)


def test_all_far_timers_fire_in_order_when_the_clock_leaps(heap: TimerHeap) -> None:
    fired: list[int] = []
    heap.run(0.0)
    for when in (5000, 300, 70, 4000, 10):
        heap.set(float(when), lambda _, when=when: fired.append(when))  # type: ignore[misc]
    heap.run(4500.0)
    assert fired == [10, 70, 300, 4000]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.integers(0, 250)),
            st.tuples(st.just("arm"), st.integers(0, 250)),
            st.tuples(st.just("cancel"), st.integers(0, 20)),
            st.tuples(st.just("run"), st.integers(0, 250)),
        ),
        max_size=60,
    )
)
def test_heap_agrees_with_a_plain_list(script: list[tuple[str, int]]) -> None:
    heap = TimerHeap()
    bells: list[Bell] = []
    plain: dict[int, float] = {}  # bell -> when
    expected: dict[int, int] = {}  # bell -> number of rings
    for action, number in script:
        if action == "set" or not bells:
            plain[len(bells)] = float(number)
            bells.append(Bell())
            heap.arm(bells[-1].timer, float(number))
        elif action == "arm":
            heap.arm(bells[number % len(bells)].timer, float(number))
            plain[number % len(bells)] = float(number)
        elif action == "cancel":
            heap.cancel(bells[number % len(bells)].timer)
            plain.pop(number % len(bells), None)
        else:
            heap.run(float(number))
            for index in [index for index, when in plain.items() if when <= number]:
                expected[index] = expected.get(index, 0) + 1
                del plain[index]
        assert len(heap) == len(plain)
        earliest, after = min(plain.values(), default=None), heap.next()
        assert (after is None) == (earliest is None)
        assert after is None or earliest is None or after <= earliest
    assert {index: len(bell.rung) for index, bell in enumerate(bells) if bell.rung} == expected


def test_wall_clock() -> None:
    clock = WallClock(0.0)
    clock.offset_s = 1_800_000_000.0
    assert clock.ms(1.5) == 1_800_000_001_500


# -- Properties of the state tables common to all transactions

START = {
    "INVITE client": (INVITE_CLIENT, CALLING),
    "non-INVITE client": (NON_INVITE_CLIENT, TRYING_CLIENT),
    "INVITE server": (INVITE_SERVER, PROCEEDING),
    "non-INVITE server": (NON_INVITE_SERVER, TRYING),
}
# States that only the user can leave: an unanswered server transaction, a ringing INVITE.
UNTIMED = {("INVITE server", PROCEEDING), ("non-INVITE server", TRYING), ("non-INVITE server", PROCEEDING)}

machines = pytest.mark.parametrize(("name", "table", "start"), [(name, *rest) for name, rest in START.items()])


def states(table: Table) -> set[str]:
    return {state for state, _ in table} | {state for state, _ in table.values()}


@machines
def test_every_state_is_reachable_and_leads_to_terminated(name: str, table: Table, start: str) -> None:
    for origin in states(table) - {TERMINATED}:
        reached = {origin}
        while more := {to for (state, _), (to, _) in table.items() if state in reached} - reached:
            reached |= more
        assert TERMINATED in reached, f"{name}: no way out of {origin}"
        assert origin != start or reached == states(table)


@machines
def test_terminated_has_no_transitions(name: str, table: Table, start: str) -> None:
    assert TERMINATED not in {state for state, _ in table}


@machines
def test_every_state_that_waits_for_the_peer_has_a_timeout(name: str, table: Table, start: str) -> None:
    for state in states(table) - {TERMINATED}:
        if (name, state) not in UNTIMED:
            assert table[state, TIMEOUT][0] == TERMINATED, f"{name}: {state} may stay for ever"


@machines
def test_terminated_transaction_leaves_the_layer_before_its_callback(name: str, table: Table, start: str) -> None:
    """Before the callback: the user may send again at once."""
    for (state, event), (to, effects) in table.items():
        if to == TERMINATED:
            assert effects[0] is Transaction._forget, f"{name}: {state}, {event}"


@machines
def test_retransmission_does_not_change_the_state(name: str, table: Table, start: str) -> None:
    for (state, event), (to, _) in table.items():
        assert event != RESEND or to == state, name


def test_input_without_a_transition_is_ignored() -> None:
    world = World()
    invite = world.request("INVITE")
    world.answer(200)
    before = invite.state, len(world.sent), list(world.heard)
    world.answer(486)
    world.layer.transport_failed(invite.flow, 0.0)
    assert (invite.state, len(world.sent), world.heard) == before
    assert invite.state == ACCEPTED


def test_one_heap_entry_serves_both_timers() -> None:
    world = World()
    world.request("INVITE")
    assert len(world.timers) == 1
    world.advance_to(20.0)
    assert len(world.timers) == 1


def test_late_timer_does_not_retransmit_after_the_deadline() -> None:
    """The process was stopped for a minute: timers A and B are both due."""
    world = World()
    world.request("INVITE")
    world.now = 60.0
    world.timers.run(60.0)
    assert world.heard == [(60.0, "timeout")]
    assert world.times_of(b"INVITE") == [0.0]
    assert world.is_empty


def test_a_ringing_invite_holds_no_timer() -> None:
    world = World()
    invite = world.request("INVITE")
    world.answer(180)
    assert invite.state == PROCEEDING_CLIENT
    assert len(world.timers) == 0
