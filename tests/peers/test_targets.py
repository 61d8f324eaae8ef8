"""Health of targets, and their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.settings import Health, Target
from relay.peers.targets import REST_S, TargetState, order_targets, retry_after_s
from relay.sip.message import Flow
from tests.call.support import peer


def target(host: str = "192.0.2.22", *, priority: int = 0, weight: int = 1, **health: float) -> TargetState:
    target = Target(host, 5060, "udp", host, priority, weight)
    return TargetState(peer("carrier", health=Health(**health)), target, Flow(0, "udp", host, 5060))  # type: ignore[arg-type]


def counting() -> Callable[[], str]:
    """Draws that enumerate the range evenly."""
    number = 0

    def draw() -> str:
        nonlocal number
        number += 1
        return f"3fedcba9{number:08x}"

    return draw


def order(*places: TargetState) -> list[str]:
    return [found.configured.host for found in order_targets(places, counting())]


def test_target_is_down_after_down_after_failures_and_up_after_up_after_answers() -> None:
    it = target(ping_s=30, down_after=3, up_after=2)
    assert [it.failed(1.0) for _ in range(4)] == [False, False, True, False]
    assert (it.state(1e9), it.is_usable(1e9)) == ("down", False)
    assert [it.answered(), it.is_down, it.answered(), it.is_down] == [False, True, True, False]
    assert it.state(1.0) == "up"


def test_answer_resets_the_count_of_failures() -> None:
    it = target(ping_s=30, down_after=2)
    assert [it.failed(1.0), it.answered(), it.failed(1.0), it.state(1.0)] == [False, False, False, "up"]


def test_unpinged_target_is_set_aside_and_again_after_one_more_failure() -> None:
    it = target(down_after=2)
    assert [it.failed(1.0), it.failed(1.0)] == [False, True]
    assert it.state(1.0 + REST_S - 0.001) == "aside"
    assert it.is_usable(1.0 + REST_S)
    assert it.failed(40.0)
    assert it.state(40.0) == "aside"


def test_target_is_set_aside_for_retry_after_within_bounds() -> None:
    it = target()
    it.put_aside(20, 1.0)
    it.put_aside(5, 1.0)
    assert [it.is_usable(20.9), it.is_usable(21.0)] == [False, True]
    it.put_aside(1e9, 1.0)
    assert it.is_usable(3601.0)


def test_health_is_kept_under_a_new_configuration() -> None:
    old, new = target(ping_s=30, down_after=1, up_after=2), target(ping_s=30, down_after=1, up_after=2)
    old.failed(1.0)
    old.answered()
    new.take_over(old)
    assert [new.is_down, new.answered(), new.is_down] == [True, True, False]


def test_lower_priorities_come_first() -> None:
    assert order(target("a", priority=0), target("b", priority=1), target("c", priority=1, weight=0)) == ["a", "b", "c"]


def test_targets_are_drawn_by_weight() -> None:
    places = [target("heavy", weight=3), target("light", weight=1)]
    draw = counting()
    first = Counter(order_targets(places, draw)[0].configured.host for _ in range(1000))
    assert first == {"heavy": 750, "light": 250}


def test_weight_0_is_rarely_first() -> None:
    places = [target("some", weight=9), target("none", weight=0)]
    draw = counting()
    first = Counter(order_targets(places, draw)[0].configured.host for _ in range(1000))
    assert first == {"some": 900, "none": 100}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=8), st.integers(0, 2**32 - 1))
def test_each_target_is_tried_once(targets: list[tuple[int, int]], drawn: int) -> None:
    places = [target(str(index), priority=priority, weight=weight) for index, (priority, weight) in enumerate(targets)]
    places.sort(key=lambda each: each.configured.priority)
    found = order_targets(places, lambda: f"{drawn:08x}")
    assert sorted(each.configured.host for each in found) == sorted(each.configured.host for each in places)
    assert [each.configured.priority for each in found] == [each.configured.priority for each in places]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("120", 120), ("18000;duration=3600", 18000), ("5 (I'm busy)", 5), (None, 0), ("soon", 0), ("", 0), ("-1", 0)],
)
def test_retry_after_is_parsed(text: str | None, seconds: int) -> None:
    assert retry_after_s(text) == seconds


def test_name_is_transport_address_and_port() -> None:
    assert target().name == "udp:192.0.2.22:5060"
    assert TargetState(peer(), target("::1").configured, Flow(0, "tcp", "::1", 5061)).name == "tcp:[::1]:5061"
