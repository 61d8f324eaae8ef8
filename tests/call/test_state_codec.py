"""Encoding and decoding of a call's restart state."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.call.call import Call
from relay.call.leg import Leg
from relay.call.saved_state import DialogState
from relay.call.state_codec import (
    CSEQ_STEP,
    VERSION,
    dump_call,
    dump_dialog,
    head_of,
    load_call,
    load_dialog,
    load_leg,
)
from relay.errors import ProtocolError, StoreError
from relay.privacy.sdp import SdpWriter
from relay.sip.dialog import Dialog
from relay.sip.message import MAX_HEAD, Flow, Request, parse_message
from tests.call.support import FLOW, Parts, invite, peer
from tests.sip.test_dialog import CONTACT, LOOSE, STRICT, as_uas


def call(ground: Parts) -> Call:
    return Call(
        ground.calls, peer(), FLOW, caller="8613800000001", dialled="700", invite_key=("c", "a", 1), received_at=5
    )


def leg(ground: Parts, flow: Flow = FLOW, name: str = "pbx") -> Leg:
    found = ground.peers.by_name(name)
    assert found is not None
    dialog = Dialog.as_uas(invite(), "ours")
    made = Leg(ground.ua, ground.dialogs.legs, call(ground), "caller", dialog, found, flow, "700", SdpWriter(77, 5))
    made.dialog.local_cseq = 9
    made.own = ("8613800000001", "700")
    return made


def test_leg_is_restored() -> None:
    old, new = Parts(), Parts()
    data = dump_call(
        leg(old),
        leg(old, Flow(1, "tcp", "192.0.2.22", 40_000, 8), "carrier"),
        60.5,
        1800,
        ("business firm",),
        ("udp:127.0.0.1:2223", "a", "b", "en"),
        settled=("callee", b"offer", b"answer"),
        invite_cseq=7,
    )
    state = load_call(data)
    assert state.invite_cseq == 7
    assert (state.version, state.max_call_s, state.session_s) == (VERSION, 60.5, 1800)
    assert state.held == ["business firm"]
    assert state.media == ("udp:127.0.0.1:2223", "a", "b", "en")
    assert state.settled == ("callee", b"offer", b"answer")
    assert (state.caller.peer, state.callee.peer) == ("pbx", "carrier")
    pbx = new.peers.by_name("pbx")
    assert pbx is not None
    restored = call(new)
    back = load_leg(new.ua, new.dialogs.legs, restored, "callee", state.caller, pbx, FLOW, 60_000)
    assert back.dialog.request_head == leg(Parts()).dialog.request_head
    assert back.dialog.next_cseq() == 9 + CSEQ_STEP + 6000 + 1
    assert (back.side, back.peer, back.flow, back.shown) == ("callee", pbx, FLOW, "700")
    assert back.own == ("8613800000001", "700")
    assert (back.writer.session_id, back.writer.version) == (77, 5)
    assert new.dialogs.legs == {("ours", "a"): back}


def test_state_of_an_earlier_version_is_read() -> None:
    ground = Parts()
    media = ("one", "a", "b", "")
    data = dump_call(leg(ground), leg(ground), 1.0, 0, (), media, settled=("caller", b"offer", b"answer"))
    state = load_call(msgspec.msgpack.encode(msgspec.msgpack.decode(data)[:8]))
    assert (state.media, state.unacked_answer, state.settled, state.invite_cseq) == (media, None, None, 0)


def test_state_of_a_later_version_is_read_without_what_it_adds() -> None:
    ground = Parts()
    data = dump_call(leg(ground), leg(ground), 1.0, 0)
    assert load_call(msgspec.msgpack.encode([*msgspec.msgpack.decode(data), "more"])) == load_call(data)


def test_malformed_state_raises_store_error() -> None:
    ground = Parts()
    data = dump_call(leg(ground), leg(ground), 1.0, 0)
    other = msgspec.msgpack.encode([VERSION + 1, *msgspec.msgpack.decode(data)[1:]])
    for broken in (b"", data[:-1], b"\xc0", other):
        with pytest.raises(StoreError) as error:
            load_call(broken)
        assert "13800000001" not in str(error.value)


# -- a dialog

PACK = msgspec.msgpack.Encoder().encode
UNPACK = msgspec.msgpack.Decoder(DialogState).decode


@pytest.mark.parametrize("more", [CONTACT, CONTACT + LOOSE, CONTACT + STRICT])
def test_dialog_is_restored_unchanged_after_a_restart(more: str) -> None:
    dialog = as_uas(more)
    dialog.confirmed = True
    dialog.next_cseq()
    dialog.receive_cseq(30)
    again = load_dialog(UNPACK(PACK(dump_dialog(dialog))))
    assert dump_dialog(again) == dump_dialog(dialog)
    assert again.request_head == dialog.request_head
    assert again.request_uri == dialog.request_uri
    assert again.next_hop == dialog.next_hop
    assert again.next_cseq() == 2
    with pytest.raises(ProtocolError):
        again.receive_cseq(30)


@given(st.binary(min_size=1, max_size=12).filter(lambda raw: not set(raw) & set(b"\r\n\t \0") and raw.strip() == raw))
def test_any_bytes_of_a_call_id_survive_the_store(raw: bytes) -> None:
    text = raw.decode("utf-8", "surrogateescape")
    dialog = as_uas()
    dialog.call_id = text
    again = load_dialog(UNPACK(PACK(dump_dialog(dialog))))
    assert again.call_id == text
    assert again.request_head.encode("utf-8", "surrogateescape").endswith(b"Call-ID: " + raw + b"\r\n")


# -- the head of an attempt's request


def test_head_of_a_request_of_the_greatest_length_can_be_read() -> None:
    """It is no longer than the request, however short that one's header names are."""
    start = "INVITE sip:700100000010001@192.0.2.1 SIP/2.0\r\n"
    others = "f:<sip:a@h>;tag=a\r\nt:<sip:b@h>\r\ni:c\r\nCSeq:1 INVITE\r\n"
    via = f"v:SIP/2.0/UDP h;branch=z9hG4bK{'x' * 100}\r\n"
    head = start + others + via * ((MAX_HEAD - len(start + others)) // len(via))
    head += f"v:{'x' * (MAX_HEAD - len(head) - 2)}"
    request = parse_message(f"{head}\r\n\r\n".encode())
    assert isinstance(request, Request)
    kept = parse_message(head_of(request))
    assert isinstance(kept, Request)
    assert kept.get_all("via") == request.get_all("via")
    assert (kept.uri, kept.call_id, kept.from_tag, kept.cseq) == (request.uri, "c", "a", request.cseq)
