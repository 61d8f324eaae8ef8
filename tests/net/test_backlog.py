from __future__ import annotations

import pytest

from relay.defence.shedding import Rank
from relay.net.queues import (
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


def test_messages_of_a_rank_keep_their_order_and_unknown_sources_count_as_one_peer() -> None:
    backlog = Backlog()
    ranks = (Rank.STRANGER, Rank.NEW, Rank.INSIDE, Rank.NEW, Rank.INSIDE)
    for number, rank in enumerate(ranks):
        backlog.keep(b"%d" % number, FLOW, rank, "" if rank is Rank.STRANGER else "a", float(number))
    assert len(backlog) == 5
    assert [backlog.take_inside() for _ in range(3)] == [(b"2", FLOW, 2.0), (b"4", FLOW, 4.0), None]
    assert [backlog.take_new() for _ in range(4)] == [(b"0", FLOW, 0.0), (b"1", FLOW, 1.0), (b"3", FLOW, 3.0), None]
    assert not len(backlog)


@pytest.mark.parametrize("rank", [Rank.INSIDE, Rank.NEW])
def test_a_flooding_peer_delays_only_itself(rank: Rank) -> None:
    backlog = Backlog()
    for _ in range(1000):
        backlog.keep(b"flood", FLOW, rank, "a", 1.0)
    backlog.keep(b"good", FLOW, rank, "b", 2.0)
    take = backlog.take_inside if rank is Rank.INSIDE else backlog.take_new
    assert [waiting[0] for _ in range(2) if (waiting := take())] == [b"flood", b"good"]


def test_new_calls_get_turns_during_a_flood_of_in_call_messages() -> None:
    backlog = Backlog()
    for _ in range(1000):
        backlog.keep(b"flood", FLOW, Rank.INSIDE, "a", 1.0)
    backlog.keep(b"good", FLOW, Rank.NEW, "b", 2.0)
    for _ in range(INSIDE_IN_A_ROW):
        assert backlog.take_inside()
    assert backlog.take_inside() is None
    assert backlog.take_new() == (b"good", FLOW, 2.0)
    assert backlog.take_inside()
    assert [backlog.take_new(), backlog.take_inside()] != [None, None]  # without new calls, in-call messages go on


def test_the_wait_of_a_call_depends_on_its_peer_s_queue() -> None:
    backlog = Backlog()
    for _ in range(1000):
        backlog.keep(b"flood", FLOW, Rank.NEW, "a", 1.0)
    assert backlog.wait_s("a", lasts=False) == 1000 * FASTEST_S
    assert backlog.wait_s("b", lasts=False) == 1 * FASTEST_S
    backlog.keep(b"good", FLOW, Rank.NEW, "b", 1.0)
    assert backlog.wait_s("b", lasts=False) == (1 + 4) * FASTEST_S


def test_rare_new_calls_do_not_lower_the_service_rate() -> None:
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


def test_the_longest_wait_ignores_unknown_sources() -> None:
    backlog = Backlog()
    assert backlog.waited_s(10.0) == 0.0
    backlog.keep(b"x", FLOW, Rank.STRANGER, "", 1.0)
    assert backlog.waited_s(10.0) == 0.0
    backlog.keep(b"x", FLOW, Rank.NEW, "a", 9.0)
    backlog.keep(b"x", FLOW, Rank.INSIDE, "a", 8.0)
    assert backlog.waited_s(10.0) == 2.0


def test_a_backlog_lasts_if_it_has_not_been_empty_for_a_while() -> None:
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


def test_a_peer_can_queue_its_fair_share_of_the_bytes() -> None:
    backlog = Backlog()
    piece = bytes(MOST_BYTES // 100)
    while backlog.has_room("a", piece):
        backlog.keep(piece, FLOW, Rank.INSIDE, "a", 1.0)
    assert 85 <= len(backlog) <= 88
    assert backlog.has_room("b", piece)
    backlog.take_inside()
    assert backlog.has_room("a", piece)


def test_small_messages_count_with_their_overhead() -> None:
    backlog = Backlog()
    while backlog.has_room("a", b""):
        backlog.keep(b"", FLOW, Rank.INSIDE, "a", 1.0)
    assert len(backlog) <= MOST_BYTES / OVERHEAD_BYTES


def test_messages_of_unknown_sources_are_limited() -> None:
    backlog = Backlog()
    for _ in range(MOST_OF_STRANGERS + 10):
        backlog.keep(b"x", FLOW, Rank.STRANGER, "", 1.0)
    assert len(backlog) == MOST_OF_STRANGERS


def test_the_least_wait_of_another_new_call() -> None:
    backlog = Backlog()
    backlog.keep(b"x", FLOW, Rank.INSIDE, "a", 1.0)
    assert backlog.wait_s("a", lasts=backlog.lasts(1.0)) == 0.0
    for _ in range(400):
        backlog.keep(b"x", FLOW, Rank.NEW, "a", 1.0)
    assert backlog.wait_s("a", lasts=backlog.lasts(1.0)) == 400 * FASTEST_S


def test_in_overload_the_wait_follows_the_measured_service_rate() -> None:
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
    assert backlog.wait_s("a", lasts=backlog.lasts(3.1 + LASTS_S)) == FASTEST_S * MARGIN  # nothing measured yet
