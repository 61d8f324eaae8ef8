"""What the parties hear from the relay: a refused caller why, both sides that a call begins and that it is to end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.call.announcement import ENDING_S, LONGEST_S
from relay.call.routing import Refusal, Route
from relay.call.settings import Announcements
from relay.sip.message import Message
from tests.ladder import anchored
from tests.ladder.anchored import RTPENGINE, SOUND_S, AnchoredLadder
from tests.ladder.descriptions import ANSWER, HELD, HOLD, OFFER
from tests.ladder.ladder import AXB, EITHER, SECOND_HOST, A, X, connect, hang_up, settings_for, sides

REFUSED = Announcements(refused=True)
BOTH = Announcements(begin=True, ending=True)
UNKNOWN = "700100000019999"
RELIABLE = "Require: 100rel\r\nSupported: 100rel\r\n"


@pytest.fixture
def ladder() -> AnchoredLadder:
    return AnchoredLadder(routes={(X, A): Refusal("no_binding", 403, 21)}, announcements=REFUSED)


def ringing() -> AnchoredLadder:
    """A call that rings."""
    ladder = AnchoredLadder(announcements=REFUSED)
    ladder.caller.calls(X)
    ladder.callee.get("INVITE")
    return ladder


def sounds(ladder: AnchoredLadder) -> list[str]:
    return [command.sound for command in ladder.rtpengine.told if command.command == "play"]


def refused_at_once(ladder: AnchoredLadder, status: int = 403) -> None:
    ladder.caller.is_refused(status)
    ladder.settle()


def hears(ladder: AnchoredLadder, status: int) -> Message:
    """The caller hears it to its end, and gets the final answer then."""
    progress = ladder.caller.get(183)
    ladder.run(SOUND_S - 0.1)
    ladder.caller.gets_nothing()
    ladder.run(0.2)
    ladder.caller.is_refused(status)
    ladder.settle()
    return progress


def test_a_refused_caller_hears_why_before_the_final_answer(ladder: AnchoredLadder) -> None:
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


def test_rtpengine_is_told_that_nobody_is_on_the_other_side(ladder: AnchoredLadder) -> None:
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


@pytest.mark.parametrize(
    ("status", "final", "sound"), [(486, 486, "busy"), (603, 603, "busy"), (480, 480, "unreachable")]
)
def test_who_is_refused_by_the_callee_hears_why(status: int, final: int, sound: str) -> None:
    ladder = ringing()
    ladder.callee.answers(status)
    ladder.callee.get("ACK")
    hears(ladder, final)
    assert sounds(ladder) == [sound]


def test_who_is_not_answered_hears_so() -> None:
    ladder = ringing()
    ladder.callee.answers(180)
    ladder.caller.get(180)
    ladder.run(ladder.settings.ring_timeout_s)
    ladder.callee.expects("CANCEL")
    ladder.callee.refuses(487)
    hears(ladder, 480)
    assert sounds(ladder) == ["no_answer"]
    assert ladder.record.outcome == "no_answer"


def test_what_the_callees_network_has_told_is_not_told_again() -> None:
    ladder = ringing()
    ladder.callee.answers(183, body=ANSWER)
    ladder.caller.get(183)
    ladder.callee.refuses(486)
    ladder.caller.is_refused(486)
    ladder.settle()
    assert not sounds(ladder)


def test_a_number_that_does_not_exist(ladder: AnchoredLadder) -> None:
    ladder.caller.calls("70099")
    hears(ladder, 404)
    assert sounds(ladder) == ["unknown"]


def test_cancel_ends_it_at_once(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X)
    ladder.caller.get(183)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.caller.is_refused(403)
    ladder.settle()
    assert ladder.record.outcome == "no_binding"


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_cancel_while_rtpengine_is_asked(ladder: AnchoredLadder, answered: int) -> None:
    ladder.hold_media = True
    ladder.caller.calls(X)
    for _ in range(answered):
        ladder.rtpengine_answers()
    if answered == 2:
        ladder.caller.get(183)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.caller.is_refused(403)
    ladder.rtpengine_goes_on()
    ladder.settle()
    assert [command.command for command in ladder.rtpengine.told].count("delete") == 1


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_where_rtpengine_does_not_answer_the_final_answer_comes_at_once(ladder: AnchoredLadder, answered: int) -> None:
    ladder.hold_media = True
    ladder.caller.calls(X)
    for _ in range(answered):
        ladder.rtpengine_answers()
    if answered == 2:
        ladder.caller.get(183)
    ladder.rtpengine_is_silent()
    ladder.caller.is_refused(403)
    ladder.rtpengine_goes_on()
    ladder.settle()
    assert ladder.engine.statistics()["announcements_failed"] == 1


def test_a_record_that_is_not_safe_holds_the_final_answer(ladder: AnchoredLadder) -> None:
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
def test_what_cannot_be_heard_is_answered_at_once(ladder: AnchoredLadder, invite: dict[str, object]) -> None:
    ladder.caller.invites(X, **invite)  # type: ignore[arg-type]
    refused_at_once(ladder)
    assert not ladder.rtpengine.told


@pytest.mark.parametrize("outcome", ["store_failed", "over_limit", "business_rate"])
def test_where_there_is_too_much_to_do_nothing_is_told(outcome: str) -> None:
    ladder = AnchoredLadder(routes={(X, A): Refusal(outcome, 503, 42)}, announcements=REFUSED)
    ladder.caller.invites(X)
    refused_at_once(ladder, 503)
    assert not ladder.rtpengine.told


def test_nothing_is_told_unless_it_is_configured() -> None:
    ladder = AnchoredLadder(routes={})
    ladder.caller.invites(X)
    refused_at_once(ladder)
    assert not ladder.rtpengine.told


def test_beyond_the_limit_nothing_is_told() -> None:
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


def test_only_the_codecs_that_the_peer_may_have() -> None:
    peers = settings_for().peers
    peers = (replace(peers[0], codecs=frozenset({"g722"})), *peers[1:])
    ladder = AnchoredLadder(routes={}, announcements=REFUSED, peers=peers)
    ladder.caller.calls(X)
    refused_at_once(ladder)


def test_a_sound_that_is_too_long_is_cut(ladder: AnchoredLadder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchored, "SOUND_S", 3600.0)
    ladder.caller.calls(X)
    ladder.caller.get(183)
    ladder.run(LONGEST_S)
    ladder.caller.is_refused(403)
    ladder.settle()


def test_who_hears_only_is_answered_in_kind(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X, body=OFFER.replace(b"sendrecv", b"recvonly"))
    assert b"a=sendonly" in hears(ladder, 403).body


def test_the_end_of_the_service_ends_it(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X)
    ladder.caller.get(183)
    ladder.engine.drain()
    assert ladder.engine.statistics()["calls_setting_up"] == 1
    ladder.engine.hang_up_all(ladder.now)
    ladder.perform()
    ladder.caller.is_refused(403)
    ladder.settle()


# -- in which language


def languages(ladder: AnchoredLadder) -> list[str]:
    return [command.language for command in ladder.rtpengine.told if command.command == "play"]


@pytest.mark.parametrize("language", ["", "en"])
def test_a_refused_caller_is_told_in_the_language_of_the_business(language: str) -> None:
    refusal = Refusal("outside_hours", 403, 21, binding_id="b1", language=language)
    ladder = AnchoredLadder(routes={(X, A): refusal}, announcements=REFUSED)
    ladder.caller.calls(X)
    hears(ladder, 403)
    assert languages(ladder) == [language]


IN_ENGLISH = {way: route._replace(language="en") for way, route in AXB.items() if isinstance(route, Route)}


def test_who_is_refused_by_the_callee_hears_the_language_of_the_business() -> None:
    ladder = AnchoredLadder(routes=IN_ENGLISH, announcements=REFUSED)
    ladder.caller.calls(X)
    ladder.callee.expects("INVITE", 486)
    ladder.callee.get("ACK")
    hears(ladder, 486)
    assert languages(ladder) == ["en"]


def test_a_call_speaks_the_language_of_the_business_also_after_a_restart() -> None:
    ladder = AnchoredLadder(routes=IN_ENGLISH, announcements=BOTH, max_call_s=300.0)
    connect(ladder)
    ladder.restart()
    for side in (ladder.caller, ladder.callee):
        side.expects("OPTIONS")
    ladder.run(300 - ENDING_S + 1)
    assert (sounds(ladder), languages(ladder)) == (["begin", "ending"], ["en", "en"])
    hang_up(ladder)


# -- in a call


def test_both_hear_that_the_call_begins_once_both_are_there() -> None:
    ladder = AnchoredLadder(announcements=BOTH)
    connect(ladder, acknowledge=False)
    assert not sounds(ladder)
    ladder.caller.acks()
    ladder.caller.acks()
    assert sounds(ladder) == ["begin"]
    played = ladder.rtpengine.told[-1]
    assert (played.call, played.from_tag) == (ladder.record.call_id, "")
    hang_up(ladder)


def test_a_late_offer_is_answered_before_the_sound() -> None:
    ladder = AnchoredLadder(announcements=BOTH)
    ladder.caller.calls(X, body=b"")
    ladder.callee.get("INVITE")
    ladder.callee.answers(200, body=OFFER)
    ladder.caller.get(200)
    ladder.caller.acks(body=ANSWER)
    ladder.callee.get("ACK")
    assert [command.command for command in ladder.rtpengine.told] == ["ping", "offer", "answer", "play"]
    hang_up(ladder)


def test_both_hear_a_minute_before_the_end_that_it_comes() -> None:
    ladder = AnchoredLadder(announcements=BOTH, max_call_s=300.0)
    connect(ladder)
    ladder.run(300 - ENDING_S - 1)
    assert sounds(ladder) == ["begin"]
    ladder.run(2)
    assert sounds(ladder) == ["begin", "ending"]
    ladder.run(ENDING_S)
    ladder.caller.expects("BYE")
    ladder.callee.expects("BYE")
    ladder.settle()
    assert ladder.record.end_reason == "max_duration"


def test_a_call_of_a_minute_is_not_said_to_end() -> None:
    ladder = AnchoredLadder(announcements=BOTH, max_call_s=ENDING_S)
    connect(ladder)
    ladder.run(ENDING_S)
    assert sounds(ladder) == ["begin"]
    ladder.caller.expects("BYE")
    ladder.callee.expects("BYE")
    ladder.settle()


def test_a_restart_does_not_begin_a_call_again_but_ends_it_as_it_would() -> None:
    ladder = AnchoredLadder(announcements=BOTH, max_call_s=300.0)
    connect(ladder)
    ladder.restart()
    for side in (ladder.caller, ladder.callee):
        side.expects("OPTIONS")
    ladder.caller.acks()
    ladder.run(300 - ENDING_S + 1)
    assert sounds(ladder) == ["begin", "ending"]
    hang_up(ladder)


@EITHER
@pytest.mark.parametrize("restarted", [False, True])
def test_a_change_of_a_call_is_no_begin(by: str, restarted: bool) -> None:
    ladder = AnchoredLadder(announcements=BOTH)
    connect(ladder)
    if restarted:
        ladder.restart()
        for side in (ladder.caller, ladder.callee):
            side.expects("OPTIONS")
    asking, asked = sides(ladder, by)
    asking.reinvites(HOLD)
    asking.get(100)
    asked.expects("INVITE", 200, body=HELD)
    asked.get("ACK")
    asking.is_answered()
    assert sounds(ladder) == ["begin"]
    hang_up(ladder)


def test_a_sound_that_is_not_played_harms_no_call() -> None:
    ladder = AnchoredLadder(announcements=BOTH)
    connect(ladder, acknowledge=False)
    ladder.rtpengine.works = False
    ladder.caller.acks()
    ladder.rtpengine.works = True
    hang_up(ladder)
    assert ladder.record.outcome == "answered"
