"""Limits over several nodes that exchange their counts once a second."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from relay.defence.limits import Rates, Tally
from relay.defence.shared_limits import SharedLimits
from relay.model.settings import Quota
from relay.peers.limits import Quotas
from relay.policy.call_policy import RefusedAttempts
from relay.policy.rules import RefusalCaps


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
    quotas = Quotas()
    quotas.calls.elsewhere = {"carrier": 2}
    assert not quotas.admits_call("carrier", Quota(max_calls=2), 0.0)
    assert quotas.admits_call("carrier", Quota(max_calls=3), 0.0)
    quotas.calls.begin("carrier")
    assert not quotas.admits_call("carrier", Quota(max_calls=3), 0.0)
