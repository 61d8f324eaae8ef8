"""Shedding of late calls by a 503 that contains only the sender's own headers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.call.engine import Engine
from relay.call.invite_session import TRYING_S
from relay.defence.shedding import BURST_LAG_S, MOST_REMEMBERED, REMEMBERED_S, TOLD_EVERY_S, Rank
from relay.model.actions import Action, Commit, LookUp, Note, Send, SendAll
from relay.sip.message import Flow, Request, Response, parse_message
from tests.call.support import FLOW, Parts, invite, settings
from tests.sip.spelled import messages

STRANGER = Flow(0, "udp", "198.51.100.1", 5060)
LATE_S, EARLY_S = 0.3, 0.05
INVITE = invite().serialize()


def engine(**limits: int) -> Engine:
    made = settings()
    return Engine(replace(made, limits=replace(made.limits, **limits)), Parts().token, 1000.0)


def of_call(call_id: str, method: str = "INVITE", *lines: str) -> bytes:
    usual = (f"Via: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bK{call_id};rport", f"Call-ID: {call_id}")
    return invite(*usual, *lines, method=method).serialize()


def receive_new(made: Engine, data: bytes, flow: Flow, waited_s: float, now: float, *, lasts: bool) -> None:
    """Serve a message that has waited, as the driver does."""
    if not made.sheds(data, flow, waited_s, now, lasts=lasts):
        made.receive(data, flow, now)


def bring(made: Engine, data: bytes, flow: Flow = FLOW, *, waited_s: float = EARLY_S, now: float) -> None:
    """Receive and serve at `now`, as the driver does."""
    if made.sort(data, flow, 0.0, now - waited_s, lasts=True) is not None:
        receive_new(made, data, flow, waited_s, now, lasts=True)


def shed(made: Engine, data: bytes, flow: Flow = FLOW, *, waited_s: float = LATE_S, now: float = 1.0) -> Response:
    """The single 503, sent on arrival or after the wait."""
    bring(made, data, flow, waited_s=waited_s, now=now)
    (answer,) = made.take_actions()
    assert isinstance(answer, SendAll)
    assert answer.flow == flow
    (message,) = answer.messages
    response = parse_message(message)
    assert isinstance(response, Response)
    assert response.status == 503
    return response


def is_served(actions: list[Action]) -> bool:
    """Whether an attempt was begun: looked up, or refused with a record."""
    return any(isinstance(action, LookUp | Commit) for action in actions)


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
def test_late_request_gets_a_503_and_leaves_no_state(method: str) -> None:
    made = engine()
    request = parse_message(of_call("a", method))
    response = shed(made, of_call("a", method))
    assert response.get("retry-after") == "1"
    for name in ("from", "call-id", "cseq"):  # RFC 3261 8.2.6.2
        assert response.get(name) == request.get(name)
    assert response.get("via") == "SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKa;rport=5060;received=192.0.2.11"
    assert response.get("to") == f"{request.get('to')};tag={response.to_tag}"
    assert response.body == b""
    assert {name for name, _ in response.headers} == {
        *("via", "from", "to", "call-id", "cseq", "retry-after", "content-length")
    }
    statistics = made.statistics()
    assert [statistics[name] for name in ("transactions", "attempts", "pending_lookups")] == [0, 0, 0]
    assert made.refusals() == {}
    assert made.shed() == {"pbx": 1}


def test_request_in_time_is_served() -> None:
    made = engine()
    receive_new(made, INVITE, FLOW, EARLY_S, 1.0, lasts=True)
    assert is_served(made.take_actions())
    assert made.shed() == {}


def test_burst_may_wait_until_just_before_retransmission() -> None:
    made = engine()
    assert made.sort(of_call("a"), FLOW, BURST_LAG_S, 1.0, lasts=False) is Rank.NEW
    receive_new(made, of_call("a"), FLOW, BURST_LAG_S, 1.0, lasts=False)
    assert is_served(made.take_actions())
    assert made.sort(of_call("b"), FLOW, BURST_LAG_S + 0.01, 1.0, lasts=False) is None
    receive_new(made, of_call("c"), FLOW, BURST_LAG_S + 0.01, 1.0, lasts=False)
    assert made.shed() == {"pbx": 2}


def test_request_over_the_transaction_limit_is_shed_and_stays_so() -> None:
    made = engine(max_transactions=1)
    made.receive(of_call("a"), FLOW, 1.0)
    assert is_served(made.take_actions())
    made.receive(of_call("b"), FLOW, 1.0)
    (answer,) = made.take_actions()
    assert isinstance(answer, SendAll)
    made.reload(replace(made.settings, limits=replace(made.settings.limits, max_transactions=9)), {}, 1.0)
    made.take_actions()
    made.receive(of_call("b"), FLOW, 1.5)
    (again,) = made.take_actions()
    assert isinstance(again, SendAll)
    assert again.messages == answer.messages
    made.receive(of_call("c"), FLOW, 1.5)
    assert is_served(made.take_actions())
    made.receive(of_call("b"), FLOW, 1.0 + 3 * REMEMBERED_S)
    assert is_served(made.take_actions())
    assert made.shed() == {"pbx": 2}


def test_no_shedding_when_the_limit_is_0() -> None:
    made = engine(shed_lag_ms=0)
    receive_new(made, INVITE, FLOW, 100.0, 1.0, lasts=True)
    assert is_served(made.take_actions())


def test_retransmission_gets_the_same_503_after_the_overload() -> None:
    made = engine()
    first = shed(made, INVITE)
    assert shed(made, INVITE, waited_s=EARLY_S, now=1.5).to_tag == first.to_tag
    bring(made, of_call("other"), now=1.5)
    assert is_served(made.take_actions())


def test_earlier_copy_of_a_shed_request_gets_the_same_503() -> None:
    made = engine()
    first = shed(made, INVITE, now=1.0)
    receive_new(made, INVITE, FLOW, EARLY_S, 1.0 + EARLY_S / 2, lasts=True)
    (answer,) = made.take_actions()
    assert isinstance(answer, SendAll)
    again = parse_message(answer.messages[0])
    assert isinstance(again, Response)
    assert again.to_tag == first.to_tag


def test_unusual_syntax_gets_the_same_503() -> None:
    made = engine()
    data = INVITE.replace(b"Via: ", b"v: ")
    first = shed(made, data)
    assert shed(made, data, waited_s=EARLY_S, now=1.5).to_tag == first.to_tag


@pytest.mark.parametrize(
    "via",
    [
        "SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKb;rport",
        "SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKb",
        "SIP/2.0/UDP 192.0.2.11:5061;branch=z9hG4bKb;rport",
        "SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKb;rport;x=y",
        "SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKb;x=y;rport",
        "SIP/2.0/UDP 192.0.2.11:5060;branch=;rport",
        "SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bK;rport",
        "SIP/2.0/UDP 192.0.2.11:5060;branch=",
        "SIP/2.0/UDP 192.0.2.11:5060",
    ],
)
def test_each_via_is_copied_whatever_is_cached(via: str) -> None:
    for behind in (";rport", "", ";branch="):
        last = f"SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bKa{behind}"
        vias = []
        for made in (engine(), engine()):
            if not vias:
                shed(made, invite(f"Via: {last}").serialize())
            made.sort(invite(f"Via: {via}", "Call-ID: b").serialize(), FLOW, LATE_S, 1.0, lasts=True)
            (answer,) = made.take_actions()
            assert isinstance(answer, SendAll)
            vias.append((parse_message(answer.messages[0]).values("via"), answer.flow))
        assert vias[0] == vias[1]


def test_second_attempt_of_a_caller_is_another_call() -> None:
    made = engine()
    shed(made, of_call("a"))
    again = of_call("a", "INVITE", "CSeq: 8 INVITE").replace(b"z9hG4bKa", b"z9hG4bKb")
    bring(made, again, now=2.0)
    assert is_served(made.take_actions())


def test_memory_of_shed_requests_expires_and_is_bounded() -> None:
    made = engine()
    shed(made, of_call("a"))
    for number in range(2 * MOST_REMEMBERED + 2):
        receive_new(made, of_call("b").replace(b"Call-ID: b", b"Call-ID: %d" % number), FLOW, LATE_S, 1.0, lasts=True)
    made.take_actions()
    bring(made, of_call("a"), now=1.0)
    assert is_served(made.take_actions())
    shed(made, of_call("c"), now=1.0)
    shed(made, of_call("d"), now=20.0)
    shed(made, of_call("e"), now=40.0)
    bring(made, of_call("c"), now=40.0)
    assert is_served(made.take_actions())


@pytest.mark.parametrize("spelling", [b"Via: ", b"v: "])
def test_call_being_served_is_not_shed(spelling: bytes) -> None:
    made = engine()
    data = INVITE.replace(b"Via: ", spelling)
    made.receive(data, FLOW, 1.0)
    made.expire(1.0 + TRYING_S)
    (*_, trying) = made.take_actions()
    receive_new(made, data, FLOW, LATE_S, 1.5, lasts=True)
    (again,) = made.take_actions()
    assert isinstance(trying, Send)
    assert isinstance(again, Send)
    assert again.data == trying.data
    assert made.shed() == {}


def test_ack_to_the_503_is_absorbed_and_others_are_not() -> None:
    made = engine()
    response = shed(made, of_call("a"))
    ack = of_call("a", "ACK", f"To: {response.get('to')}", "CSeq: 7 ACK")
    assert made.sort(ack, FLOW, 0.0, 1.0, lasts=True) is None
    other = ack.replace((response.to_tag or "").encode(), b"0123456789abcdef")
    assert made.sort(other, FLOW, 0.0, 1.0, lasts=True) is Rank.INSIDE
    assert made.sort(ack.replace(b"ACK", b"BYE"), FLOW, 0.0, 1.0, lasts=True) is Rank.INSIDE
    made.receive(ack, FLOW, 1.0)  # harmless if not distinguished
    assert made.take_actions() == []


@given(st.binary(max_size=60), st.integers(0, len(INVITE)), st.integers(0, len(INVITE)))
def test_arbitrary_bytes_do_not_raise(noise: bytes, start: int, end: int) -> None:
    made = engine()
    for data in (noise, b"ACK " + noise, INVITE[:start] + noise + INVITE[end:], b"ACK" + INVITE[6:start] + noise):
        assert made.sort(data, FLOW, LATE_S, 1.0, lasts=True) in (None, *Rank)
        receive_new(made, data, FLOW, LATE_S, 1.0, lasts=True)


def test_late_call_of_an_unknown_source_is_dropped() -> None:
    made = engine()
    receive_new(made, INVITE, STRANGER, LATE_S, 1.0, lasts=True)
    assert made.take_actions() == []
    assert made.statistics()["strangers"] == 1
    assert made.shed() == {}


@pytest.mark.parametrize(
    ("data", "rank", "strangers"),
    [
        (INVITE, Rank.NEW, Rank.STRANGER),
        (b"\r\n\r\n" + INVITE, Rank.NEW, Rank.STRANGER),
        (invite(method="MESSAGE").serialize(), Rank.NEW, Rank.STRANGER),
        (invite(method="CANCEL").serialize(), Rank.NEW, Rank.STRANGER),  # it must not overtake its INVITE
        (invite("Require: x", method="OPTIONS").serialize(), Rank.INSIDE, Rank.STRANGER),
        (invite(method="REGISTER").serialize(), Rank.INSIDE, Rank.STRANGER),
        (invite("To: <sip:b@h>;tag=b").serialize(), Rank.INSIDE, Rank.INSIDE),
        (invite("To: <sip:b@h>;tag=b", method="BYE").serialize(), Rank.INSIDE, Rank.INSIDE),
        (b"SIP/2.0 200 OK\r\nTo: <sip:b@h>\r\n\r\n", Rank.INSIDE, Rank.INSIDE),
    ],
)
def test_messages_are_ranked(data: bytes, rank: Rank, strangers: Rank) -> None:
    made = engine()
    assert made.sort(data, FLOW, 0.0, 1.0, lasts=True) is rank
    assert made.sort(data, STRANGER, 0.0, 1.0, lasts=True) is strangers


def test_request_that_would_be_late_is_shed_on_arrival() -> None:
    made = engine()
    assert made.sort(of_call("a"), FLOW, EARLY_S, 1.0, lasts=True) is Rank.NEW
    assert made.sort(of_call("b"), FLOW, LATE_S, 1.0, lasts=True) is None
    (answer,) = made.take_actions()
    assert isinstance(answer, SendAll)
    assert answer.messages[0].startswith(b"SIP/2.0 503 ")
    assert made.sort(invite(method="CANCEL").serialize(), FLOW, LATE_S, 1.0, lasts=True) is Rank.NEW
    assert made.sort(of_call("c"), STRANGER, LATE_S, 1.0, lasts=True) is None
    assert made.take_actions() == []
    made.receive(INVITE, FLOW, 1.0)
    assert made.sort(INVITE, FLOW, LATE_S, 1.0, lasts=True) is Rank.NEW  # being served


def test_cancel_is_never_shed() -> None:
    made = engine()
    made.receive(INVITE, FLOW, 1.0)
    made.take_actions()
    receive_new(made, invite(method="CANCEL").serialize(), FLOW, LATE_S, 1.0, lasts=True)
    answers = [action.data for action in made.take_actions() if isinstance(action, Send)]
    assert answers[0].startswith(b"SIP/2.0 200 ")


def test_malformed_request_is_answered_as_always() -> None:
    made = engine()
    receive_new(
        made,
        INVITE.replace(b"Via: ", b"v: ").replace(b"Max-Forwards: 70", b"Max-Forwards 70"),
        FLOW,
        1.0,
        1.0,
        lasts=True,
    )
    (answer, _) = [action for action in made.take_actions() if isinstance(action, Send | Note)][::-1]
    assert isinstance(answer, Send)
    assert answer.data.startswith(b"SIP/2.0 400 ")


def test_shed_requests_are_logged_in_sums() -> None:
    made = engine()
    for number in range(3):
        shed(made, of_call(str(number)), now=1.0 + number)
    made.expire(1.0 + TOLD_EVERY_S)
    assert made.take_actions() == [Note("overload.shed", {"count": 3, "peers": {"pbx": 3}, "within_s": TOLD_EVERY_S})]
    shed(made, of_call("later"), now=30.0)
    made.expire(30.0 + TOLD_EVERY_S)
    (note,) = made.take_actions()
    assert isinstance(note, Note)
    assert note.fields["count"] == 1
    assert made.next_timeout() is None


def test_to_tag_of_the_503_is_the_stateless_tag() -> None:
    tag = shed(engine(), INVITE).to_tag
    assert tag is not None
    assert len(tag) == 16
    assert set(tag) <= set("0123456789abcdef")
    assert tag[0] == Parts().token()[0]


@given(st.data(), st.sampled_from([FLOW, FLOW._replace(port=6060), FLOW._replace(host="2001:db8::6")]))
def test_fast_refusal_equals_that_of_the_full_parse(data: st.DataObject, flow: Flow) -> None:
    message = data.draw(messages("INVITE sip:b@h SIP/2.0", "z9hG4bKa", ""))
    shedding = engine()._shedding
    quick, full = shedding._usual(message, flow), shedding._any(message, flow)
    if quick is None or full is None:
        return
    assert (quick.key, quick.flow) == (full.key, full.flow)
    one, other = parse_message(quick.data), parse_message(full.data)
    assert one.headers == other.headers


@pytest.mark.parametrize("parameters", [";branch=z9hG4bKa", ";branch=z9hG4bKa;rport", ";rport;branch=z9hG4bKa;x=y"])
def test_usual_requests_are_refused_by_the_fast_path(parameters: str) -> None:
    made = engine()
    data = invite(f"Via: SIP/2.0/UDP 192.0.2.99:5070{parameters}").serialize()
    quick, full = made._shedding._usual(data, FLOW), made._shedding._any(data, FLOW)
    assert quick is not None
    assert full is not None
    assert (quick.key, quick.data, quick.flow) == (full.key, full.data, full.flow)
    assert isinstance(parse_message(data), Request)
