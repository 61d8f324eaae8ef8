"""Rates per second, answers to unknown sources, fair limits per peer, and fair queues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.defence.limits import (
    SHARE,
    STRANGERS,
    STRAYS_PER_S,
    TOLD_EVERY_S,
    FairQueue,
    Rates,
    SharedLimits,
    Strangers,
    Tally,
    is_within_share,
)
from relay.model.actions import Note
from relay.model.settings import Quota
from relay.peers.limits import PeerQuotas
from relay.policy.call_policy import RefusedAttempts
from relay.policy.rules import RefusalCaps
from tests.call.support import Parts

MOST = 20_000


def test_rate_holds_in_any_second() -> None:
    rates = Rates()
    granted = [rates.admit("firm", 2, 10 + tenth / 10) for tenth in range(21)]
    assert [tenth for tenth, admitted in enumerate(granted) if admitted] == [0, 1, 10, 11, 20]


def test_limits_are_per_name_and_none_is_unlimited() -> None:
    rates = Rates()
    assert rates.admit("firm", 1, 1.0)
    assert not rates.admit("firm", 1, 1.0)
    assert rates.admit("other", 1, 1.0)
    assert not rates.admit("shut", 0, 1.0)
    assert all(rates.admit("free", None, 1.0) for _ in range(100))


def test_raised_limit_applies_at_once() -> None:
    rates = Rates()
    assert rates.admit("firm", 1, 1.0)
    assert rates.admit("firm", 2, 1.0)


def test_clock_set_back_does_not_block() -> None:
    rates = Rates()
    assert rates.admit("firm", 1, 1_000.0)
    assert rates.admit("firm", 1, 500.0)


@given(st.lists(st.floats(0, 5), max_size=30), st.integers(0, 3))
def test_room_of_a_rate_is_told_as_the_next_event_finds_it(times: list[float], most: int) -> None:
    rates = Rates()
    for at_s in times:  # also when the clock is set back
        told = [rates.has_room("firm", most, at_s) for _ in range(2)]
        used = rates.used("firm", at_s)
        admitted = rates.admit("firm", most, at_s)
        assert told == 2 * [admitted]
        assert rates.used("firm", at_s) == used + admitted


# -- Answers to unknown sources


def admitted(strangers: Strangers, now: float, *sources: str) -> int:
    return sum(strangers.admit(source, now) for source in sources)


def test_one_source_gets_a_part_of_each_second() -> None:
    strangers = Strangers(2 * SHARE)
    assert admitted(strangers, 1000.0, *("a",) * 5) == 2
    assert admitted(strangers, 1000.9, *("a",) * 5) == 0
    assert admitted(strangers, 1001.0, *("a",) * 5) == 2


def test_flood_of_one_source_leaves_answers_for_others() -> None:
    strangers = Strangers(2 * SHARE)
    assert admitted(strangers, 1000.0, *("flood",) * 100) == 2
    assert admitted(strangers, 1000.0, "other", "other") == 2


def test_one_source_gets_at_least_one_answer() -> None:
    assert admitted(Strangers(1), 1000.0, "a", "a") == 1


def test_no_answers_when_the_limit_is_0() -> None:
    assert not Strangers(0).admit("a", 1000.0)


@given(st.integers(0, 20), st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 0.5)), max_size=100))
def test_rate_is_never_exceeded(per_s: int, asked: list[tuple[str, float]]) -> None:
    strangers = Strangers(per_s)
    now = 1000.0
    times: list[float] = []
    for source, pause in asked:
        now += pause
        if strangers.admit(source, now):
            times.append(now)
        assert len(strangers._answered) <= per_s
    assert all(sum(0 <= at - start < 1 for at in times) <= per_s for start in times)


def test_part_is_per_source_and_rate_is_total() -> None:
    strangers = Strangers(8)
    answered = Counter(source for source in "abcdef" * 10 if strangers.admit(source, 1000.0))
    assert sum(answered.values()) == 8
    assert max(answered.values()) == 2


# -- Shares


def fill(have: Counter[str], *names: str) -> None:
    """Let each peer take units in turn until refused."""
    while True:
        got = [name for name in names if is_within_share(have[name] + 1, have.total() + 1, MOST)]
        if not got:
            return
        have.update(got)


def test_single_peer_gets_seven_eighths() -> None:
    have: Counter[str] = Counter()
    fill(have, "a")
    assert have["a"] == pytest.approx(MOST * 7 / 8, rel=0.001)
    fill(have, "b")
    assert have["b"] > MOST / 10


def test_two_saturated_peers_get_equal_parts() -> None:
    have: Counter[str] = Counter()
    fill(have, "a", "b")
    assert have["a"] == pytest.approx(have["b"], rel=0.01)
    assert have.total() == pytest.approx(MOST * 14 / 15, rel=0.001)


def test_released_capacity_goes_to_the_peer_with_less() -> None:
    have: Counter[str] = Counter()
    fill(have, "a")
    fill(have, "b")
    for _ in range(MOST):  # calls of "a" end, and both want more
        have["a"] -= 1
        fill(have, "a", "b")
    assert have["b"] == pytest.approx(have["a"], rel=0.01)


@pytest.mark.parametrize("most", range(1, 8))
def test_small_bound_may_be_used_by_one_peer(most: int) -> None:
    assert all(is_within_share(used, used, most) for used in range(1, most + 1) if used <= 7)
    assert not is_within_share(most + 1, most + 1, most)


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(1, 1000))
def test_bound_is_never_exceeded_and_a_peers_first_unit_is_admitted(used: int, others: int, most: int) -> None:
    if used + others > most:
        assert not is_within_share(used, used + others, most)
    elif used == 1:
        assert is_within_share(used, used + others, most)


def notes(shared: Parts) -> list[Note]:
    return [action for action in shared.outbox.take_actions() if isinstance(action, Note)]


def test_episode_is_logged_at_its_beginning_and_end() -> None:
    shared = Parts()
    for number in range(100):
        shared.shares.exceed("pbx", "calls" if number % 2 else "work", 1.0 + number / 10)
        shared.timers.run(1.0 + number / 10)
    assert notes(shared) == [Note("peer.over_share", {"peer": "pbx", "of": "work"})]
    shared.timers.run(11.0 + 2 * TOLD_EVERY_S)
    told = {"peer": "pbx", "lasted_s": 9.9, "beyond": {"calls": 50, "work": 50}}
    assert notes(shared) == [Note("peer.within_share", told)]
    assert shared.shares.counts == {"pbx": 100}
    assert len(shared.timers) == 0
    shared.shares.exceed("pbx", "calls", 50.0)
    assert [note.event for note in notes(shared)] == ["peer.over_share"]


def test_unknown_sources_are_logged_as_one() -> None:
    shared = Parts()
    shared.shares.exceed("", "work", 1.0)
    assert notes(shared) == [Note("peer.over_share", {"peer": STRANGERS, "of": "work"})]
    assert shared.shares.counts == {STRANGERS: 1}


def test_stray_messages_are_limited_per_second() -> None:
    shared = Parts()
    for name in ("pbx", "carrier"):
        assert all(shared.shares.count_stray(name, 1.5) for _ in range(STRAYS_PER_S))
    assert not shared.shares.count_stray("pbx", 1.9)
    assert shared.shares.count_stray("pbx", 2.0)
    assert shared.shares.counts == {"pbx": 1}
    assert notes(shared) == [Note("peer.over_share", {"peer": "pbx", "of": "messages"})]


def test_full_bound_is_not_attributed_to_a_peer() -> None:
    shared = Parts()
    assert not shared.shares.admits("pbx", "calls", 1, 11, 10, 1.0)
    assert shared.shares.counts == {}


# -- Limits over several nodes that exchange their counts once a second


class Node:
    def __init__(self) -> None:
        self.now = 0.0
        self.calls, self.rates, self.refused = Tally(), Rates(), RefusedAttempts()
        self.limits = SharedLimits(
            {"calls": self.calls}, {"rate": (self.rates, lambda: self.now)}, self.refused, lambda: self.now
        )

    def offered(self, rate: int, most: int) -> int:
        """Number of events granted out of `rate` offered over the next second."""
        begun, granted = self.now, 0
        for place in range(rate):
            self.now = begun + (place + 0.5) / rate
            granted += self.rates.admit("firm", most, self.now)
        self.now = begun + 1
        return granted


def exchange(nodes: Sequence[Node]) -> None:
    """All nodes exchange their counts."""
    told = {id(node): node.limits.own() for node in nodes}
    for node in nodes:
        node.limits.hear([told[id(other)] for other in nodes if other is not node])


def test_calls_of_all_nodes_count_together_after_an_exchange() -> None:
    first, second, third = nodes = [Node() for _ in range(3)]
    for node in nodes:
        node.calls.begin("business firm")
    assert [node.calls.everywhere("business firm") for node in nodes] == [1, 1, 1]
    exchange(nodes)
    assert [node.calls.everywhere("business firm") for node in nodes] == [3, 3, 3]
    assert [node.calls.count("business firm") for node in nodes] == [1, 1, 1]
    first.calls.end("business firm")
    assert first.calls.everywhere("business firm") == 2
    exchange(nodes)
    assert [node.calls.everywhere("business firm") for node in nodes] == [2, 2, 2]
    second.limits.hear([third.limits.own()])  # the first is gone, and its counts with it
    assert second.calls.everywhere("business firm") == 2
    second.limits.hear([])
    assert second.calls.everywhere("business firm") == 1


@pytest.mark.parametrize(
    ("most", "offered"), [(20, (15, 15)), (20, (60, 60)), (20, (40, 4)), (21, (60, 60, 60)), (20, (0, 50)), (1, (5,))]
)
def test_rate_is_shared_by_all_nodes_within_two_seconds(most: int, offered: Sequence[int]) -> None:
    nodes = [Node() for _ in offered]
    granted = []
    for _ in range(12):
        granted.append(sum(node.offered(rate, most) for node, rate in zip(nodes, offered, strict=True)))
        exchange(nodes)
    possible = min(most, sum(offered))
    assert all(0.9 * possible <= count <= 1.1 * possible for count in granted[2:]), granted


def test_each_node_gets_at_least_its_equal_part() -> None:
    """Whatever the load of one node, the other gets its part at once."""
    busy, quiet = nodes = [Node(), Node()]
    for _ in range(3):
        busy.offered(100, 20)
        exchange(nodes)
    assert quiet.offered(100, 20) == 10


def test_names_without_events_in_the_last_second_are_not_published() -> None:
    node = Node()
    node.offered(3, 20)
    assert node.limits.own()["rate"] == {"firm": 3}
    node.now += 1
    assert node.limits.own()["rate"] == {}


def test_pause_at_one_node_applies_to_all_and_grows() -> None:
    first, second, _ = nodes = [Node() for _ in range(3)]

    def tries(node: Node, number: str, caller: str) -> None:
        node.refused.note("pbx 1", number, caller, RefusalCaps(of_number=2, of_caller=9), 3, node.now)

    def waits(number: str, caller: str = "other") -> list[float]:
        return [round(max(node.refused.pause_s("pbx 1", number, caller, node.now), 0.0)) for node in nodes]

    tries(first, "7001", "a")
    tries(second, "7001", "b")
    exchange(nodes)
    assert waits("7001") == [0, 0, 0]  # each has counted one attempt
    tries(first, "7001", "b")
    exchange(nodes)
    assert (waits("7001"), waits("7002")) == ([10, 10, 10], [0, 0, 0])
    for _ in range(11):
        for node in nodes:
            node.now += 1
        exchange(nodes)
    assert waits("7001") == [0, 0, 0]
    tries(second, "7001", "c")  # twice as long: it knows of the first pause
    exchange(nodes)
    assert waits("7001") == [20, 20, 20]
    tries(first, "7003", "a")
    exchange(nodes)
    assert waits("7002") == [10, 10, 10]  # all callers of the peer


def test_counts_contain_no_caller_numbers() -> None:
    node = Node()
    for number in "789":
        node.refused.note("pbx", number, "8613800000001", RefusalCaps(of_number=9, of_caller=1), 0, 0.0)
    assert node.refused.pause_s("pbx", "7", "8613800000001", 0.0) > 0
    assert "8613800000001" not in str(node.limits.own())


def test_max_calls_of_a_peer_counts_all_nodes() -> None:
    quotas = PeerQuotas()
    quotas.calls.elsewhere = {"carrier": 2}
    assert not quotas.admits_call("carrier", Quota(max_calls=2), 0.0)
    assert quotas.admits_call("carrier", Quota(max_calls=3), 0.0)
    quotas.calls.begin("carrier")
    assert not quotas.admits_call("carrier", Quota(max_calls=3), 0.0)


# -- fair queues


def test_names_are_served_round_robin_and_items_in_order() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(3):
        queue.put("a", number)
    queue.put("b", 10)
    queue.put("c", 20)
    assert [queue.take() for _ in range(5)] == [("a", 0), ("b", 10), ("c", 20), ("a", 1), ("a", 2)]
    assert not len(queue)


def test_a_returning_name_does_not_overtake_others() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(4):
        queue.put("a", number)
    queue.put("b", 10)
    assert [queue.take(), queue.take()] == [("a", 0), ("b", 10)]
    queue.put("b", 11)
    assert [queue.take(), queue.take(), queue.take()] == [("a", 1), ("b", 11), ("a", 2)]


def test_heads_are_the_oldest_items() -> None:
    queue: FairQueue[int] = FairQueue()
    assert queue.heads() == []
    for name, number in (("a", 1), ("b", 2), ("a", 3)):
        queue.put(name, number)
    assert queue.heads() == [("a", 1), ("b", 2)]


@given(st.lists(st.sampled_from("abc")), st.sampled_from("abcd"))
def test_the_number_of_items_before_a_new_one(names: list[str], name: str) -> None:
    queue: FairQueue[int] = FairQueue()
    for number, each in enumerate(names):
        queue.put(each, number)
    before = queue.before(name)
    queue.put(name, -1)
    turns = [queue.take() for _ in range(len(queue))]
    assert before >= turns.index((name, -1))
    assert before <= len(names)
