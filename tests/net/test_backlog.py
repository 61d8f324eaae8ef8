from __future__ import annotations

import pytest

from relay.call.shedding import Rank
from relay.net.backlog import (
    FASTEST_S,
    INSIDE_IN_A_ROW,
    LASTS_S,
    MARGIN,
    MOST_BYTES,
    MOST_OF_STRANGERS,
    OVERHEAD_BYTES,
    Backlog,
)
from relay.sip.flow import Flow

FLOW = Flow(0, "udp", "127.0.0.11", 5060)


def test_messages_of_a_rank_are_taken_in_their_order_and_strangers_have_turns_as_one_peer() -> None:
    backlog = Backlog()
    ranks = (Rank.STRANGER, Rank.NEW, Rank.INSIDE, Rank.NEW, Rank.INSIDE)
    for number, rank in enumerate(ranks):
        backlog.keep(b"%d" % number, FLOW, rank, "" if rank is Rank.STRANGER else "a", float(number))
    assert len(backlog) == 5
    assert [backlog.take_inside() for _ in range(3)] == [(b"2", FLOW, 2.0), (b"4", FLOW, 4.0), None]
    assert [backlog.take_new() for _ in range(4)] == [(b"0", FLOW, 0.0), (b"1", FLOW, 1.0), (b"3", FLOW, 3.0), None]
    assert not len(backlog)


@pytest.mark.parametrize("rank", [Rank.INSIDE, Rank.NEW])
def test_whoever_floods_waits_for_itself(rank: Rank) -> None:
    backlog = Backlog()
    for _ in range(1000):
        backlog.keep(b"flood", FLOW, rank, "a", 1.0)
    backlog.keep(b"good", FLOW, rank, "b", 2.0)
    take = backlog.take_inside if rank is Rank.INSIDE else backlog.take_new
    assert [waiting[0] for _ in range(2) if (waiting := take())] == [b"flood", b"good"]


def test_a_flood_of_messages_of_calls_leaves_new_calls_their_turns() -> None:
    backlog = Backlog()
    for _ in range(1000):
        backlog.keep(b"flood", FLOW, Rank.INSIDE, "a", 1.0)
    backlog.keep(b"good", FLOW, Rank.NEW, "b", 2.0)
    for _ in range(INSIDE_IN_A_ROW):
        assert backlog.take_inside()
    assert backlog.take_inside() is None
    assert backlog.take_new() == (b"good", FLOW, 2.0)
    assert backlog.take_inside()
    assert [backlog.take_new(), backlog.take_inside()] != [None, None]  # where none waits they go on


def test_it_says_how_long_a_call_waits_by_its_own_peers_queue() -> None:
    backlog = Backlog()
    for _ in range(1000):
        backlog.keep(b"flood", FLOW, Rank.NEW, "a", 1.0)
    assert backlog.wait_s("a", lasts=False) == 1000 * FASTEST_S
    assert backlog.wait_s("b", lasts=False) == 1 * FASTEST_S
    backlog.keep(b"good", FLOW, Rank.NEW, "b", 1.0)
    assert backlog.wait_s("b", lasts=False) == (1 + 4) * FASTEST_S


def test_new_calls_that_come_seldom_are_not_taken_for_slow_ones() -> None:
    backlog = Backlog()
    for number in range(100):
        now = 1.0 + number / 20
        backlog.keep(b"flood", FLOW, Rank.INSIDE, "a", now)
        backlog.keep(b"good", FLOW, Rank.NEW, "b", now)
        backlog.take_new()
        backlog.served(now + 0.001)
    assert backlog.lasts(6.0)
    assert backlog.wait_s("b", lasts=True) == 0.0
    backlog.keep(b"good", FLOW, Rank.NEW, "b", 6.0)
    assert backlog.wait_s("b", lasts=True) < 0.01


def test_it_says_how_long_the_oldest_has_waited_but_for_strangers() -> None:
    backlog = Backlog()
    assert backlog.waited_s(10.0) == 0.0
    backlog.keep(b"x", FLOW, Rank.STRANGER, "", 1.0)
    assert backlog.waited_s(10.0) == 0.0
    backlog.keep(b"x", FLOW, Rank.NEW, "a", 9.0)
    backlog.keep(b"x", FLOW, Rank.INSIDE, "a", 8.0)
    assert backlog.waited_s(10.0) == 2.0


def test_it_lasts_when_it_has_not_been_empty_for_a_while() -> None:
    backlog = Backlog()
    backlog.keep(b"x", FLOW, Rank.NEW, "a", 1.0)
    backlog.keep(b"x", FLOW, Rank.INSIDE, "a", 1.5)
    assert not backlog.lasts(1.0 + LASTS_S)
    assert backlog.lasts(1.1 + LASTS_S)
    backlog.take_inside()
    backlog.take_new()
    assert not backlog.lasts(1.1 + LASTS_S)
    backlog.keep(b"x", FLOW, Rank.NEW, "a", 2.0)
    assert not backlog.lasts(1.1 + LASTS_S)


def test_of_one_name_it_keeps_a_share_of_the_bytes_until_some_are_taken() -> None:
    backlog = Backlog()
    piece = bytes(MOST_BYTES // 100)
    while backlog.has_room("a", piece):
        backlog.keep(piece, FLOW, Rank.INSIDE, "a", 1.0)
    assert 85 <= len(backlog) <= 88
    assert backlog.has_room("b", piece)
    backlog.take_inside()
    assert backlog.has_room("a", piece)


def test_small_messages_take_room_too() -> None:
    backlog = Backlog()
    while backlog.has_room("a", b""):
        backlog.keep(b"", FLOW, Rank.INSIDE, "a", 1.0)
    assert len(backlog) <= MOST_BYTES / OVERHEAD_BYTES


def test_strangers_have_so_many_places_only() -> None:
    backlog = Backlog()
    for _ in range(MOST_OF_STRANGERS + 10):
        backlog.keep(b"x", FLOW, Rank.STRANGER, "", 1.0)
    assert len(backlog) == MOST_OF_STRANGERS


def test_it_says_how_long_another_new_call_will_wait_at_least() -> None:
    backlog = Backlog()
    backlog.keep(b"x", FLOW, Rank.INSIDE, "a", 1.0)
    assert backlog.wait_s("a", lasts=backlog.lasts(1.0)) == 0.0
    for _ in range(400):
        backlog.keep(b"x", FLOW, Rank.NEW, "a", 1.0)
    assert backlog.wait_s("a", lasts=backlog.lasts(1.0)) == 400 * FASTEST_S


def test_after_a_burst_it_goes_by_how_fast_new_calls_were_served() -> None:
    backlog = Backlog()
    for _ in range(500):
        backlog.keep(b"x", FLOW, Rank.NEW, "a", 1.0)
    for number in range(1, 301):
        backlog.take_new()
        backlog.served(1.0 + number * 0.004)
    assert not backlog.lasts(1.0 + LASTS_S)
    assert backlog.wait_s("a", lasts=backlog.lasts(1.0 + LASTS_S)) == 200 * FASTEST_S
    assert backlog.wait_s("a", lasts=backlog.lasts(1.1 + LASTS_S)) == pytest.approx(200 * 0.004 * MARGIN)
    while backlog.take_new():
        pass
    backlog.keep(b"x", FLOW, Rank.NEW, "a", 3.0)  # another burst
    assert backlog.wait_s("a", lasts=backlog.lasts(3.0)) == FASTEST_S
    assert backlog.wait_s("a", lasts=backlog.lasts(3.1 + LASTS_S)) == FASTEST_S * MARGIN  # none was served yet
