"""With rtpengine in between, the order of codecs and attributes does not reveal the phone."""

from __future__ import annotations

import contextlib
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.privacy.sdp import SdpWriter

HEAD = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.31\r\nt=0 0\r\n"
RTPMAPS = {
    "0": "PCMU/8000",
    "8": "PCMA/8000",
    "9": "G722/8000",
    "18": "G729/8000",
    "96": "opus/48000/2",
    "97": "speex/16000",
    "98": "speex/8000",
    "99": "iLBC/8000",
    "100": "telephone-event/48000",
    "101": "telephone-event/8000",
    "13": "CN/8000",
}
ORDER = "96 9 8 0 18 99 97 98 13 100 101"


def formats_of(text: bytes) -> str:
    (line,) = [line for line in text.decode().split("\r\n") if line.startswith("m=audio 4000 ")]
    return line.removeprefix("m=audio 4000 RTP/AVP ")


def written(formats: list[str], lines: list[str], *, anchored: bool = True) -> bytes:
    attributes = "".join(f"a={line}\r\n" for line in lines)
    body = f"{HEAD}m=audio 4000 RTP/AVP {' '.join(formats)}\r\n{attributes}".encode()
    return SdpWriter(5, anchored=anchored).write(body)


LINES = [
    *(f"rtpmap:{payload} {name}" for payload, name in RTPMAPS.items()),
    *("fmtp:101 0-15", "fmtp:96 useinbandfec=1", "fmtp:18 annexb=no"),
    *("ptime:20", "maxptime:150", "sendrecv", "rtcp:4001", "rtcp-mux"),
]


def test_best_speech_codec_is_first_and_non_speech_last() -> None:
    text = written(list(RTPMAPS), LINES)
    assert formats_of(text) == ORDER
    names = [line.split(":")[0] for line in text.decode().split("\r\n") if line.startswith("a=")]
    assert names == [
        *("a=rtcp", "a=rtcp-mux"),
        *["a=rtpmap"] * len(RTPMAPS),
        *["a=fmtp"] * 3,
        *("a=ptime", "a=maxptime", "a=sendrecv"),
    ]
    maps = [line.removeprefix("a=rtpmap:").split(" ")[0] for line in text.decode().split("\r\n") if "rtpmap" in line]
    assert " ".join(maps) == formats_of(text)


@given(st.permutations(list(RTPMAPS)), st.permutations(LINES))
def test_order_does_not_depend_on_the_input(formats: list[str], lines: list[str]) -> None:
    assert written(formats, lines) == written(list(RTPMAPS), LINES)


@pytest.mark.parametrize("formats", list(permutations(["0", "8", "101"])))
def test_order_is_kept_without_rtpengine(formats: tuple[str, ...]) -> None:
    assert formats_of(written(list(formats), LINES, anchored=False)) == " ".join(formats)


def test_entries_of_one_codec_are_ordered_by_rate_and_fmtp() -> None:
    lines = ["rtpmap:96 AMR/8000", "rtpmap:97 AMR/8000", "fmtp:97 octet-align=1"]
    for formats in (["96", "97"], ["97", "96"]):
        assert formats_of(written(formats, lines)) == "96 97"


def test_crypto_lines_keep_their_order() -> None:
    """RFC 4568 5.1.1: the first is preferred."""
    keys = [
        f"crypto:{tag} AES_CM_128_HMAC_SHA1_80 inline:{'WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz'}" for tag in (2, 1)
    ]
    body = HEAD + "m=audio 4000 RTP/SAVP 8\r\n" + "".join(f"a={line}\r\n" for line in ["sendrecv", *keys])
    text = SdpWriter(5, anchored=True).write(body.encode()).decode()
    assert [line[:10] for line in text.split("\r\n") if line.startswith("a=")] == [
        "a=crypto:2",
        "a=crypto:1",
        "a=sendrecv",
    ]


def test_streams_stay_in_their_places() -> None:
    video = "m=video 4002 RTP/AVP 97 98\r\na=rtpmap:97 VP8/90000\r\na=rtpmap:98 H264/90000\r\n"
    fax = "m=image 4004 udptl t38\r\na=T38FaxVersion:0\r\n"
    text = SdpWriter(5, anchored=True).write((HEAD + fax + video + "m=audio 0 RTP/AVP 0\r\n").encode()).decode()
    assert [line for line in text.split("\r\n") if line.startswith("m=")] == [
        "m=image 4004 udptl t38",
        "m=video 4002 RTP/AVP 98 97",
        "m=audio 0 RTP/AVP 0",
    ]


@given(st.binary(max_size=200))
def test_any_sdp_is_written_or_refused(noise: bytes) -> None:
    body = (
        HEAD.encode()
        + b"m=audio 4000 RTP/AVP 8 96\r\na=rtpmap:"
        + noise.replace(b"\r", b"").replace(b"\n", b"")
        + b"\r\n"
    )
    with contextlib.suppress(ParseError):
        SdpWriter(5, anchored=True).write(body)
