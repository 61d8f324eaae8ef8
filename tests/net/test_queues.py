from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.net.queues import FairQueue


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
