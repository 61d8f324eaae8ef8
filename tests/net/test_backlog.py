from __future__ import annotations

import pytest

from relay.call.shedding import Rank
from relay.net.backlog import FASTEST_S, LASTS_S, MARGIN, MOST_BYTES, MOST_OF_STRANGERS, Backlog
from relay.sip.flow import Flow

FLOW = Flow(0, "udp", "127.0.0.11", 5060)


def test_messages_of_a_rank_are_taken_in_their_order_and_strangers_last() -> None:
    backlog = Backlog()
    ranks = (Rank.STRANGER, Rank.NEW, Rank.INSIDE, Rank.NEW, Rank.INSIDE)
    for number, rank in enumerate(ranks):
        backlog.keep(b"%d" % number, FLOW, rank, float(number))
    assert len(backlog) == 5
    assert [backlog.take_inside() for _ in range(3)] == [(b"2", FLOW, 2.0), (b"4", FLOW, 4.0), None]
    assert [backlog.take_new() for _ in range(4)] == [(b"1", FLOW, 1.0), (b"3", FLOW, 3.0), (b"0", FLOW, 0.0), None]
    assert not backlog


def test_it_says_how_long_the_oldest_has_waited_but_for_strangers() -> None:
    backlog = Backlog()
    assert backlog.waited_s(10.0) == 0.0
    backlog.keep(b"x", FLOW, Rank.STRANGER, 1.0)
    assert backlog.waited_s(10.0) == 0.0
    backlog.keep(b"x", FLOW, Rank.NEW, 9.0)
    backlog.keep(b"x", FLOW, Rank.INSIDE, 8.0)
    assert backlog.waited_s(10.0) == 2.0


def test_it_lasts_when_it_has_not_been_empty_for_a_while() -> None:
    backlog = Backlog()
    backlog.keep(b"x", FLOW, Rank.NEW, 1.0)
    backlog.keep(b"x", FLOW, Rank.INSIDE, 1.5)
    assert not backlog.lasts(1.0 + LASTS_S)
    assert backlog.lasts(1.1 + LASTS_S)
    backlog.take_inside()
    backlog.take_new()
    assert not backlog.lasts(1.1 + LASTS_S)
    backlog.keep(b"x", FLOW, Rank.NEW, 2.0)
    assert not backlog.lasts(1.1 + LASTS_S)


def test_it_is_full_by_bytes_until_one_is_taken() -> None:
    backlog = Backlog()
    half = bytes(MOST_BYTES // 2)
    backlog.keep(half, FLOW, Rank.NEW, 1.0)
    backlog.keep(half, FLOW, Rank.INSIDE, 1.0)
    assert not backlog.is_full
    backlog.keep(b"x", FLOW, Rank.INSIDE, 1.0)
    assert backlog.is_full
    backlog.take_new()
    assert not backlog.is_full


def test_strangers_have_so_many_places_only() -> None:
    backlog = Backlog()
    for _ in range(MOST_OF_STRANGERS + 10):
        backlog.keep(b"x", FLOW, Rank.STRANGER, 1.0)
    assert len(backlog) == MOST_OF_STRANGERS


def test_it_says_how_long_another_new_call_will_wait_at_least() -> None:
    backlog = Backlog()
    backlog.keep(b"x", FLOW, Rank.INSIDE, 1.0)
    assert backlog.wait_s(lasts=backlog.lasts(1.0)) == 0.0
    for _ in range(400):
        backlog.keep(b"x", FLOW, Rank.NEW, 1.0)
    assert backlog.wait_s(lasts=backlog.lasts(1.0)) == 400 * FASTEST_S


def test_after_a_burst_it_goes_by_how_fast_new_calls_were_served() -> None:
    backlog = Backlog()
    for _ in range(500):
        backlog.keep(b"x", FLOW, Rank.NEW, 1.0)
    for number in range(1, 301):
        backlog.take_new()
        backlog.served(1.0 + number * 0.004)
    assert not backlog.lasts(1.0 + LASTS_S)
    assert backlog.wait_s(lasts=backlog.lasts(1.0 + LASTS_S)) == 200 * FASTEST_S
    assert backlog.wait_s(lasts=backlog.lasts(1.1 + LASTS_S)) == pytest.approx(200 * 0.004 * MARGIN)
    while backlog.take_new():
        pass
    backlog.keep(b"x", FLOW, Rank.NEW, 3.0)  # another burst
    assert backlog.wait_s(lasts=backlog.lasts(3.0)) == FASTEST_S
    assert backlog.wait_s(lasts=backlog.lasts(3.1 + LASTS_S)) == FASTEST_S * MARGIN  # none was served yet
