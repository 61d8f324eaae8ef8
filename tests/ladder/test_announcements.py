"""Announcements: the reason to a refused caller, the beginning and imminent end of a call to both sides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.call.announcement import ENDING_S, LONGEST_S
from relay.model.call import Refusal, Route
from relay.model.settings import Announcements
from relay.sip.message import Message
from tests.ladder import anchored
from tests.ladder.anchored import RTPENGINE, SOUND_S, AnchoredLadder
from tests.ladder.descriptions import ANSWER, HOLD, OFFER
from tests.ladder.ladder import EITHER, call, connect, hang_up, is_hung_up, reinvite, restart, sides
from tests.ladder.settings import AXB, CALLEE_HOST, CALLER_HOST, SECOND_HOST, A, X, peer, settings_for

REFUSED = Announcements(refused=True)
BOTH = Announcements(begin=True, ending=True)
UNKNOWN = "700100000019999"
RELIABLE = "Require: 100rel\r\nSupported: 100rel\r\n"


@pytest.fixture
def ladder() -> AnchoredLadder:
    return AnchoredLadder(routes={(X, A): Refusal("no_binding", 403, 21)}, announcements=REFUSED)


def ringing() -> AnchoredLadder:
    """A ringing call."""
    ladder = AnchoredLadder(announcements=REFUSED)
    call(ladder)
    return ladder


def sounds(ladder: AnchoredLadder) -> list[str]:
    return [command.sound for command in ladder.rtpengine.told if command.command == "play"]


def refused_at_once(ladder: AnchoredLadder, status: int = 403) -> None:
    ladder.caller.is_refused(status)
    ladder.settle()


def hears(ladder: AnchoredLadder, status: int) -> Message:
    """The announcement plays out, and the caller gets the final response."""
    progress = ladder.caller.get(183)
    ladder.run(SOUND_S - 0.1)
    ladder.caller.gets_nothing()
    ladder.run(0.2)
    ladder.caller.is_refused(status)
    ladder.settle()
    return progress


def test_refused_caller_hears_an_announcement_before_the_final_response(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X)
    assert not ladder.records
    progress = hears(ladder, 403)
    lines = progress.body.split(b"\r\n")
    assert f"c=IN IP4 {RTPENGINE}".encode() in lines
    assert b"a=sendrecv" in lines
    assert progress.contact is not None
    assert f"sip:{X}@" in progress.contact.uri_text
    assert sounds(ladder) == ["not_bound"]
    assert (ladder.record.outcome, ladder.record.sip_status) == ("no_binding", 403)
    duration_ms = (ladder.record.ended_at or 0) - ladder.record.received_at
    assert duration_ms == pytest.approx(1000 * SOUND_S, abs=10)


def test_session_at_rtpengine_is_marked_alone(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X)
    hears(ladder, 403)
    offer, answer, play, delete = ladder.rtpengine.told
    assert [each.command for each in (offer, answer, play, delete)] == ["offer", "answer", "play", "delete"]
    assert (offer.alone, answer.alone) == (True, True)
    assert play.from_tag == offer.from_tag == answer.from_tag
    assert answer.to_tag
    assert b"m=audio 9 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n" in answer.sdp
    assert b"127.0.0.1\r\n" in answer.sdp
    text = "".join(map(repr, ladder.rtpengine.told))
    for word in ("alice", "13800000001", ladder.caller.host):
        assert word not in text


@pytest.mark.parametrize("source", ["sdp", "learned"])
def test_announcement_reaches_a_caller_behind_nat(source: str) -> None:
    peers = (peer("pbx", CALLER_HOST, media_source=source), peer("carrier", CALLEE_HOST))
    ladder = AnchoredLadder({}, announcements=REFUSED, peers=peers)
    ladder.caller.calls(X)
    hears(ladder, 403)
    offer, answer, *_ = ladder.rtpengine.told
    assert (offer.learned, answer.learned) == (source == "learned", False)


@pytest.mark.parametrize(
    ("status", "final", "sound"), [(486, 486, "busy"), (603, 603, "busy"), (480, 480, "unreachable")]
)
def test_busy_callee_is_announced(status: int, final: int, sound: str) -> None:
    ladder = ringing()
    ladder.callee.refuses(status)
    hears(ladder, final)
    assert sounds(ladder) == [sound]


def test_no_answer_is_announced() -> None:
    ladder = ringing()
    ladder.callee.proceeds(180)
    ladder.run(ladder.settings.ring_timeout_s)
    ladder.callee.is_cancelled()
    hears(ladder, 480)
    assert sounds(ladder) == ["no_answer"]
    assert ladder.record.outcome == "no_answer"


def test_no_announcement_after_early_media_of_the_callee() -> None:
    ladder = ringing()
    ladder.callee.proceeds(183, body=ANSWER)
    ladder.callee.refuses(486)
    ladder.caller.is_refused(486)
    ladder.settle()
    assert not sounds(ladder)


def test_unknown_number_is_announced(ladder: AnchoredLadder) -> None:
    ladder.caller.calls("70099")
    hears(ladder, 404)
    assert sounds(ladder) == ["unknown"]


def test_cancel_ends_the_announcement(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X)
    ladder.caller.get(183)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.caller.is_refused(403)
    ladder.settle()
    assert ladder.record.outcome == "no_binding"


def announcement_pending(ladder: AnchoredLadder, answered: int) -> None:
    """rtpengine has answered that many of the commands that an announcement needs."""
    ladder.hold_media = True
    ladder.caller.calls(X)
    for _ in range(answered):
        ladder.rtpengine_answers()
    if answered == 2:
        ladder.caller.get(183)


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_cancel_while_rtpengine_is_pending_ends_the_announcement(ladder: AnchoredLadder, answered: int) -> None:
    announcement_pending(ladder, answered)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.caller.is_refused(403)
    ladder.rtpengine_goes_on()
    ladder.settle()
    assert [command.command for command in ladder.rtpengine.told].count("delete") == 1


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_final_response_is_immediate_when_rtpengine_fails(ladder: AnchoredLadder, answered: int) -> None:
    announcement_pending(ladder, answered)
    ladder.rtpengine_is_silent()
    ladder.caller.is_refused(403)
    ladder.rtpengine_goes_on()
    ladder.settle()
    assert ladder.engine.statistics()["announcements_failed"] == 1


def test_final_response_waits_for_the_commit_after_the_announcement(ladder: AnchoredLadder) -> None:
    ladder.hold_commits = True
    ladder.caller.calls(X)
    ladder.caller.get(183)
    ladder.run(SOUND_S)
    ladder.caller.gets_nothing()
    ladder.release()
    ladder.caller.is_refused(403)
    ladder.settle()


@pytest.mark.parametrize(
    "invite",
    [
        {"body": b""},
        {"body": HOLD},
        {"body": OFFER.replace(b"RTP/AVP 8 0", b"RTP/AVP 97").replace(b"rtpmap:8 PCMA", b"rtpmap:97 AMR")},
        {"body": OFFER.replace(b"m=audio 4000", b"m=audio 0")},
        {"headers": RELIABLE},
    ],
    ids=["no offer", "on hold", "no codec", "no stream", "reliable"],
)
def test_caller_that_cannot_hear_is_answered_at_once(ladder: AnchoredLadder, invite: dict[str, object]) -> None:
    ladder.caller.invites(X, **invite)  # type: ignore[arg-type]
    refused_at_once(ladder)
    assert not ladder.rtpengine.told


@pytest.mark.parametrize("outcome", ["store_failed", "over_limit", "business_rate"])
def test_no_announcement_on_overload(outcome: str) -> None:
    ladder = AnchoredLadder(routes={(X, A): Refusal(outcome, 503, 42)}, announcements=REFUSED)
    ladder.caller.invites(X)
    refused_at_once(ladder, 503)
    assert not ladder.rtpengine.told


def test_no_announcement_unless_configured() -> None:
    ladder = AnchoredLadder(routes={})
    ladder.caller.invites(X)
    refused_at_once(ladder)
    assert not ladder.rtpengine.told


def test_no_announcement_over_max_at_once() -> None:
    ladder = AnchoredLadder(routes={}, announcements=Announcements(refused=True, max_at_once=1))
    ladder.caller.calls(X)
    ladder.caller.get(183)
    other = ladder.side(SECOND_HOST, "carol")
    other.calls(X, caller="13700000001")
    other.is_refused(403)
    ladder.run(SOUND_S)
    ladder.caller.is_refused(403)
    ladder.settle()
    assert len(sounds(ladder)) == 1


def test_announcement_uses_only_the_peers_codecs() -> None:
    peers = settings_for().peers
    peers = (replace(peers[0], codecs=frozenset({"g722"})), *peers[1:])
    ladder = AnchoredLadder(routes={}, announcements=REFUSED, peers=peers)
    ladder.caller.calls(X)
    refused_at_once(ladder)


def test_long_announcement_is_cut(ladder: AnchoredLadder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchored, "SOUND_S", 3600.0)
    ladder.caller.calls(X)
    ladder.caller.get(183)
    ladder.run(LONGEST_S)
    ladder.caller.is_refused(403)
    ladder.settle()


def test_recvonly_offer_is_answered_sendonly(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X, body=OFFER.replace(b"sendrecv", b"recvonly"))
    assert b"a=sendonly" in hears(ladder, 403).body


def test_shutdown_ends_the_announcement(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X)
    ladder.caller.get(183)
    ladder.engine.drain()
    assert ladder.engine.statistics()["calls_setting_up"] == 1
    ladder.engine.hang_up_all(ladder.now)
    ladder.perform()
    ladder.caller.is_refused(403)
    ladder.settle()


# -- language


def languages(ladder: AnchoredLadder) -> list[str]:
    return [command.language for command in ladder.rtpengine.told if command.command == "play"]


@pytest.mark.parametrize("language", ["", "en"])
def test_refusal_is_announced_in_the_language_of_the_business(language: str) -> None:
    refusal = Refusal("outside_hours", 403, 21, binding_id="b1", language=language)
    ladder = AnchoredLadder(routes={(X, A): refusal}, announcements=REFUSED)
    ladder.caller.calls(X)
    hears(ladder, 403)
    assert languages(ladder) == [language]


IN_ENGLISH = {way: route._replace(language="en") for way, route in AXB.items() if isinstance(route, Route)}


def test_callees_refusal_is_announced_in_the_language_of_the_business() -> None:
    ladder = AnchoredLadder(routes=IN_ENGLISH, announcements=REFUSED)
    call(ladder)
    ladder.callee.refuses(486)
    hears(ladder, 486)
    assert languages(ladder) == ["en"]


def test_language_of_the_business_survives_a_restart() -> None:
    ladder = AnchoredLadder(routes=IN_ENGLISH, announcements=BOTH, max_call_s=300.0)
    connect(ladder)
    restart(ladder)
    ladder.run(300 - ENDING_S + 1)
    assert (sounds(ladder), languages(ladder)) == (["begin", "ending"], ["en", "en"])
    hang_up(ladder)


# -- during a call


def test_beginning_is_announced_after_the_ack() -> None:
    ladder = AnchoredLadder(announcements=BOTH)
    connect(ladder, acknowledge=False)
    assert not sounds(ladder)
    ladder.caller.acks()
    ladder.caller.acks()
    assert sounds(ladder) == ["begin"]
    played = ladder.rtpengine.told[-1]
    assert (played.call, played.from_tag) == (ladder.record.call_id, "")
    hang_up(ladder)


def test_late_offer_is_answered_before_the_announcement() -> None:
    ladder = AnchoredLadder(announcements=BOTH)
    call(ladder, body=b"")
    ladder.callee.answers(200, body=OFFER)
    ladder.caller.get(200)
    ladder.caller.acks(body=ANSWER)
    ladder.callee.get("ACK")
    assert [command.command for command in ladder.rtpengine.told] == ["ping", "offer", "answer", "play"]
    hang_up(ladder)


def test_end_is_announced_a_minute_before() -> None:
    ladder = AnchoredLadder(announcements=BOTH, max_call_s=300.0)
    connect(ladder)
    ladder.run(300 - ENDING_S - 1)
    assert sounds(ladder) == ["begin"]
    ladder.run(2)
    assert sounds(ladder) == ["begin", "ending"]
    ladder.run(ENDING_S)
    is_hung_up(ladder, "max_duration")
    ladder.settle()


def test_end_of_a_call_of_a_minute_is_not_announced() -> None:
    ladder = AnchoredLadder(announcements=BOTH, max_call_s=ENDING_S)
    connect(ladder)
    ladder.run(ENDING_S)
    assert sounds(ladder) == ["begin"]
    is_hung_up(ladder, "max_duration")
    ladder.settle()


def test_restart_repeats_no_beginning_but_announces_the_end() -> None:
    ladder = AnchoredLadder(announcements=BOTH, max_call_s=300.0)
    connect(ladder)
    restart(ladder)
    ladder.caller.acks()
    ladder.run(300 - ENDING_S + 1)
    assert sounds(ladder) == ["begin", "ending"]
    hang_up(ladder)


@EITHER
@pytest.mark.parametrize("restarted", [False, True])
def test_reinvite_does_not_announce_the_beginning(by: str, restarted: bool) -> None:
    ladder = AnchoredLadder(announcements=BOTH)
    connect(ladder)
    if restarted:
        restart(ladder)
    asking, asked = sides(ladder, by)
    reinvite(asking, asked)
    assert sounds(ladder) == ["begin"]
    hang_up(ladder)


def test_failed_announcement_does_not_affect_the_call() -> None:
    ladder = AnchoredLadder(announcements=BOTH)
    connect(ladder, acknowledge=False)
    ladder.rtpengine.works = False
    ladder.caller.acks()
    ladder.rtpengine.works = True
    hang_up(ladder)
    assert ladder.record.outcome == "answered"
