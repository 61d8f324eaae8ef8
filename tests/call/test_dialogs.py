"""Which dialog a message belongs to, and who may speak in it."""

from __future__ import annotations

from relay.call.dialogs import is_heard, may_speak
from relay.call.leg import Leg
from relay.model.settings import Account, Peer
from relay.privacy.sdp import SdpWriter
from relay.sip.dialog import Dialog
from relay.sip.message import Flow
from tests.call.support import FLOW, Parts, invite, peer
from tests.call.test_open_record import call

ELSEWHERE = Flow(0, "udp", "192.0.2.22", 5060)


def leg(parts: Parts) -> Leg:
    dialog = Dialog.as_uas(invite(), "ours")
    return Leg(parts.ua, parts.dialogs.legs, call(parts), "caller", dialog, peer(), FLOW, "700", SdpWriter(1))


def test_leg_is_found_by_both_tags_and_call_id() -> None:
    parts = Parts()
    made = leg(parts)
    assert parts.dialogs.leg_of(invite("To: <sip:x@h>;tag=ours", method="BYE")) is made
    for other in (("To: <sip:x@h>;tag=theirs",), ("To: <sip:x@h>;tag=ours", "Call-ID: b")):
        assert parts.dialogs.leg_of(invite(*other, method="BYE")) is None
    made.forget()
    assert parts.dialogs.leg_of(invite("To: <sip:x@h>;tag=ours", method="BYE")) is None


def test_message_of_a_dialog_belongs_to_it() -> None:
    parts = Parts()
    leg(parts)
    assert parts.dialogs.may_belong(invite("To: <sip:x@h>;tag=ours", method="BYE").serialize())
    assert not parts.dialogs.may_belong(invite("To: <sip:x@h>;tag=theirs", method="BYE").serialize())
    assert parts.dialogs.may_belong(b"nonsense"), "in doubt"


def test_only_the_dialogs_own_peer_may_speak() -> None:
    made = leg(Parts())
    assert may_speak(made, peer(), ELSEWHERE)
    assert not may_speak(made, peer("carrier", "192.0.2.22"), ELSEWHERE)
    assert may_speak(made, peer("renamed"), FLOW), "from the sources of the former peer"


def test_former_peer_with_a_login_is_heard_where_it_was_last() -> None:
    phone = Peer("phone", (), tcp_allowed=False, sources=(), login=Account("1001", "secret"))
    assert is_heard(phone, FLOW.host, FLOW)
    assert not is_heard(phone, FLOW.host, ELSEWHERE)
