"""A call leaves no reference cycles: the service runs without garbage collection."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial

import pytest

from relay.model.call import Route
from relay.model.settings import Account, Announcements
from relay.peers.user_agent import ClientRequest
from relay.privacy.messages import OutgoingRequest, Reply
from tests.ladder.anchored import AnchoredLadder
from tests.ladder.descriptions import ANSWER, OFFER
from tests.ladder.ladder import Ladder, call, connect, ring
from tests.ladder.settings import AXB, CALLEE_HOST, CALLER_HOST, X, peer


def _call_that_is_hung_up(ladder: Ladder) -> None:
    connect(ladder)
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.caller.get(200)


def _call_with_a_refused_reinvite(ladder: Ladder) -> None:
    connect(ladder)
    ladder.caller.sends("INVITE", headers=f"Contact: {ladder.caller.contact}\r\n")
    ladder.callee.expects("INVITE", 488)
    ladder.callee.sends("BYE")


def _call_that_is_cancelled(ladder: Ladder) -> None:
    ladder.caller.invites(X)
    ladder.callee.get("INVITE")
    ladder.callee.answers(180)
    ladder.caller.cancels()


def _call_that_is_busy(ladder: Ladder) -> None:
    ladder.caller.invites(X)
    ladder.callee.get("INVITE")
    ladder.callee.answers(486)


def _refused_call(ladder: Ladder) -> None:
    ladder.caller.invites("700100000019999")


def _message_that_the_second_target_takes() -> Ladder:
    ladder = Ladder(sms=True, tried=("second", "carrier"))
    ladder.caller.texts(X)
    ladder.run(6)
    ladder.callee.expects("MESSAGE")
    ladder.caller.get(200)
    return ladder


def _message_that_is_refused() -> Ladder:
    ladder = Ladder(sms=True)
    ladder.caller.texts(X, b"call 13912345678")
    ladder.caller.get(403)
    return ladder


def _call_that_is_challenged() -> Ladder:
    account = Account("trunk", "secret")
    ladder = Ladder(peers=(peer("pbx", CALLER_HOST), peer("carrier", CALLEE_HOST, account=account)))
    challenge = 'WWW-Authenticate: Digest realm="r",nonce="n",qop="auth"\r\n'
    ladder.caller.invites(X)
    ladder.callee.get("INVITE")
    ladder.callee.answers(401, headers=challenge)
    ladder.callee.get("ACK")
    ladder.callee.get("INVITE")
    ladder.callee.answers(200, body=ANSWER)
    ladder.callee.get("ACK")
    ladder.caller.get(100)
    ladder.caller.get(200)
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE", 401, headers=challenge)
    ladder.callee.expects("BYE")
    return ladder


def _played(kind: type[Ladder], play: Callable[[Ladder], None]) -> Ladder:
    ladder = kind()
    play(ladder)
    return ladder


def _call_of_the_maximum_duration() -> Ladder:
    ladder = Ladder(max_call_s=60.0)
    connect(ladder)
    return ladder


def _call_without_a_refresh() -> Ladder:
    ladder = Ladder()
    connect(ladder, headers_of_answer="Session-Expires: 90;refresher=uac\r\n")
    return ladder


def _call_without_the_callers_ack() -> Ladder:
    ladder = Ladder()
    connect(ladder, acknowledge=False)
    return ladder


def _answer_that_crosses_the_cancel() -> Ladder:
    ladder = Ladder()
    ring(ladder)
    ladder.caller.gives_up()
    ladder.callee.answers(200, body=ANSWER)
    return ladder


def _answer_that_rtpengine_rejects() -> Ladder:
    ladder = AnchoredLadder()
    call(ladder)
    ladder.rtpengine.works = False
    ladder.callee.answers(200, body=ANSWER)
    return ladder


def _refusal_that_is_announced() -> Ladder:
    ladder = AnchoredLadder(routes={}, announcements=Announcements(refused=True))
    ladder.caller.calls(X)
    ladder.caller.get(183)
    return ladder


def _recorded_call_without_an_answer() -> Ladder:
    recorded = {way: route._replace(record=True) for way, route in AXB.items() if isinstance(route, Route)}
    ladder = AnchoredLadder(routes=recorded, recording=True, ring_timeout_s=60.0)
    ring(ladder)
    return ladder


def _reinvite_that_meets_another() -> Ladder:
    ladder = Ladder()
    connect(ladder)
    ladder.caller.sends("INVITE", headers=f"Contact: {ladder.caller.contact}\r\n", body=OFFER)
    ladder.callee.get("INVITE")
    ladder.callee.sends("INVITE", headers=f"Contact: {ladder.callee.contact}\r\n", body=OFFER)
    ladder.callee.get(100)
    ladder.callee.get(491)
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    return ladder


def _call_whose_offer_no_target_may_have() -> Ladder:
    ladder = Ladder()
    ladder.caller.invites(X, body=b"v=0\r\nnot SDP\r\n")
    ladder.caller.get(488)
    return ladder


@pytest.mark.parametrize(
    "play",
    [
        _reinvite_that_meets_another,
        _call_whose_offer_no_target_may_have,
        _message_that_the_second_target_takes,
        _message_that_is_refused,
        _call_that_is_challenged,
        _call_of_the_maximum_duration,
        _call_without_a_refresh,
        _call_without_the_callers_ack,
        _answer_that_crosses_the_cancel,
        _answer_that_rtpengine_rejects,
        _refusal_that_is_announced,
        _recorded_call_without_an_answer,
        *(
            pytest.param(partial(_played, kind, play), id=f"{kind.__name__}{play.__name__}")
            for kind in (Ladder, AnchoredLadder)
            for play in (
                *(_call_that_is_hung_up, _call_with_a_refused_reinvite, _call_that_is_cancelled),
                *(_call_that_is_busy, _refused_call),
            )
        ),
    ],
)
def test_ended_requests_are_freed_by_reference_counting(play: Callable[[], Ladder]) -> None:
    play().run(300)
    gc.collect()  # what the first call made for good
    gc.disable()
    try:
        ladder = play()
        ladder.run(300)
        ours = [thing for thing in _unreachable() if type(thing).__module__.startswith("relay.")]
    finally:
        gc.enable()
    assert ours == []


def test_lingering_transactions_keep_no_message_of_a_call() -> None:
    """Transactions linger for 32 s (timers J, L, M of RFC 3261), and would keep a call's messages in memory."""
    ladder = Ladder()
    _call_that_is_hung_up(ladder)
    ladder.run(3)
    gc.collect()
    assert ladder.engine.statistics()["transactions"]
    assert [thing for thing in gc.get_objects() if isinstance(thing, Reply | ClientRequest | OutgoingRequest)] == []


def _unreachable() -> list[object]:
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return list(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
