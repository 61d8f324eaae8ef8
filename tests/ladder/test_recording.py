"""Recording of calls, begun only after the notice to both sides."""

from __future__ import annotations

import pytest

from relay.model.call import Route
from relay.model.rtp_streams import read_streams
from relay.model.settings import Announcements
from tests.ladder.anchored import SOUND_S, AnchoredLadder, hold_and_update
from tests.ladder.ladder import EITHER, Ladder, connect, hang_up, restart, ring
from tests.ladder.settings import AXB

RECORDED = {way: route._replace(record=True) for way, route in AXB.items() if isinstance(route, Route)}


def recording(**settings: object) -> AnchoredLadder:
    return AnchoredLadder(routes=RECORDED, **{"recording": True, **settings})


@pytest.fixture
def ladder() -> AnchoredLadder:
    return recording()


def done(ladder: AnchoredLadder) -> list[str]:
    """The commands to rtpengine other than offer, answer and query."""
    return [command.sound or command.command for command in ladder.rtpengine.told if command.command in WHAT]


WHAT = ("play", "record", "delete")


def failed(ladder: Ladder) -> list[object]:
    """The failed steps, each logged and counted."""
    steps = [note.fields["step"] for note in ladder.notes if note.event == "recording.failed"]
    assert ladder.engine.statistics().get("recordings_failed", 0) == len(steps)
    return steps


def ended_by_relay(ladder: AnchoredLadder) -> None:
    for side in (ladder.caller, ladder.callee):
        side.expects("BYE")
    ladder.settle()
    assert (ladder.record.end_reason, ladder.record.recording) == ("recording_failed", None)


def test_recording_begins_after_the_notice(ladder: AnchoredLadder) -> None:
    connect(ladder, acknowledge=False)
    ladder.run(1)
    assert done(ladder) == []
    ladder.caller.acks()
    ladder.run(SOUND_S - 0.1)
    assert (done(ladder), ladder.record.recording) == (["recorded"], None)
    ladder.run(0.2)
    assert done(ladder) == ["recorded", "record"]
    assert ladder.record.recording == ladder.record.call_id
    play, record = ladder.rtpengine.told[-2:]
    assert (play.from_tag, record.call, record.instance) == ("", ladder.record.call_id, "one")
    hang_up(ladder)
    assert ladder.record.recording == ladder.record.call_id
    assert ladder.engine.statistics()["recordings_begun"] == 1
    assert failed(ladder) == []


def test_rtpengine_is_told_which_side_speaks_in_which_codec(ladder: AnchoredLadder) -> None:
    """It keeps the last word alone, so earlier codecs are told again. After a restart an empty word leaves that one."""
    connect(ladder)
    ladder.run(SOUND_S + 1)
    first = ladder.rtpengine.told[-1].metadata
    sides = read_streams(first)
    assert sorted((stream.side, "pcma" in stream.types.values()) for stream in sides.values()) == [
        ("callee", True),
        ("caller", True),
    ]
    hold_and_update(ladder.callee, ladder.caller)
    later = [command.metadata for command in ladder.rtpengine.told if command.command == "record"][-1]
    assert later.startswith(first) and set(read_streams(later)) >= set(sides)
    restart(ladder)
    hold_and_update(ladder.callee, ladder.caller)
    assert [command.metadata for command in ladder.rtpengine.told if command.command == "record"][-1] == ""


def test_notice_replaces_the_opening_announcement() -> None:
    ladder = recording(announcements=Announcements(begin=True))
    connect(ladder)
    ladder.run(SOUND_S)
    assert done(ladder) == ["recorded", "record"]
    hang_up(ladder)


def test_call_without_record_in_its_binding_is_not_recorded() -> None:
    ladder = AnchoredLadder(recording=True)
    connect(ladder)
    ladder.run(2 * SOUND_S)
    hang_up(ladder)
    assert done(ladder) == ["delete"]
    assert ladder.record.recording is None


def test_unanswered_call_is_not_recorded(ladder: AnchoredLadder) -> None:
    ring(ladder)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.callee.is_cancelled()
    ladder.caller.is_refused(487)
    ladder.settle()
    assert done(ladder) == ["delete"]
    assert (ladder.record.recording, failed(ladder)) == (None, [])


@EITHER
def test_call_ending_during_the_notice_is_not_recorded(ladder: AnchoredLadder, by: str) -> None:
    connect(ladder)
    ladder.run(SOUND_S / 2)
    hang_up(ladder, by)
    assert done(ladder) == ["recorded", "delete"]
    assert (ladder.record.recording, failed(ladder)) == (None, [])


def test_call_ending_at_the_start_of_the_recording_has_a_reference(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.run(1)
    ladder.hold_media = True
    ladder.run(SOUND_S)
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.rtpengine_goes_on()
    ladder.caller.get(200)
    ladder.settle()
    assert done(ladder) == ["recorded", "record", "delete"]
    assert ladder.record.recording == ladder.record.call_id


@pytest.mark.parametrize(("plays", "step"), [(False, "notice"), (True, "start")])
def test_failed_recording_leaves_the_call_up(ladder: AnchoredLadder, plays: bool, step: str) -> None:
    ladder.rtpengine.plays, ladder.rtpengine.records = plays, False
    connect(ladder)
    ladder.run(SOUND_S + 60)
    assert failed(ladder) == [step]
    assert done(ladder) == ["recorded", "record"][: 1 + plays]
    hang_up(ladder)
    assert ladder.record.recording is None


@pytest.mark.parametrize("plays", [False, True])
def test_failed_recording_ends_the_call_if_configured(plays: bool) -> None:
    ladder = recording(recording_needed=True)
    ladder.rtpengine.plays, ladder.rtpengine.records = plays, False
    connect(ladder)
    ladder.run(SOUND_S + 0.1)
    assert len(failed(ladder)) == 1
    ended_by_relay(ladder)


@pytest.mark.parametrize("needed", [False, True])
def test_recording_fails_when_disabled_by_a_reload(needed: bool) -> None:
    ladder = recording(recording=False, recording_needed=needed)
    connect(ladder)
    ladder.run(0.1)
    assert (done(ladder)[:1], failed(ladder)) == (["delete"][:needed], ["no_rtpengine"])
    if needed:
        ended_by_relay(ladder)
    else:
        hang_up(ladder)


def test_recording_fails_without_rtpengine() -> None:
    ladder = Ladder(routes=RECORDED, recording=True)
    connect(ladder)
    ladder.run(0.1)
    assert failed(ladder) == ["no_rtpengine"]
    hang_up(ladder)


def test_recording_fails_when_rtpengine_is_silent(ladder: AnchoredLadder) -> None:
    connect(ladder, acknowledge=False)
    ladder.hold_media = True
    ladder.caller.acks()
    ladder.run(0)
    ladder.rtpengine_is_silent()
    assert failed(ladder) == ["notice"]
    ladder.rtpengine_goes_on()
    hang_up(ladder)


@pytest.mark.parametrize(("after_s", "step"), [(0, "notice"), (1, "start")])
def test_recording_fails_when_rtpengine_has_lost_the_call(ladder: AnchoredLadder, after_s: float, step: str) -> None:
    connect(ladder, acknowledge=False)
    ladder.run(1)
    if not after_s:
        ladder.rtpengine.calls.clear()
    ladder.caller.acks()
    ladder.run(after_s)
    ladder.rtpengine.calls.clear()
    ladder.run(SOUND_S)
    assert failed(ladder) == [step]
    hang_up(ladder)
    assert ladder.record.recording is None


def test_recording_continues_over_hold_and_update(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.run(SOUND_S)
    hold_and_update(ladder.callee, ladder.caller)
    ladder.run(1)
    assert set(done(ladder)) == {"recorded", "record"}
    hang_up(ladder)
    assert ladder.record.recording == ladder.record.call_id
    assert ladder.engine.statistics()["recordings_begun"] == 1


@pytest.fixture
def needed() -> AnchoredLadder:
    """A call whose recording has begun; it ends if that fails."""
    ladder = recording(recording_needed=True)
    connect(ladder)
    ladder.run(SOUND_S + 0.1)
    assert done(ladder) == ["recorded", "record"]
    ladder.rtpengine.told.clear()
    return ladder


def refresh(ladder: AnchoredLadder) -> None:
    """An UPDATE without SDP, as session timers send."""
    ladder.caller.updates()
    ladder.callee.expects("UPDATE")
    ladder.caller.get(200)


def test_recording_continues_while_rtpengine_is_silent(needed: AnchoredLadder) -> None:
    needed.rtpengine.works = False
    for _ in range(5):
        refresh(needed)
    needed.rtpengine.works = True
    assert failed(needed) == []
    needed.rtpengine.told.clear()
    needed.run(2 * needed.settings.media_check_s)
    assert done(needed) == ["record"]
    hang_up(needed)
    assert (failed(needed), needed.record.end_reason) == ([], "bye")


@pytest.mark.parametrize("lost", [False, True])
def test_recording_that_rtpengine_has_lost_or_keeps_refusing_fails(needed: AnchoredLadder, lost: bool) -> None:
    if lost:
        needed.rtpengine.calls.clear()
    needed.rtpengine.records = False
    refresh(needed)
    assert failed(needed) == ["start"][:lost]
    needed.run(0 if lost else 4 * needed.settings.media_check_s)
    assert failed(needed) == ["start"]
    for side in (needed.caller, needed.callee):
        side.expects("BYE")
    needed.settle()
    assert needed.record.end_reason == "recording_failed"


def test_recording_restarts_after_a_restart_of_rtpengine(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.run(SOUND_S)
    ladder.rtpengine.calls.clear()
    ladder.rtpengine.told.clear()
    hold_and_update(ladder.callee, ladder.caller)
    assert done(ladder) == ["record", "record"]
    hang_up(ladder)


def test_recording_continues_after_a_restart(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.run(SOUND_S)
    restart(ladder)
    ladder.run(2 * SOUND_S)
    assert done(ladder) == ["recorded", "record"]
    hang_up(ladder)
    assert ladder.record.recording == ladder.record.call_id


def test_interrupted_notice_is_repeated_after_a_restart(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.run(SOUND_S / 2)
    restart(ladder)
    ladder.run(SOUND_S + 0.1)
    assert done(ladder) == ["recorded", "recorded", "record"]
    hang_up(ladder)
    assert ladder.record.recording == ladder.record.call_id


def test_notice_after_a_restart_waits_for_the_callers_ack(ladder: AnchoredLadder) -> None:
    """Before it, the caller may not hear anything: the 200 is sent again."""
    connect(ladder, acknowledge=False)
    ladder.restart()
    ladder.callee.expects("OPTIONS")
    ladder.run(SOUND_S + 1)
    assert done(ladder) == []
    ladder.caller.get(200)
    ladder.caller.acks()
    ladder.run(SOUND_S + 0.1)
    assert done(ladder) == ["recorded", "record"]
    hang_up(ladder)
    assert ladder.record.recording == ladder.record.call_id
