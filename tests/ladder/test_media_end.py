"""Media through rtpengine at the end of a call, after a restart, and in random calls."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.call.media import COUNTS_S
from relay.sip.message import parse_message
from tests.ladder.anchored import (
    CALLEE_PORT,
    CALLER_PORT,
    RTPENGINE,
    AnchoredLadder,
    LossyAnchoredLadder,
    commands,
    hold_and_update,
    leads_to_rtpengine,
    refused,
)
from tests.ladder.descriptions import HELD, HOLD
from tests.ladder.ladder import EITHER, bye, call, connect, hang_up, is_hung_up, restart, sides
from tests.ladder.phones import EVENTS, FATES, Fate


@pytest.fixture
def ladder() -> AnchoredLadder:
    return AnchoredLadder()


# -- the end


def test_media_counts_are_in_the_record(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.run(10)
    hang_up(ladder)
    record = ladder.record
    assert (record.caller_packets, record.caller_lost, record.caller_jitter_ms) == (500, 0, 7)
    assert (record.callee_packets, record.callee_lost, record.callee_jitter_ms) == (501, 1, 7)


def test_record_waits_for_the_counts_without_changing_the_end(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.run(10)
    ladder.hold_media = True
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.caller.gets_nothing()
    assert ladder.asked == ["delete"]
    ladder.run(COUNTS_S - 0.1)
    ladder.caller.gets_nothing()
    ladder.rtpengine_answers()
    ladder.caller.get(200)
    assert ladder.record.duration_ms == 10_000
    assert ladder.record.caller_packets == 500
    ladder.settle()


def test_record_waits_for_the_counts_up_to_counts_s(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.run(COUNTS_S + 0.01)
    ladder.caller.get(200)
    assert ladder.record.caller_packets is None
    ladder.rtpengine_goes_on()
    assert ladder.record.caller_packets is None
    ladder.settle()


def test_missing_counts_are_none_in_the_record(ladder: AnchoredLadder) -> None:
    ladder.rtpengine.counts = False
    connect(ladder)
    hang_up(ladder)
    assert ladder.record.callee_packets is None


def test_refused_call_is_deleted_at_rtpengine(ladder: AnchoredLadder) -> None:
    call(ladder)
    ladder.callee.refuses(486)
    refused(ladder, 486, "busy")
    assert commands(ladder) == ["offer", "delete"]


def test_call_without_media_ends(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.run(100)
    assert commands(ladder).count("query") >= 4
    ladder.rtpengine.calls.clear()
    ladder.run(20.1)
    is_hung_up(ladder, "media_timeout")
    record = ladder.record
    assert (record.outcome, record.ended_by, record.end_reason) == ("answered", "relay", "media_timeout")
    ladder.settle()


def test_call_ending_while_rtpengine_is_pending_is_deleted(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_queries = True
    ladder.run(40)
    assert ladder.asked == ["query"]
    bye(ladder.caller, ladder.callee)
    ladder.rtpengine_goes_on()
    ladder.settle()


def test_short_silence_of_rtpengine_does_not_end_a_call(ladder: AnchoredLadder) -> None:
    connect(ladder)
    for _ in range(3):
        ladder.rtpengine.works = False
        ladder.run(40)
        ladder.rtpengine.works = True
        ladder.run(20)
    ladder.caller.gets_nothing()
    hang_up(ladder)


def test_lasting_silence_of_rtpengine_ends_its_calls(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.rtpengine.works = False
    ladder.run(71)
    is_hung_up(ladder, "media_timeout")
    ladder.rtpengine.calls.clear()
    ladder.settle()


@EITHER
def test_session_continues_after_a_restart(ladder: AnchoredLadder, by: str) -> None:
    connect(ladder)
    before = ladder.rtpengine.told[0]
    restart(ladder)
    asking, asked = sides(ladder, by)
    asking.reinvites(HOLD)
    leads_to_rtpengine(asked.expects("INVITE", body=HELD), CALLER_PORT if by == "caller" else CALLEE_PORT)
    asked.get("ACK")
    asking.is_answered()
    ladder.run(40)
    hang_up(ladder)
    after = ladder.rtpengine.told[2:]
    assert {command.instance for command in after} == {"one"}
    assert {command.call for command in after} == {before.call}
    assert (after[0].from_tag == before.from_tag) == (by == "caller")
    assert ladder.record.caller_packets == 500


def test_sdp_is_still_anchored_after_a_restart(ladder: AnchoredLadder) -> None:
    connect(ladder)
    restart(ladder)
    ladder.rtpengine.works = False
    for asking, asked in (sides(ladder, "caller"), sides(ladder, "callee")):
        asking.reinvites(HOLD)
        asking.is_refused(503)
        asked.gets_nothing()
    ladder.rtpengine.works = True
    hang_up(ladder)


def test_after_a_restart_a_call_without_media_ends(ladder: AnchoredLadder) -> None:
    connect(ladder)
    restart(ladder)
    ladder.rtpengine.calls.clear()
    ladder.run(40)
    is_hung_up(ladder, "media_timeout")
    ladder.settle()


def test_unrestorable_call_is_deleted_at_rtpengine(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.restart(peers=ladder.settings.peers[:1])
    assert ladder.record.end_reason == "not_restorable"
    ladder.settle()


def test_restart_while_rtpengine_is_pending(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.reinvites(HOLD)
    ladder.hold_media = False
    restart(ladder)
    ladder.caller.sends_again("INVITE")
    ladder.caller.get(100)
    ladder.callee.agrees(HELD)
    ladder.caller.is_answered()
    hang_up(ladder)


# -- random calls

_TIMES = st.integers(0, 80).map(lambda tenths: tenths / 10)
_DELAYS = st.sampled_from([0.001, 0.001, 0.3, 0.9, None])


@settings(max_examples=150)
@given(
    fates=st.lists(st.sampled_from(FATES), max_size=40),
    delays=st.lists(_DELAYS, max_size=8),
    events=st.lists(st.tuples(_TIMES, st.sampled_from(EVENTS)), max_size=4),
    final=st.sampled_from([200, 200, 200, 486, 503]),
    rings_s=_TIMES,
    restarted_at=st.none() | _TIMES,
)
def test_any_anchored_call_over_any_network_keeps_the_invariants(
    fates: list[Fate],
    delays: list[float | None],
    events: list[tuple[float, str]],
    final: int,
    rings_s: float,
    restarted_at: float | None,
) -> None:
    ladder = LossyAnchoredLadder(fates, delays)
    restarts = [] if restarted_at is None else [(restarted_at, "restart")]
    ladder.play([*events, *restarts], final, rings_s)
    assert len(ladder.records) == 1 or restarted_at is not None


def test_sdp_of_one_side_never_reaches_the_other(ladder: AnchoredLadder) -> None:
    """A call with every kind of request; `settle` checks each message."""
    connect(ladder)
    for asking, asked in (sides(ladder, "caller"), sides(ladder, "callee")):
        hold_and_update(asking, asked)
    hang_up(ladder)
    descriptions = [parse_message(data).body for data, _ in ladder.checks.sent if b"\r\n\r\nv=0" in data]
    assert len(descriptions) == 10
    assert all(RTPENGINE.encode() in description for description in descriptions)
