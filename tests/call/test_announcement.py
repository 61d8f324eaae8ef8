"""The answer of an announcement to various offers."""

from __future__ import annotations

import pytest

from relay.call.announcement import answer_alone
from tests.ladder.descriptions import OFFER

HEAD = b"v=0\r\no=- 1 1 IN IP4 127.0.0.40\r\ns=-\r\nc=IN IP4 127.0.0.40\r\nt=0 0\r\n"


def answer(media: bytes, head: bytes = HEAD) -> list[str]:
    """The lines of the answer from the connection on."""
    made = answer_alone(head + media)
    assert made is not None
    lines = made.decode().splitlines()
    return [line for line in lines[lines.index("s=-") + 1 :] if line != "t=0 0"]


def test_first_playable_codec_is_chosen() -> None:
    offer = b"m=audio 4000 RTP/AVP 97 9 8\r\na=rtpmap:97 AMR/8000\r\na=rtpmap:9 G722/8000\r\na=fmtp:97 cmr=1\r\n"
    assert answer(offer) == ["c=IN IP4 127.0.0.1", "m=audio 9 RTP/AVP 9", "a=rtpmap:9 G722/8000", "a=sendrecv"]


def test_answer_has_the_attributes_of_the_codec() -> None:
    offer = b"m=audio 4000 RTP/AVP 111\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1\r\na=ptime:20\r\n"
    assert answer(offer)[2:] == ["a=rtpmap:111 opus/48000/2", "a=fmtp:111 useinbandfec=1", "a=sendrecv"]


def test_other_streams_are_refused_in_place() -> None:
    offer = b"m=video 4002 RTP/AVP 31\r\nm=audio 4000 RTP/AVP 0\r\nm=audio 4004 RTP/AVP 8\r\n"
    assert [line for line in answer(offer) if line[0] == "m"] == [
        "m=video 0 RTP/AVP 31",
        "m=audio 9 RTP/AVP 0",
        "m=audio 0 RTP/AVP 8",
    ]


def test_answer_has_the_offers_address_family() -> None:
    head = HEAD.replace(b"IP4 127.0.0.40", b"IP6 fd00::40")
    assert answer(b"m=audio 4000 RTP/AVP 8\r\n", head)[0] == "c=IN IP6 ::1"


def test_connection_may_be_in_the_stream_only() -> None:
    head = HEAD.replace(b"c=IN IP4 127.0.0.40\r\n", b"")
    assert answer(b"m=audio 4000 RTP/AVP 8\r\nc=IN IP6 fd00::1\r\n", head)[0] == "c=IN IP6 ::1"


@pytest.mark.parametrize(("offered", "answered"), [(b"sendrecv", "sendrecv"), (b"recvonly", "sendonly")])
def test_direction_is_answered_in_kind(offered: bytes, answered: str) -> None:
    assert answer(b"m=audio 4000 RTP/AVP 8\r\na=%b\r\n" % offered)[-1] == f"a={answered}"
    assert answer(b"a=%b\r\nm=audio 4000 RTP/AVP 8\r\n" % offered)[-1] == f"a={answered}"


@pytest.mark.parametrize(
    "media",
    [
        b"",
        b"m=video 4000 RTP/AVP 31\r\n",
        b"m=audio 0 RTP/AVP 8\r\n",
        b"m=audio 4000 RTP/AVP 101\r\na=rtpmap:101 telephone-event/8000\r\n",
        b"m=audio 4000 RTP/AVP 8\r\na=sendonly\r\n",
        b"m=audio 4000 RTP/AVP 8\r\na=inactive\r\n",
    ],
)
def test_no_answer_to_an_offer_that_would_not_be_heard(media: bytes) -> None:
    assert answer_alone(HEAD + media) is None


@pytest.mark.parametrize("offer", [b"", b"nonsense", OFFER.replace(b"c=IN IP4 127.0.0.31\r\n", b"")])
def test_no_answer_to_malformed_sdp(offer: bytes) -> None:
    assert answer_alone(offer) is None
