"""A leg: destination of its requests, 2xx and ACK, BYE, reliable responses."""

from __future__ import annotations

import pytest

from relay.call.call import Call
from relay.call.leg import Leg
from relay.model.actions import Send
from relay.privacy.leak_check import Leak, LeakCheck
from relay.privacy.messages import Reply
from relay.privacy.sdp import SdpWriter, session_id
from relay.sip.dialog import Dialog
from relay.sip.message import Flow, Request, Response, parse_message
from tests.call.support import FLOW, Parts, invite, peer


class Pair:
    """Two legs of a call without transactions."""

    def __init__(self, *, contact: str = "<sip:a@192.0.2.11>", flow: Flow = FLOW, also: str = "192.0.2.12") -> None:
        """`also`: another address of the peer."""
        pbx = peer("pbx", "192.0.2.11", "192.0.2.11", also)
        self.parts: Parts = Parts(peers=(pbx,), routes=())
        self.invite = invite(f"Contact: {contact}", "Supported: 100rel")
        call = Call(
            self.parts.calls,
            pbx,
            flow,
            caller="8613800000001",
            dialled="700100000010001",
            invite_key=("a@192.0.2.11", "a", 7),
            received_at=0,
        )
        self.caller = self._leg(call, "caller", flow)
        self.callee = self._leg(call, "callee", flow)
        self.caller.other, self.callee.other = self.callee, self.caller
        self.reply = Reply(self.invite, flow)

    def _leg(self, call: Call, side: str, flow: Flow) -> Leg:
        dialog = Dialog.as_uas(self.invite, self.parts.token())
        dialog.confirmed = True
        writer = SdpWriter(session_id(self.parts.token()))
        pbx, legs = call.caller_peer, self.parts.dialogs.legs
        return Leg(self.parts.ua, legs, call, side, dialog, pbx, flow, "700100000010001", writer)  # type: ignore[arg-type]

    def take(self) -> list[Request | Response]:
        return [parse_message(action.data) for action in self.parts.outbox.take_actions() if isinstance(action, Send)]

    def ack(self, number: int) -> Request:
        return invite(f"CSeq: {number} ACK", method="ACK")


@pytest.mark.parametrize(
    ("contact", "goes"),
    [
        ("<sip:a@192.0.2.11>", Flow(0, "udp", "192.0.2.11", 5060)),
        ("<sip:a@192.0.2.11:5099>", Flow(0, "udp", "192.0.2.11", 5099)),
        ("<sip:a@192.0.2.11;transport=TCP>", Flow(1, "tcp", "192.0.2.11", 5060)),
        ("<sip:a@192.0.2.11;transport=sctp>", FLOW),
        ("<sips:a@192.0.2.11>", FLOW),
        ("<sip:a@192.0.2.99>", FLOW),
        ("<sip:a@[2001:db8::6]>", FLOW),
        ("<sip:a@192.0.2.12>", Flow(0, "udp", "192.0.2.12", 5060)),
        ("<sip:a@pbx.example>", FLOW),
    ],
)
def test_requests_go_to_the_next_hop(contact: str, goes: Flow) -> None:
    assert Pair(contact=contact).caller.destination() == goes


@pytest.mark.parametrize(
    ("flow", "goes"),
    [
        (FLOW, Flow(2, "udp", "2001:db8::6", 5060)),
        (Flow(1, "tcp", "192.0.2.11", 40123, 7), Flow(1, "tcp", "192.0.2.11", 40123, 7)),  # no listener has it
    ],
)
def test_next_hop_of_the_other_address_family_needs_another_listener(flow: Flow, goes: Flow) -> None:
    pair = Pair(contact="<sip:a@[2001:db8::6]>", flow=flow, also="2001:db8::/64")
    assert pair.caller.destination() == goes


@pytest.mark.parametrize(
    ("contact", "host", "connection"),
    [
        ("<sip:a@192.0.2.11:5099;transport=tcp>", "192.0.2.11", 7),
        ("<sip:a@192.0.2.11:5099>", "192.0.2.11", 7),
        ("<sip:a@192.0.2.12:5099>", "192.0.2.12", 0),
    ],
)
def test_leg_on_a_stream_keeps_its_connection_to_the_same_host(contact: str, host: str, connection: int) -> None:
    flow = Flow(1, "tcp", "192.0.2.11", 40123, 7)
    assert Pair(contact=contact, flow=flow).caller.destination() == Flow(1, "tcp", host, 5099, connection)


def test_new_contact_moves_the_target() -> None:
    pair = Pair()
    pair.caller.destination()
    pair.caller.retarget(invite("Contact: <sip:moved@192.0.2.11:5070>"), FLOW._replace(port=5071))
    assert pair.caller.destination().port == 5070
    assert pair.caller.flow.port == 5071
    pair.caller.retarget(invite(), Flow(1, "tcp", "192.0.2.11", 40123, 7))
    assert pair.caller.flow.transport == "udp"


def test_2xx_is_retransmitted_until_its_ack() -> None:
    pair = Pair()
    pair.caller.give_answer(7, pair.reply.write(200, to_tag="b"), FLOW, 0.0)
    times = []
    for tenths in range(100):
        pair.parts.timers.run(tenths / 10)
        times += [tenths / 10 for _ in pair.take()]
    assert times == [0.5, 1.5, 3.5, 7.5]
    pair.caller.receive_ack(pair.ack(6), 10.0)
    assert pair.caller.answer
    pair.caller.receive_ack(pair.ack(7), 10.0)
    assert not pair.caller.answer
    pair.parts.timers.run(100.0)
    assert pair.take() == []


def test_ack_is_repeated_unchanged() -> None:
    pair = Pair()
    assert not pair.callee.acknowledge_again()
    pair.callee.acknowledge(1)
    assert pair.callee.acknowledge_again()
    first, second = pair.take()
    assert first.serialize() == second.serialize()
    pair.callee.invite_again(2)
    assert not pair.callee.acknowledge_again()


def test_bye_waits_for_the_ack_to_our_2xx() -> None:
    pair = Pair()
    pair.caller.give_answer(7, b"", FLOW, 0.0)
    pair.caller.hang_up(0.1)
    assert pair.take() == []
    pair.caller.receive_ack(pair.ack(7), 0.2)
    (bye,) = pair.take()
    assert isinstance(bye, Request)
    assert bye.method == "BYE"


def test_bye_comes_after_our_ack() -> None:
    pair = Pair()
    pair.callee.ack_due = 1
    pair.callee.hang_up(0.1)
    assert [message.cseq.method for message in pair.take()] == ["ACK", "BYE"]


def test_bye_drops_a_reason_that_fails_the_leak_check() -> None:
    pair = Pair()
    pair.callee.leak_check = LeakCheck(("8613800000001",), ())
    pair.callee.hang_up(0.1, "Reason: 13800000001\r\n")
    (bye,) = pair.take()
    assert bye.get("reason") is None


def test_leak_raises_and_nothing_is_sent() -> None:
    pair = Pair()
    pair.callee.leak_check = LeakCheck(("8613800000001",), ())
    with pytest.raises(Leak) as leak:
        pair.callee.request("INFO", 2, extra="X: 13800000001\r\n")
    assert leak.value.side == "callee"
    assert "13800000001" not in str(leak.value)
    with pytest.raises(Leak):
        pair.callee.write(pair.reply, 200, extra="X: 13800000001\r\n")
    assert pair.take() == []


def test_ack_stays_due_after_a_leak() -> None:
    pair = Pair()
    pair.callee.leak_check = LeakCheck((), ("192.0.2.77",))
    pair.callee.ack_due = 1
    with pytest.raises(Leak):
        pair.callee.guard("192.0.2.77", None)
    pair.callee.acknowledge_due()
    assert pair.callee.ack_due is None


def test_forgotten_leg_is_not_found() -> None:
    pair = Pair()
    pair.caller.give_answer(7, b"", FLOW, 0.0)
    pair.caller.forget()
    pair.caller.forget()
    assert list(pair.parts.dialogs.legs.values()) == [pair.callee]
    assert len(pair.parts.timers) == 0
