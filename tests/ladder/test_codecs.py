"""A peer with a list of allowed codecs: offers and answers in both directions."""

from __future__ import annotations

import pytest

from tests.ladder.ladder import Ladder, answer, call, hang_up, restart
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, X, peer

HEAD = b"v=0\r\no=x 1 1 IN IP4 127.0.0.31\r\ns=-\r\nc=IN IP4 127.0.0.31\r\nt=0 0\r\n"
MANY = HEAD + b"m=audio 4000 RTP/AVP 0 8 9 101\r\na=rtpmap:101 telephone-event/8000\r\n"


def audio(payloads: str) -> bytes:
    return HEAD + f"m=audio 4000 RTP/AVP {payloads}\r\n".encode()


def allowing(pbx: str = "", carrier: str = "", second: str = "", tried: tuple[str, ...] = ("carrier",)) -> Ladder:
    return Ladder(
        tried=tried,
        peers=(
            peer("pbx", CALLER_HOST, codecs=frozenset(pbx.split()) or None),
            peer("carrier", CALLEE_HOST, codecs=frozenset(carrier.split()) or None),
            peer("second", "127.0.0.23", codecs=frozenset(second.split()) or None),
        ),
    )


def formats(body: bytes) -> list[str]:
    """Port and formats of the only stream."""
    (line,) = [line for line in body.decode().split("\r\n") if line.startswith("m=audio ")]
    _, port, _, *payloads = line.split()
    return [port, *payloads]


@pytest.mark.parametrize(
    ("pbx", "carrier", "offered"),
    [("", "pcma telephone-event", ["8", "101"]), ("pcmu pcma", "", ["0", "8"]), ("pcmu pcma", "pcma g722", ["8"])],
)
def test_offer_has_only_codecs_allowed_for_both_peers(pbx: str, carrier: str, offered: list[str]) -> None:
    ladder = allowing(pbx, carrier)
    invite = call(ladder, body=MANY)
    assert formats(invite.body) == ["4000", *offered]
    ladder.callee.accepts(body=audio(offered[0]))
    assert formats(ladder.caller.get_response(200).body) == ["4000", offered[0]]
    ladder.caller.acks()
    ladder.callee.reinvites(MANY)
    assert formats(ladder.caller.expects("INVITE", 200, body=audio("8")).body) == ["4000", *offered]
    ladder.caller.get("ACK")
    ladder.callee.is_answered()
    hang_up(ladder)


def test_call_without_a_common_codec_is_refused() -> None:
    ladder = allowing(carrier="g729")
    ladder.caller.calls(X, body=MANY)
    ladder.caller.is_refused(488)
    ladder.callee.gets_nothing()
    assert (ladder.record.sip_status, ladder.record.q850_cause, ladder.record.peer_out) == (488, 88, None)
    ladder.settle()


def test_peer_without_a_common_codec_is_not_the_one_called() -> None:
    """It gets no INVITE: the call is counted and recorded as one to the peer before it."""
    ladder = allowing(second="g729", tried=("carrier", "second"))
    invite = call(ladder, body=MANY)
    ladder.callee.refuses(503)
    ladder.caller.is_refused(488)
    assert (ladder.record.peer_out, ladder.record.callee_leg_call_id) == ("carrier", invite.call_id)
    assert ladder.engine.results()["calls_out"] == {"carrier failed": 1}
    ladder.settle()


def test_peer_without_a_common_codec_is_skipped() -> None:
    ladder = allowing(carrier="g729", tried=("carrier", "second"))
    second = ladder.side("127.0.0.23", "carol")
    ladder.caller.calls(X, body=MANY)
    ladder.callee.gets_nothing()
    second.get("INVITE")
    second.accepts(body=audio("8"))
    ladder.caller.is_answered()
    assert ladder.record.peer_out == "second"
    ladder.callee = second
    hang_up(ladder)


def test_answer_with_a_disallowed_codec_gets_ack_and_bye() -> None:
    ladder = allowing(carrier="pcma")
    call(ladder, body=MANY)
    ladder.callee.accepts(body=audio("0"))
    ladder.callee.expects("BYE")
    ladder.caller.is_refused(488)
    ladder.settle()


def test_codec_list_applies_after_a_restart() -> None:
    ladder = allowing(carrier="pcma")
    call(ladder, body=MANY)
    answer(ladder, audio("8"))
    restart(ladder)
    ladder.caller.reinvites(MANY)
    assert formats(ladder.callee.expects("INVITE", 200, body=audio("8")).body) == ["4000", "8"]
    ladder.callee.get("ACK")
    ladder.caller.is_answered()
    hang_up(ladder)
