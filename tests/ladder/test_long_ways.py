"""A dialog whose route set makes our requests exceed the UDP limit: its call ends, others are not affected.

New dialogs are refused one (tests/ladder/test_early_dialogs.py); an earlier version has stored some.
"""

from __future__ import annotations

import pytest

from relay.privacy.messages import MOST_BY_UDP
from relay.sip.message import Flow
from tests.ladder.anchored import AnchoredLadder
from tests.ladder.descriptions import ANSWER
from tests.ladder.ladder import Ladder, connect, ring
from tests.ladder.routes import lengthen_route_set
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST


class ByDatagrams(Ladder):
    """A ladder that drops messages over the UDP limit, as a socket does."""

    def _send(self, data: bytes, flow: Flow) -> None:
        if flow.transport != "udp" or len(data) <= MOST_BY_UDP:
            super()._send(data, flow)


class AnchoredByDatagrams(ByDatagrams, AnchoredLadder):
    """The same with rtpengine."""


@pytest.fixture(params=[ByDatagrams, AnchoredByDatagrams])
def ladder(request: pytest.FixtureRequest) -> Ladder:
    made: Ladder = request.param()
    return made


def connect_another(ladder: Ladder) -> None:
    ladder.caller.call_id, ladder.caller.tag, ladder.callee.tag = "other-call", "other-tag", "other-bob"
    connect(ladder)


def connect_by_a_long_way(ladder: Ladder, *, acknowledge: bool = True) -> None:
    """As `connect`; the caller is behind the hops."""
    ring(ladder)
    lengthen_route_set(ladder, CALLER_HOST)
    ladder.callee.accepts(body=ANSWER)
    ladder.caller.get(200)
    if acknowledge:
        ladder.caller.acks()


def hang_up(ladder: Ladder) -> None:
    ladder.engine.hang_up(ladder.record.call_id, ladder.now)
    ladder.perform()


def test_relays_bye_reaches_the_other_side(ladder: Ladder) -> None:
    connect_by_a_long_way(ladder)
    hang_up(ladder)
    ladder.callee.expects("BYE")
    ladder.settle()


def test_other_sides_bye_ends_the_call(ladder: Ladder) -> None:
    connect_by_a_long_way(ladder)
    ladder.callee.sends("BYE")
    ladder.callee.get(200)
    ladder.settle()


def test_maximum_duration_ends_the_call(ladder: Ladder) -> None:
    connect_by_a_long_way(ladder)
    ladder.run(ladder.settings.max_call_s + 1)
    ladder.callee.expects("BYE")
    ladder.settle()


def test_shutdown_ends_all_other_calls(ladder: Ladder) -> None:
    connect_by_a_long_way(ladder)
    connect_another(ladder)
    ladder.engine.hang_up_all(ladder.now)
    ladder.perform()
    assert [data[:3] for data, _ in ladder.callee.inbox] == [b"BYE", b"BYE"]
    assert [record.ended_at is not None for record, _ in ladder.records.values()] == [True, True]


def test_bye_held_for_the_ack_is_dropped(ladder: Ladder) -> None:
    connect_by_a_long_way(ladder, acknowledge=False)
    hang_up(ladder)
    ladder.callee.expects("BYE")
    ladder.caller.acks()
    ladder.settle()


def test_call_ends_after_a_restart(ladder: Ladder) -> None:
    connect_by_a_long_way(ladder)
    ladder.restart()
    ladder.callee.expects("BYE")
    assert ladder.record.end_reason == "lost_at_restart"
    ladder.settle()


@pytest.mark.parametrize("how", ["caller", "callee", "relay"])
def test_both_sides_with_long_route_sets(ladder: Ladder, how: str) -> None:
    connect_by_a_long_way(ladder)
    lengthen_route_set(ladder, CALLEE_HOST)
    if how == "relay":
        hang_up(ladder)
    else:
        side = ladder.caller if how == "caller" else ladder.callee
        side.sends("BYE")
        side.get(200)
    ladder.settle()
