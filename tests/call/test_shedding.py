"""What becomes of new calls that have waited too long, and that nothing but their sender's own words goes back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.call.actions import Action, Commit, LookUp, Note, Send, SendAll
from relay.call.engine import Engine
from relay.call.setup import TRYING_S
from relay.call.shedding import BURST_LAG_S, MOST_REMEMBERED, REMEMBERED_S, TOLD_EVERY_S, Rank
from relay.sip.flow import Flow
from relay.sip.message import Request, Response, parse_message
from tests.call.support import FLOW, core, invite, settings
from tests.sip.spelled import messages

STRANGER = Flow(0, "udp", "198.51.100.1", 5060)
LATE_S, EARLY_S = 0.3, 0.05
INVITE = invite().serialize()


def engine(**limits: int) -> Engine:
    made = settings()
    return Engine(replace(made, limits=replace(made.limits, **limits)), core().token, 1000.0)


def of_call(call_id: str, method: str = "INVITE", *lines: str) -> bytes:
    usual = (f"Via: SIP/2.0/UDP 192.0.2.11:5060;branch=z9hG4bK{call_id};rport", f"Call-ID: {call_id}")
    return invite(*usual, *lines, method=method).serialize()


def bring(made: Engine, data: bytes, flow: Flow = FLOW, *, waited_s: float = EARLY_S, now: float) -> None:
    """As the driver does: it comes, and is served at `now`."""
    if made.sort(data, flow, 0.0, now - waited_s, lasts=True) is not None:
        made.receive_new(data, flow, waited_s, now, lasts=True)


def shed(made: Engine, data: bytes, flow: Flow = FLOW, *, waited_s: float = LATE_S, now: float = 1.0) -> Response:
    """The one answer to it, which it has when it comes or when it has waited."""
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
    """Whether an attempt was begun: it is looked up, or refused with a record."""
    return any(isinstance(action, LookUp | Commit) for action in actions)


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
def test_what_has_waited_too_long_gets_a_503_and_leaves_nothing(method: str) -> None:
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


def test_what_has_not_is_served() -> None:
    made = engine()
    made.receive_new(INVITE, FLOW, EARLY_S, 1.0, lasts=True)
    assert is_served(made.take_actions())
    assert made.shed() == {}


def test_what_comes_in_a_burst_may_wait_until_just_before_it_would_be_sent_again() -> None:
    made = engine()
    assert made.sort(of_call("a"), FLOW, BURST_LAG_S, 1.0, lasts=False) is Rank.NEW
    made.receive_new(of_call("a"), FLOW, BURST_LAG_S, 1.0, lasts=False)
    assert is_served(made.take_actions())
    assert made.sort(of_call("b"), FLOW, BURST_LAG_S + 0.01, 1.0, lasts=False) is None
    made.receive_new(of_call("c"), FLOW, BURST_LAG_S + 0.01, 1.0, lasts=False)
    assert made.shed() == {"pbx": 2}


def test_what_there_is_no_room_for_is_shed_and_stays_so() -> None:
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


def test_nothing_is_shed_where_the_limit_is_0() -> None:
    made = engine(shed_lag_ms=0)
    made.receive_new(INVITE, FLOW, 100.0, 1.0, lasts=True)
    assert is_served(made.take_actions())


def test_what_comes_again_has_the_same_answer_also_when_there_is_time_now() -> None:
    made = engine()
    first = shed(made, INVITE)
    assert shed(made, INVITE, waited_s=EARLY_S, now=1.5).to_tag == first.to_tag
    bring(made, of_call("other"), now=1.5)
    assert is_served(made.take_actions())


def test_what_came_before_the_same_was_shed_has_the_same_answer() -> None:
    made = engine()
    first = shed(made, INVITE, now=1.0)
    made.receive_new(INVITE, FLOW, EARLY_S, 1.0 + EARLY_S / 2, lasts=True)
    (answer,) = made.take_actions()
    assert isinstance(answer, SendAll)
    again = parse_message(answer.messages[0])
    assert isinstance(again, Response)
    assert again.to_tag == first.to_tag


def test_what_is_written_unusually_has_the_same_answer_too() -> None:
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
def test_each_via_is_answered_as_it_is_whatever_the_last_one_was(via: str) -> None:
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


def test_a_second_attempt_of_the_same_caller_is_another_call() -> None:
    made = engine()
    shed(made, of_call("a"))
    again = of_call("a", "INVITE", "CSeq: 8 INVITE").replace(b"z9hG4bKa", b"z9hG4bKb")
    bring(made, again, now=2.0)
    assert is_served(made.take_actions())


def test_those_that_were_shed_are_forgotten_in_time_and_bounded_in_number() -> None:
    made = engine()
    shed(made, of_call("a"))
    for number in range(2 * MOST_REMEMBERED + 2):
        made.receive_new(of_call("b").replace(b"Call-ID: b", b"Call-ID: %d" % number), FLOW, LATE_S, 1.0, lasts=True)
    made.take_actions()
    bring(made, of_call("a"), now=1.0)
    assert is_served(made.take_actions())
    shed(made, of_call("c"), now=1.0)
    shed(made, of_call("d"), now=20.0)
    shed(made, of_call("e"), now=40.0)
    bring(made, of_call("c"), now=40.0)
    assert is_served(made.take_actions())


@pytest.mark.parametrize("spelling", [b"Via: ", b"v: "])
def test_a_call_that_is_being_served_is_not_shed(spelling: bytes) -> None:
    made = engine()
    data = INVITE.replace(b"Via: ", spelling)
    made.receive(data, FLOW, 1.0)
    made.expire(1.0 + TRYING_S)
    (*_, trying) = made.take_actions()
    made.receive_new(data, FLOW, LATE_S, 1.5, lasts=True)
    (again,) = made.take_actions()
    assert isinstance(trying, Send)
    assert isinstance(again, Send)
    assert again.data == trying.data
    assert made.shed() == {}


def test_the_ack_to_the_503_is_done_with_and_others_are_not() -> None:
    made = engine()
    response = shed(made, of_call("a"))
    ack = of_call("a", "ACK", f"To: {response.get('to')}", "CSeq: 7 ACK")
    assert made.sort(ack, FLOW, 0.0, 1.0, lasts=True) is None
    other = ack.replace((response.to_tag or "").encode(), b"0123456789abcdef")
    assert made.sort(other, FLOW, 0.0, 1.0, lasts=True) is Rank.INSIDE
    assert made.sort(ack.replace(b"ACK", b"BYE"), FLOW, 0.0, 1.0, lasts=True) is Rank.INSIDE
    made.receive(ack, FLOW, 1.0)  # no harm where it is not told apart
    assert made.take_actions() == []


@given(st.binary(max_size=60), st.integers(0, len(INVITE)), st.integers(0, len(INVITE)))
def test_no_bytes_raise(noise: bytes, start: int, end: int) -> None:
    made = engine()
    for data in (noise, b"ACK " + noise, INVITE[:start] + noise + INVITE[end:], b"ACK" + INVITE[6:start] + noise):
        made.sort(data, FLOW, LATE_S, 1.0, lasts=True)
        made.receive_new(data, FLOW, LATE_S, 1.0, lasts=True)


def test_a_strangers_call_is_dropped() -> None:
    made = engine()
    made.receive_new(INVITE, STRANGER, LATE_S, 1.0, lasts=True)
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
def test_who_goes_first(data: bytes, rank: Rank, strangers: Rank) -> None:
    made = engine()
    assert made.sort(data, FLOW, 0.0, 1.0, lasts=True) is rank
    assert made.sort(data, STRANGER, 0.0, 1.0, lasts=True) is strangers


def test_what_would_be_late_is_shed_when_it_comes() -> None:
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
    assert made.sort(INVITE, FLOW, LATE_S, 1.0, lasts=True) is Rank.NEW  # it is being served


def test_a_cancel_is_never_shed() -> None:
    made = engine()
    made.receive(INVITE, FLOW, 1.0)
    made.take_actions()
    made.receive_new(invite(method="CANCEL").serialize(), FLOW, LATE_S, 1.0, lasts=True)
    answers = [action.data for action in made.take_actions() if isinstance(action, Send)]
    assert answers[0].startswith(b"SIP/2.0 200 ")


def test_what_is_malformed_is_answered_as_always() -> None:
    made = engine()
    made.receive_new(
        INVITE.replace(b"Via: ", b"v: ").replace(b"Max-Forwards: 70", b"Max-Forwards 70"), FLOW, 1.0, 1.0, lasts=True
    )
    (answer, _) = [action for action in made.take_actions() if isinstance(action, Send | Note)][::-1]
    assert isinstance(answer, Send)
    assert answer.data.startswith(b"SIP/2.0 400 ")


def test_the_log_says_every_few_seconds_how_many_there_were() -> None:
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


def test_the_tag_is_one_of_ours_so_that_the_ack_comes_to_this_worker() -> None:
    tag = shed(engine(), INVITE).to_tag
    assert tag is not None
    assert len(tag) == 16
    assert set(tag) <= set("0123456789abcdef")
    assert tag[0] == core().token()[0]


@given(st.data(), st.sampled_from([FLOW, FLOW._replace(port=6060), FLOW._replace(host="2001:db8::6")]))
def test_the_quick_refusal_is_that_of_a_full_look(data: st.DataObject, flow: Flow) -> None:
    message = data.draw(messages("INVITE sip:b@h SIP/2.0", "z9hG4bKa", ""))
    shedding = engine()._shedding
    quick, full = shedding._usual(message, flow), shedding._any(message, flow)
    if quick is None or full is None:
        return
    assert (quick.key, quick.flow) == (full.key, full.flow)
    one, other = parse_message(quick.data), parse_message(full.data)
    assert one.headers == other.headers


@pytest.mark.parametrize("parameters", [";branch=z9hG4bKa", ";branch=z9hG4bKa;rport", ";rport;branch=z9hG4bKa;x=y"])
def test_usual_requests_are_refused_by_the_quick_way(parameters: str) -> None:
    made = engine()
    data = invite(f"Via: SIP/2.0/UDP 192.0.2.99:5070{parameters}").serialize()
    quick, full = made._shedding._usual(data, FLOW), made._shedding._any(data, FLOW)
    assert quick is not None
    assert full is not None
    assert (quick.key, quick.data, quick.flow) == (full.key, full.data, full.flow)
    assert isinstance(parse_message(data), Request)
