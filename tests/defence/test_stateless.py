"""OPTIONS of a peer: parsed within its limit; beyond it answered from the bytes, or dropped under load."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.call.engine import Engine
from relay.defence.limits import STRAYS_PER_S
from relay.defence.shedding import Rank
from relay.defence.stateless import MOST_BYTES
from relay.model.actions import Send, SendAll
from relay.sip.message import Response, parse_message
from tests.call.support import FLOW, Parts, invite, peer, settings

PLAIN = invite(method="OPTIONS").serialize()


def engine(**changes: object) -> Engine:
    return Engine(settings(**changes), Parts().token, 1000.0)


def answers(made: Engine) -> list[bytes]:
    return [action.data for action in made.take_actions() if isinstance(action, Send)]


def beyond_its_share(made: Engine) -> Engine:
    """An engine that answers the next one by the fast path."""
    for _ in range(STRAYS_PER_S):
        made._shares.count_stray("pbx", 1.0)
    return made


def parsed(made: Engine, data: bytes) -> list[bytes]:
    """The answer of the parser path: a blank before a colon avoids the fast path."""
    made.receive(data.replace(b"Call-ID:", b"Call-ID :"), FLOW, 1.0)
    return answers(made)


@pytest.mark.parametrize("sms", [False, True])
@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Via: SIP/2.0/UDP 192.0.2.11;branch=z9hG4bKb",),
        ("Via: SIP/2.0/UDP other:5070;branch=z9hG4bKb;rport;x=y",),
        ("Via: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKb;rport\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKc",),
        ("Max-Forwards: 0",),
    ],
)
@pytest.mark.parametrize("draining", [False, True])
def test_fast_path_answers_as_the_parser_path(lines: tuple[str, ...], sms: bool, draining: bool) -> None:
    made = engine(sms=sms)
    if draining:
        made.drain()
    data = invite(*lines, method="OPTIONS").serialize()
    expected = parsed(made, data)
    beyond_its_share(made).receive(data, FLOW, 1.0)
    (answer,) = answers(made)
    assert [answer] == expected
    response = parse_message(answer)
    assert isinstance(response, Response)
    assert response.status == (503 if draining else 200)
    assert made.statistics()["transactions"] == 0


def test_retransmission_gets_the_same_answer() -> None:
    made = engine()
    for _ in range(2):
        made.receive(PLAIN, FLOW, 1.0)
        beyond_its_share(made)
    first, second = answers(made)
    assert first == second


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (invite("Require: x", method="OPTIONS").serialize(), 420),
        (invite("rEquire: x", method="OPTIONS").serialize(), 420),
        (invite("CSeq: 7 INVITE", method="OPTIONS").serialize(), 400),
        (PLAIN.replace(b" SIP/2.0\r\n", b" SIP/3.0\r\n", 1), 505),
        (invite("Subject: " + "x" * MOST_BYTES, method="OPTIONS").serialize(), 200),
    ],
)
def test_unusual_options_is_parsed(data: bytes, status: int) -> None:
    made = beyond_its_share(engine())
    made.receive(data, FLOW, 1.0)
    (answer,) = answers(made)
    assert answer.startswith(b"SIP/2.0 %d " % status)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (PLAIN.replace(b"\r\nTo: <", b"\r\nTo: < "), 400),
        (PLAIN.replace(b"Max-Forwards", b"Content-Length: 0\r\nContent-Length: 1\r\nMax-Forwards"), 400),
        (b"OPTIONS unknown:x SIP/2.0\r\n" + PLAIN.partition(b"\r\n")[2], 416),
        (b"OPTIONS soap.beep://192.0.2.10 SIP/2.0\r\n" + PLAIN.partition(b"\r\n")[2], 416),
    ],
)
def test_malformed_options_is_refused_within_the_limit(data: bytes, status: int) -> None:
    """Only the parser detects it; it is not used over the limit or under load."""
    made = engine()
    made.receive(data, FLOW, 1.0)
    (answer,) = answers(made)
    assert answer.startswith(b"SIP/2.0 %d " % status)
    assert made._shares._strays == {"pbx": 1}
    beyond_its_share(made).receive(data, FLOW, 1.0)
    (answer,) = answers(made)
    assert answer.startswith(b"SIP/2.0 200 ")


def test_in_dialog_options_is_not_answered_by_the_fast_path() -> None:
    made = engine()
    data = invite("To: <sip:b@h>;tag=gone", method="OPTIONS").serialize()
    made.receive(data, FLOW, 1.0)
    (answer,) = answers(made)
    assert answer.startswith(b"SIP/2.0 481 ")
    beyond_its_share(made).receive(data, FLOW, 1.0)
    assert not answers(made), "there is no such dialog, so it is dropped as any other stray"


@pytest.mark.parametrize("host", ["198.51.100.1", "192.0.2.99"], ids=["nobody's", "a target that is no source"])
def test_options_of_an_unknown_source_is_not_answered_by_the_fast_path(host: str) -> None:
    other = peer("other", "192.0.2.99", "192.0.2.98/32")
    made = engine(peers=(*settings().peers, other))
    made.receive(PLAIN, FLOW._replace(host=host), 1.0)
    assert made.statistics()["strangers"] == 1
    assert [answer[:11] for answer in answers(made)] == [b"SIP/2.0 403"]
    assert made.name_on(FLOW._replace(host=host)) == ("other" if host == "192.0.2.99" else "")


def test_options_over_the_limit_is_dropped_only_under_load() -> None:
    made = engine()
    for _ in range(STRAYS_PER_S + 1):
        made.receive(PLAIN, FLOW, 1.0)
    assert len(answers(made)) == STRAYS_PER_S + 1
    assert made._shares._strays == {"pbx": STRAYS_PER_S + 1}, "each is counted once, parsed or not"
    assert made.over_share() == {"pbx": 1}
    assert made.sort(PLAIN, FLOW, 0.0, 1.0, lasts=True) is None
    assert made.take_actions() == []
    assert made.sort(PLAIN, FLOW, 0.0, 2.0, lasts=True) is None
    (together,) = made.take_actions()
    assert isinstance(together, SendAll)
    assert together.messages[0].startswith(b"SIP/2.0 200 ")


@given(st.binary(max_size=60), st.integers(0, len(PLAIN)), st.integers(0, len(PLAIN)))
def test_arbitrary_bytes_do_not_raise(noise: bytes, start: int, end: int) -> None:
    made = engine()
    for data in (b"OPTIONS " + noise, b"OPTIONS " + PLAIN[:start] + noise + PLAIN[end:], PLAIN[:start] + noise):
        made.receive(data, FLOW, 1.0)
        beyond_its_share(made).receive(data, FLOW, 1.0)
        assert made.sort(data, FLOW, 0.0, 1.0, lasts=True) in (None, *Rank)


def test_fast_path_is_not_for_the_forged_source_of_a_peer_of_tls() -> None:
    made = engine(peers=(replace(peer("pbx", FLOW.host, f"{FLOW.host}/32"), tls_only=True),), routes=())
    assert not made._options.take(PLAIN, FLOW, 1.0, is_behind=True)
    assert made._options.take(PLAIN, FLOW._replace(transport="tls"), 1.0, is_behind=True)
