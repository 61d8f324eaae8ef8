"""SDP masking."""

from __future__ import annotations

from functools import partial
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.privacy import sdp
from relay.privacy.sdp import (
    MOST_FORMATS,
    SESSION_IDS,
    SdpWriter,
    few_of_each_kind,
    mask_description,
    session_id,
    shows_way,
)
from relay.sip.sdp import parse_sdp
from tests.support.outcome import outcome

HEAD = "v=0\no=alice 13800000001 7 IN IP4 192.0.2.1\ns=alice's phone\nc=IN IP4 192.0.2.31\nt=0 0\n"
AUDIO = "m=audio 4000 RTP/AVP 8 0 101\na=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\n"


def written(text: str, writer: SdpWriter | None = None) -> list[str]:
    """The masked lines, without the first four, which are the relay's."""
    lines = (writer or SdpWriter(5)).write(text.encode()).decode().split("\r\n")
    assert lines[0] == "v=0"
    assert lines[2] == "s=-"
    assert lines[-1] == ""
    return lines[3:-1]


def test_common_sdp_passes_unchanged() -> None:
    body = HEAD + AUDIO + "a=ptime:20\na=maxptime:40\na=sendrecv\na=rtcp-mux\n"
    assert written(body) == body.splitlines()[3:]


def test_origin_and_session_name_are_ours() -> None:
    lines = SdpWriter(5, 8).write((HEAD + AUDIO).encode()).decode().splitlines()
    assert lines[1:3] == ["o=- 5 9 IN IP4 192.0.2.31", "s=-"]


def test_version_increases_only_with_a_change() -> None:
    writer = SdpWriter(5)
    versions = []
    for body in (HEAD + AUDIO, HEAD.replace("alice", "else") + AUDIO, HEAD + AUDIO + "a=sendonly\n", HEAD + AUDIO):
        writer.write(body.encode())
        versions.append(writer.version)
    assert versions == [1, 1, 2, 3]


def test_names_addresses_keys_and_times_are_dropped() -> None:
    session = "i=alice\nu=http://alice.example\ne=a@alice.example\np=+8613800000001\n"
    body = HEAD.replace("c=", session + "c=").replace("t=0 0", "t=2873397496 2873404696\nr=1 2 3\nz=4 5\nk=clear:alice")
    assert written(body + AUDIO.replace("\n", "\ni=alice\nk=prompt\n", 1)) == (HEAD + AUDIO).splitlines()[3:]


def test_unknown_codecs_are_removed_from_the_media_line() -> None:
    body = HEAD + "m=audio 4000 RTP/AVP 8 96 97 99 35\na=rtpmap:96 opus/48000/2\na=rtpmap:97 alice/8000\n"
    assert written(body)[2:] == ["m=audio 4000 RTP/AVP 8 96", "a=rtpmap:96 opus/48000/2"]


def test_more_than_most_formats_are_malformed() -> None:
    formats = [*map(str, range(MOST_FORMATS + 1))]
    with pytest.raises(ParseError):
        written(f"{NAMELESS}m=audio 4000 RTP/AVP {' '.join(formats)}\r\n")
    assert written(f"{NAMELESS}m=audio 4000 RTP/AVP {' '.join(formats[:MOST_FORMATS])}\r\n")


def test_repeated_formats_are_removed() -> None:
    body = f"{HEAD}m=audio 4000 RTP/AVP 0 8{' 0' * 26_000}\r\n"
    assert written(body)[2:] == ["m=audio 4000 RTP/AVP 0 8"]


def test_stream_without_a_known_codec_is_refused() -> None:
    body = HEAD + "m=audio 4000 RTP/AVP 97\na=rtpmap:97 alice/8000\nm=audio 4002 RTP/AVP 8\n"
    assert written(body)[2:] == ["m=audio 0 RTP/AVP 0", "m=audio 4002 RTP/AVP 8"]


@pytest.mark.parametrize("first", ["", "m=audio 0 RTP/AVP 0\r\n"])
@pytest.mark.parametrize(
    "stream", ["image 6000 udptl t38", "text 6000 RTP/AVP 0", "message 7654 TCP/MSRP *", "audio 4000 RTP/AVP 120"]
)
@pytest.mark.parametrize("anchored", [False, True])
def test_sdp_is_refused_if_no_active_stream_is_relayed(first: str, stream: str, anchored: bool) -> None:
    head = HEAD.replace("\n", "\r\n") + first
    for _ in range(2):  # it is not cached
        with pytest.raises(ParseError, match="no stream that is relayed"):
            SdpWriter(5, anchored=anchored).write(f"{head}m={stream}\r\n".encode())
    kind, _, rest = stream.partition(" ")
    assert written(f"{head}m={kind} 0 {rest.partition(' ')[2]}\r\n")[-1].startswith(f"m={kind} 0 ")


def test_streams_of_every_kind_keep_their_places() -> None:
    media = [
        ("m=alice 9 bob/carol x", "m=audio 0 RTP/AVP 0"),
        ("m=audio 4000 RTP/AVP 0", "m=audio 4000 RTP/AVP 0"),
        ("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "m=application 0 UDP/DTLS/SCTP *"),
        ("m=message 7654 TCP/MSRP *", "m=message 0 TCP/MSRP *"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 0", "m=audio 0 UDP/TLS/RTP/SAVPF 0"),
        ("m=video 5000 RTP/AVP 31 34", "m=video 5000 RTP/AVP 31 34"),
        ("m=image 6000 udptl t38", "m=image 0 udptl *"),
        ("m=image 6000 UDPTL t38", "m=image 0 UDPTL *"),
        ("m=image 6000 RTP/AVP 0", "m=image 0 RTP/AVP 0"),
        ("m=audio 6000 udptl t38", "m=audio 0 udptl *"),
        ("m=audio 13800/13800 RTP/AVP 0", "m=audio 13800 RTP/AVP 0"),
        ("m=audio 4000/2 RTP/AVP 0", "m=audio 4000/2 RTP/AVP 0"),
        ("m=audio 0 RTP/AVP 0", "m=audio 0 RTP/AVP 0"),
    ]
    body = HEAD + "".join(f"{line}\ni=alice\na=alice\nb=X-alice:1\n" for line, _ in media)
    assert written(body)[2:] == [line for _, line in media]


@pytest.mark.parametrize(
    "refused",
    ["m=video 0 RTP/AVP 31", "m=message 7654 TCP/MSRP *", "m=audio 9 UDP/TLS/RTP/SAVPF 0", "m=video 6 RTP/AVP 99"],
)
def test_refused_stream_has_no_address(refused: str) -> None:
    session = HEAD.replace("c=IN IP4 192.0.2.31\n", "")
    audio = "m=audio 4000 RTP/AVP 8\nc=IN IP4 192.0.2.31\n"
    body = SdpWriter(5).write(f"{session}{refused}\nc=IN IP4 192.0.2.32\n{audio}".encode())
    assert b"192.0.2.32" not in body
    assert body.count(b"c=IN IP4 0.0.0.0\r\n") == 1
    assert b" IN IP4 192.0.2.31\r\ns=-" in body  # the origin has the address of an active stream


OWN = "m=audio 4000 RTP/AVP 8\nc=IN IP4 203.0.113.9\n"


@pytest.mark.parametrize(
    ("streams", "shown"),
    [
        (OWN, "203.0.113.9"),
        ("m=video 0 RTP/AVP 31\n" + OWN, "203.0.113.9"),
        ("m=message 7654 TCP/MSRP *\n" + OWN, "203.0.113.9"),
        ("m=video 5000 RTP/AVP 31\n" + OWN, "203.0.113.9"),  # no codec that is allowed
        ("m=video 5000 RTP/AVP 31\nc=IN IP4 192.0.2.31\n" + OWN, "203.0.113.9"),
        ("m=audio 0 RTP/AVP 8\nm=video 0 RTP/AVP 31\n", "0.0.0.0"),
    ],
)
def test_address_that_no_active_stream_uses_is_hidden(streams: str, shown: str) -> None:
    """Such as a phone's private one; a refused stream without its own still needs the session's (RFC 4566 5.7)."""
    writer = SdpWriter(5)
    writer.codecs = frozenset({"pcma"})
    for head in (HEAD, HEAD.replace("\n", "\r\n")):
        body = writer.write((head + streams).encode())
        assert b"192.0.2.31" not in body
        assert body.count(f" IN IP4 {shown}\r\ns=-\r\nc=IN IP4 {shown}\r\n".encode()) == 1


def test_session_address_that_a_stream_uses_stays() -> None:
    body = SdpWriter(5).write((HEAD + "m=audio 4002 RTP/AVP 8\n" + OWN).encode())
    assert b" IN IP4 192.0.2.31\r\ns=-\r\nc=IN IP4 192.0.2.31\r\n" in body


@pytest.mark.parametrize("anchored", [False, True])
def test_real_time_text_is_refused_in_place(anchored: bool) -> None:
    """Nothing reads it: a number typed there would arrive."""
    text = "m=text 4004 RTP/AVP 98 97\na=rtpmap:98 t140/1000\na=rtpmap:97 red/1000\na=fmtp:97 98/98\n"
    lines = written(
        HEAD + AUDIO + text + "m=audio 4006 RTP/AVP 98\na=rtpmap:98 t140/1000\n", SdpWriter(5, anchored=anchored)
    )
    assert lines[-2:] == ["m=text 0 RTP/AVP 0", "m=audio 0 RTP/AVP 0"]


@pytest.mark.parametrize("anchored", [False, True])
def test_fax_is_refused_in_place(anchored: bool) -> None:
    """Its packets hold the number of the fax machine that sends, and pass rtpengine unread."""
    fax = "m=image 6000 udptl t38\na=T38FaxVersion:0\na=T38FaxFillBitRemoval\na=T38FaxUdpEC:t38UDPRedundancy\n"
    over_rtp = "m=audio 6002 RTP/AVP 98\na=rtpmap:98 t38/8000\n"
    lines = written(HEAD + fax + over_rtp + "m=audio 4000 RTP/AVP 8\n", SdpWriter(5, anchored=anchored))
    assert lines[2:] == ["m=image 0 udptl *", "m=audio 0 RTP/AVP 0", "m=audio 4000 RTP/AVP 8"]


@pytest.mark.parametrize(
    ("streams", "kept"),
    [
        ("audio audio audio video", "audio audio - video"),
        ("audio video video audio video", "audio video video audio -"),
        ("audio - audio - audio", "audio - audio - -"),
    ],
)
def test_two_streams_of_a_kind_are_kept(streams: str, kept: str) -> None:
    lines = [f"m={'audio 0' if kind == '-' else f'{kind} 4000'} RTP/AVP 0\n" for kind in streams.split()]
    text = few_of_each_kind((HEAD + "".join(lines)).encode()).decode()
    found = [line.split() for line in text.split("\r\n") if line.startswith("m=")]
    assert ["-" if line[1] == "0" else line[0][2:] for line in found] == kept.split()


def test_bandwidths_of_limited_length_pass() -> None:
    body = HEAD.replace("t=", "b=AS:64\nb=X-alice:1\nb=CT:13800000001\nt=") + AUDIO + "b=TIAS:64000\nb=TIAS:138000000\n"
    assert [line for line in written(body) if line.startswith("b=")] == ["b=AS:64", "b=TIAS:64000"]


@pytest.mark.parametrize(
    "line", ["c=IN IP4 alice.example", "c=IN IP4 13800000001", "c=IN IP6 alice", "c=IN IP4 2.3", "c=IN IP6 192.0.2.1"]
)
def test_host_name_as_media_address_is_refused(line: str) -> None:
    for body in (HEAD.replace("c=IN IP4 192.0.2.31", line) + AUDIO, HEAD + AUDIO.replace("\n", f"\n{line}\n", 1)):
        with pytest.raises(ParseError):
            written(body)


def test_stream_addresses_pass() -> None:
    body = HEAD.replace("c=IN IP4 192.0.2.31\n", "") + AUDIO.replace("\n", "\nc=IN IP6 2001:db8::5\n", 1)
    writer = SdpWriter(5)
    assert "c=IN IP6 2001:db8::5" in written(body, writer)
    assert writer.write(body.encode()).decode().splitlines()[1] == "o=- 5 1 IN IP6 2001:db8::5"


def test_suffix_of_an_address_is_dropped() -> None:
    assert written(HEAD.replace("192.0.2.31", "233.252.0.1/127/13800") + AUDIO)[0] == "c=IN IP4 233.252.0.1"


def test_sdp_without_an_address_is_refused() -> None:
    with pytest.raises(ParseError):
        written(HEAD.replace("c=IN IP4 192.0.2.31\n", "") + AUDIO)


@given(
    port=st.sampled_from([0, 1, 9, 4000, 9999, 10000, 59999, 60000, 65535, 65536]),
    kind=st.sampled_from(["audio", "video", "message", "application"]),
    protocol=st.sampled_from(["RTP/AVP", "RTP/SAVP", "TCP/MSRP"]),
    formats=st.sampled_from(["8 0", "8 96", "59999", "96", ""]),
    session=st.sampled_from(["c=IN IP4 192.0.2.31\r\nt=0 0\r\n", "c=IN IP4 bob.example\r\nt=0 0\r\n", "t=0 0\r\n"]),
    attributes=st.lists(
        st.sampled_from(["rtpmap:8 PCMA/8000", "sendonly", "rtpmap:96 opus/48000/2", "tool:bob", "ptime:20"]),
        max_size=4,
    ),
)
def test_fast_path_for_one_stream_equals_the_full_path(
    port: int, kind: str, protocol: str, formats: str, session: str, attributes: list[str]
) -> None:
    head = f"v=0\r\no=alice 1 1 IN IP4 192.0.2.1\r\ns=-\r\n{session}"
    media = f"m={kind} {port} {protocol} {formats}\r\n" + "".join(f"a={line}\r\n" for line in attributes)
    body = (head + media).encode()
    check_short_way(body)


def check_short_way(body: bytes) -> None:
    for in_order in (False, True):
        mask = partial(mask_description, in_order=in_order)
        mask_anew = partial(mask_long_way, in_order=in_order)
        assert outcome(mask, body) == outcome(mask, body) == outcome(mask_anew, body)


def mask_long_way(body: bytes, *, in_order: bool) -> tuple[bytes, bytes]:
    return sdp._mask(parse_sdp(body), in_order)


LINES = b"m=audio 9 RTP/AVP 0,a=x,v=0,c=IN IP6 ::1,c=IN IP4 1.2.3.4/127,s=-,o=- 1 1 IN IP4 1.1.1.1,a=rtcp:59999,b=AS:64"
WORDS = b"\r\n,\n,\r,m=,\rm=,\r\nm=,inline:,\0, ,=,0,59999,m=audio 59999,\xff,/2".split(b",")
PLACES = st.sampled_from([b"4000", b"a=rtpmap:8", b"c=IN", b"t=0 0", b"m=audio", b"audio", b"PCMA", b"192.0.2.31"])
SNIPPETS = st.sampled_from([*WORDS, *(line + b"\r\n" for line in LINES.split(b","))])


@settings(max_examples=1000)
@given(st.lists(st.tuples(PLACES, st.booleans(), SNIPPETS), max_size=3))
def test_masking_does_not_depend_on_the_cache(
    changes: list[tuple[bytes, bool, bytes]],
) -> None:
    body = (CRLF_HEAD.replace("alice's phone", "-") + CRLF_AUDIO).encode()
    for place, stays, snippet in changes:
        body = body.replace(place, snippet + place if stays else snippet, 1)
    check_short_way(body)


CRLF_HEAD, CRLF_AUDIO = HEAD.replace("\n", "\r\n"), AUDIO.replace("\n", "\r\n")


def test_similar_sdp_is_masked_as_without_a_cache() -> None:
    bodies = [
        (CRLF_HEAD.replace("alice", name) + CRLF_AUDIO.replace("4000", port) + more)
        for more in (
            "",
            "a=sendonly\r\n",
            "a=fmtp:8 alice=1\r\n",
            "b=AS:64\r\n",
            "a=rtcp:4001\r\n",
            "a=rtpmap:9 m=audio\r\n",
        )
        for name in ("alice", "bob")
        for port in ("4000", "9", "59999", "0", "65535", "04000", "4000/2")
    ]
    bodies += [body.replace("RTP/AVP", "alice") for body in bodies] + [
        body.replace("audio", "alice") for body in bodies
    ]
    for body in bodies * 2:
        anew = body.replace("\r\n", "\n")  # LF line ends are never cached
        assert outcome(SdpWriter(5).write, body.encode()) == outcome(SdpWriter(5).write, anew.encode()), body


@pytest.mark.parametrize(
    "more", ["a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n", "a=x\r\n" * 400]
)
def test_keys_and_long_sdp_are_not_cached(more: str) -> None:
    before = dict(sdp._masked)
    SdpWriter(5).write((CRLF_HEAD + CRLF_AUDIO + more).encode())
    assert sdp._masked == before


def test_cache_is_bounded() -> None:
    for number in range(2100):
        SdpWriter(5).write(f"{CRLF_HEAD}{CRLF_AUDIO}a=ptime:{number}\r\n".encode())
        assert len(sdp._masked) <= 2048


# SDP rewritten by rtpengine

STREAM = "m=audio {port} RTP/AVP 8\n"


def description(session: str, *streams: tuple[int, str]) -> bytes:
    """`streams`: port and address, "" for the session's."""
    text = "v=0\no=- 1 1 IN IP4 192.0.2.9\ns=-\n" + (f"c=IN IP4 {session}\n" if session else "") + "t=0 0\n"
    for port, address in streams:
        text += STREAM.format(port=port) + (f"c=IN IP4 {address}\n" if address else "")
    return text.encode()


THEIRS = description("192.0.2.31", (4000, ""), (4002, "192.0.2.32"))


@pytest.mark.parametrize(
    "given",
    [
        description("192.0.2.40", (30000, ""), (30002, "")),
        description("192.0.2.31", (30000, ""), (30002, "")),  # rtpengine is on the same host
        description("0.0.0.0", (30000, ""), (0, "")),
        description("192.0.2.40", (4000, ""), (4002, "")),  # equal ports alone are no leak
        description("192.0.2.40", (30000, ""), (0, "192.0.2.32")),  # the address of a refused stream is never written
    ],
)
def test_rewritten_sdp_shows_no_original_address(given: bytes) -> None:
    assert not shows_way(THEIRS, given)


@pytest.mark.parametrize(
    "given",
    [
        THEIRS,
        description("192.0.2.40", (30000, ""), (4002, "192.0.2.32")),
        description("192.0.2.31", (4000, ""), (30002, "192.0.2.40")),
        description("192.0.2.31", (30000, "192.0.2.40"), (30002, "192.0.2.40")),  # the session's line was not rewritten
    ],
)
def test_partly_rewritten_sdp_shows_an_original_address(given: bytes) -> None:
    assert shows_way(THEIRS, given)


@pytest.mark.parametrize(
    ("theirs", "given"), [("2001:DB8:0::31", "2001:db8::31"), ("::ffff:192.0.2.31", "::FFFF:c000:21f")]
)
def test_address_is_compared_in_any_spelling(theirs: str, given: str) -> None:
    before, after = (
        f"v=0\no=- 1 1 IN IP6 ::\ns=-\nc=IN IP6 {address}\nt=0 0\n{STREAM.format(port=port)}".encode()
        for address, port in ((theirs, 4000), (given, 4000))
    )
    assert shows_way(before, after)


def test_unspecified_address_of_old_hold_is_ignored() -> None:
    assert not shows_way(description("0.0.0.0", (4000, "")), description("0.0.0.0", (4000, "")))


def test_address_of_a_refused_stream_is_ignored() -> None:
    content, address = mask_description(description("", (0, "192.0.2.32"), (4000, "192.0.2.31")))
    assert b"192.0.2.32" not in content
    assert (content.count(b"c=IN IP4 0.0.0.0"), address) == (1, b"IP4 192.0.2.31")


# -- With rtpengine in between, the order of codecs and attributes does not reveal the phone

NAMELESS = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.31\r\nt=0 0\r\n"
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


def write_audio(formats: list[str], lines: list[str], *, anchored: bool = True) -> bytes:
    attributes = "".join(f"a={line}\r\n" for line in lines)
    body = f"{NAMELESS}m=audio 4000 RTP/AVP {' '.join(formats)}\r\n{attributes}".encode()
    return SdpWriter(5, anchored=anchored).write(body)


AUDIO_LINES = [
    *(f"rtpmap:{payload} {name}" for payload, name in RTPMAPS.items()),
    *("fmtp:101 0-15", "fmtp:96 useinbandfec=1", "fmtp:18 annexb=no"),
    *("ptime:20", "maxptime:150", "sendrecv", "rtcp:4001", "rtcp-mux"),
]


def test_best_speech_codec_is_first_and_non_speech_last() -> None:
    text = write_audio(list(RTPMAPS), AUDIO_LINES)
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


@given(st.permutations(list(RTPMAPS)), st.permutations(AUDIO_LINES))
def test_order_does_not_depend_on_the_input(formats: list[str], lines: list[str]) -> None:
    assert write_audio(formats, lines) == write_audio(list(RTPMAPS), AUDIO_LINES)


@pytest.mark.parametrize("formats", list(permutations(["0", "8", "101"])))
def test_order_is_kept_without_rtpengine(formats: tuple[str, ...]) -> None:
    assert formats_of(write_audio(list(formats), AUDIO_LINES, anchored=False)) == " ".join(formats)


def test_entries_of_one_codec_are_ordered_by_rate_and_fmtp() -> None:
    lines = ["rtpmap:96 AMR/8000", "rtpmap:97 AMR/8000", "fmtp:97 octet-align=1"]
    for formats in (["96", "97"], ["97", "96"]):
        assert formats_of(write_audio(formats, lines)) == "96 97"


def test_crypto_lines_keep_their_order() -> None:
    """RFC 4568 5.1.1: the first is preferred."""
    keys = [
        f"crypto:{tag} AES_CM_128_HMAC_SHA1_80 inline:{'WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz'}" for tag in (2, 1)
    ]
    body = NAMELESS + "m=audio 4000 RTP/SAVP 8\r\n" + "".join(f"a={line}\r\n" for line in ["sendrecv", *keys])
    text = SdpWriter(5, anchored=True).write(body.encode()).decode()
    assert [line[:10] for line in text.split("\r\n") if line.startswith("a=")] == [
        "a=crypto:2",
        "a=crypto:1",
        "a=sendrecv",
    ]


def test_streams_stay_in_their_places() -> None:
    video = "m=video 4002 RTP/AVP 97 98\r\na=rtpmap:97 VP8/90000\r\na=rtpmap:98 H264/90000\r\n"
    fax = "m=image 4004 udptl t38\r\na=T38FaxVersion:0\r\n"
    text = SdpWriter(5, anchored=True).write((NAMELESS + fax + video + "m=audio 0 RTP/AVP 0\r\n").encode()).decode()
    assert [line for line in text.split("\r\n") if line.startswith("m=")] == [
        "m=image 0 udptl *",
        "m=video 4002 RTP/AVP 98 97",
        "m=audio 0 RTP/AVP 0",
    ]


@given(st.binary(max_size=200))
def test_any_sdp_is_written_or_refused(noise: bytes) -> None:
    body = (
        NAMELESS.encode()
        + b"m=audio 4000 RTP/AVP 8 96\r\na=rtpmap:"
        + noise.replace(b"\r", b"").replace(b"\n", b"")
        + b"\r\n"
    )
    try:
        written = SdpWriter(5, anchored=True).write(body)
    except ParseError:
        return
    assert written.startswith(b"v=0\r\n")


@given(st.text("0123456789abcdef", min_size=16, max_size=32))
def test_session_ids_are_shorter_than_any_hidden_number(token: str) -> None:
    assert 1 <= session_id(token) <= SESSION_IDS
    assert len(str(session_id(token))) < len("13900000002")
