"""Masking of captured messages: valid SIP without what tells who wrote it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.privacy.canary import insert_marks
from relay.privacy.capture_mask import HIDDEN, CaptureMask, wire
from relay.privacy.captured import lines_of, shown_name
from relay.sip.message import parse_message
from relay.sip.sdp import parse_sdp
from tests.canary.marks import ALICE, BOB
from tests.ladder.descriptions import OFFER

HEAD = (
    "INVITE sip:700100000010001@192.0.2.99:5060;transport=TCP SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 127.0.0.11:5060;branch=z9hG4bKalice;rport\r\n"
    'From: "Alice" <sip:13800000001@127.0.0.11>;tag=abc\r\nTo: <sip:700100000010001@192.0.2.99>\r\n'
    "Call-ID: alice@127.0.0.11\r\nCSeq: 1380000000 INVITE\r\n"
)


def masked(data: bytes, mask: CaptureMask | None = None) -> bytes:
    lines = lines_of(data)
    return wire(lines, (mask or CaptureMask()).masked(lines, "caller", sent=False))


def header(text: str) -> str:
    """The masked form of one more header."""
    data = masked(f"{HEAD}{text}\r\n\r\n".encode())
    return data.decode().split("\r\n")[6]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Max-Forwards: 70", "Max-Forwards: 70"),
        ("Supported: timer, alice, 100rel", "Supported: timer, 100rel"),
        ("k: alice", f"Supported: {HIDDEN}"),
        ("Session-Expires: 1800;refresher=uac;x=1", "Session-Expires: 1800;refresher=uac"),
        ("Session-Expires: 13800000001", f"Session-Expires: {HIDDEN}"),
        ('Reason: Q.850;cause=16;text="Alice"', "Reason: Q.850;cause=16"),
        ("Reason: Alice;cause=16", f"Reason: {HIDDEN}"),
        ("Contact: <sip:alice@10.0.0.1:5070;x=1>;expires=60", "Contact: <sip:***@192.0.2.2:5070>"),
        ("Contact: *", "Contact: *"),
        ("P-Asserted-Identity: <tel:+8613800000001>", "P-Asserted-Identity: <tel:138****0001>"),
        ("Route: <sip:alice.example;lr>", "Route: <sip:192.0.2.2;lr>"),
        ("User-Agent: Alice/1.0", f"User-Agent: {HIDDEN}"),
        ("X-Alice: 1", f"X-Masked: {HIDDEN}"),
        ("RAck: 776655 1380000000 INVITE", "RAck: 1 1 INVITE"),
        ("no header", f"X-Masked: {HIDDEN}"),
        ("Content-Type: application/vnd.alice", "Content-Type: application/x-masked"),
    ],
)
def test_header(line: str, shown: str) -> None:
    assert header(line) == shown


def test_stand_ins_are_the_same_for_the_same_value() -> None:
    mask = CaptureMask()
    first = parse_message(masked(f"{HEAD}\r\n".encode(), mask))
    again = parse_message(masked(f"{HEAD.replace('z9hG4bKalice', 'z9hG4bKbob')}\r\n".encode(), mask))
    assert (first.call_id, first.from_tag, first.via.host) == (again.call_id, again.from_tag, again.via.host)
    assert first.branch != again.branch
    assert mask.know("127.0.0.11:5060", "caller") == "192.0.2.1:5060"
    assert mask.know("[2001:db8:9::9]:5060", "callee") == "[2001:db8:2::1]:5060"


def test_numbers_to_be_shown_are_shown() -> None:
    text = masked(f"{HEAD}\r\n".encode(), CaptureMask({"8613800000001", "700100000010001"})).decode()
    assert "INVITE sip:700100000010001@" in text
    assert "<sip:8613800000001@" in text


def test_masked_description_is_valid_and_has_codecs_and_directions() -> None:
    data = f"{HEAD}Content-Type: application/sdp\r\nContent-Length: 0{len(OFFER)}\r\n\r\n".encode() + OFFER
    message = parse_message(masked(data))
    assert message.get("content-length") == str(len(message.body))
    sdp = parse_sdp(message.body)
    assert sdp.media[0].formats == ["8", "0"]
    assert ("rtpmap", "8 PCMA/8000") in sdp.media[0].attributes
    assert sdp.connection is not None
    assert sdp.connection.address == "192.0.2.2"


@pytest.mark.parametrize("multipart", [False, True])
def test_marked_message_shows_no_mark_and_is_valid(multipart: bool) -> None:
    head = HEAD.replace("Call-ID: alice", f"Call-ID: {ALICE.word}")
    data = f"{head}Content-Type: application/sdp\r\nContent-Length: {len(OFFER)}\r\n\r\n".encode() + OFFER
    stuffed = insert_marks(data, ALICE, multipart=multipart)
    assert ALICE.found_in(stuffed)
    shown = masked(stuffed)
    assert not ALICE.found_in(shown), shown.decode()
    assert len(parse_message(shown).body) > 500
    names = "".join(shown_name(line) for line in lines_of(stuffed)).encode()
    assert not ALICE.found_in(names)


@given(st.binary(max_size=200), st.integers(0, len(HEAD)))
def test_any_bytes_are_masked(noise: bytes, place: int) -> None:
    data = HEAD.encode()
    shown = masked(data[:place] + noise + data[place:])
    assert not BOB.found_in(shown)
    assert b"13800000001" not in shown
    assert b"alice" not in shown
