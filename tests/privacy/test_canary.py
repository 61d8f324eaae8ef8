"""The canary itself."""

from __future__ import annotations

from relay.privacy.canary import insert_marks, marked_headers, stuff_plainly
from tests.canary.marks import ALICE, BOB
from tests.ladder.descriptions import OFFER


def test_marks_are_seen_where_they_are() -> None:
    """The canary itself: a stuffed message holds every mark of its sender and none of the other's."""
    for data in (
        b"INVITE sip:x@y SIP/2.0\r\nContent-Type: application/sdp\r\n\r\n" + OFFER,
        b"SIP/2.0 200 OK\r\nVia: x\r\n\r\n",
    ):
        stuffed = insert_marks(data, ALICE)
        assert {ALICE.word, ALICE.friend, ALICE.host, ALICE.inner, ALICE.cell} <= set(ALICE.found_in(stuffed))
        assert not BOB.found_in(stuffed.replace(b"138-0000-0001", b""))
    for number in ALICE.notations():
        assert ALICE.friend in ALICE.found_in(f"a=x:{number}\r\n".encode())
    assert len(marked_headers(ALICE, request=True)) > 140


def test_a_response_that_a_carrier_must_pass_on_has_marks_too() -> None:
    head = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa\r\nContent-Type: application/sdp\r\n\r\n"
    stuffed = stuff_plainly(head + OFFER, BOB)
    assert {BOB.word, BOB.friend, BOB.host, BOB.inner, BOB.cell} <= set(BOB.found_in(stuffed))
    head, _, body = stuffed.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert {BOB.word, BOB.friend, BOB.host, BOB.inner} <= set(BOB.found_in(body))
