"""SDP reduced to the allowed codecs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ProtocolError
from relay.privacy.codecs import common_codecs, keep_codecs, mask_attribute, with_fmtp_of
from relay.sip.sdp import parse_sdp
from tests.call.support import peer

HEAD = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
AUDIO = (
    "m=audio 4000 RTP/AVP 8 0 96 101\r\na=rtpmap:96 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n"
    "a=fmtp:96 useinbandfec=1\r\na=fmtp:101 0-15\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:* nack\r\na=ptime:20\r\n"
)


def kept(text: str, *allowed: str) -> list[str]:
    described = parse_sdp((HEAD + text).encode())
    text = keep_codecs(described, frozenset(allowed)).serialize().decode()
    assert text.startswith(HEAD)
    return text.removeprefix(HEAD).split("\r\n")[:-1]


def test_allowed_codec_keeps_its_attributes() -> None:
    assert kept(AUDIO, "opus", "telephone-event") == [
        *("m=audio 4000 RTP/AVP 96 101", "a=rtpmap:96 opus/48000/2", "a=rtpmap:101 telephone-event/8000"),
        *("a=fmtp:96 useinbandfec=1", "a=fmtp:101 0-15", "a=rtcp-fb:96 nack", "a=rtcp-fb:* nack", "a=ptime:20"),
    ]


def test_static_payload_types_need_no_rtpmap() -> None:
    assert kept(AUDIO, "pcma") == ["m=audio 4000 RTP/AVP 8", "a=rtcp-fb:* nack", "a=ptime:20"]
    assert kept("m=audio 4000 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n", "pcma")[0] == "m=audio 4000 RTP/AVP 8"


@pytest.mark.parametrize("allowed", [("g722",), ("telephone-event",), ()])
def test_sdp_without_an_allowed_codec_is_refused(allowed: tuple[str, ...]) -> None:
    with pytest.raises(ProtocolError) as caught:
        kept(AUDIO, *allowed)
    assert caught.value.status == 488


def test_stream_without_an_allowed_codec_is_refused_in_place() -> None:
    video = "m=video 4002/2 RTP/AVP 97\r\na=rtpmap:97 VP8/90000\r\na=sendonly\r\n"
    assert kept(video + AUDIO, "pcmu") == [
        *("m=video 0 RTP/AVP 97", "m=audio 4000 RTP/AVP 0", "a=rtcp-fb:* nack", "a=ptime:20")
    ]


def test_refused_streams_stay_unchanged() -> None:
    assert kept("m=audio 0 RTP/AVP 0\r\n", "pcma") == ["m=audio 0 RTP/AVP 0"]


@given(
    st.lists(st.sampled_from("0 3 8 9 18 96 101".split()), min_size=1, unique=True),
    st.sets(st.sampled_from("pcmu pcma gsm opus telephone-event".split())),
)
def test_every_stream_has_a_format(formats: list[str], allowed: set[str]) -> None:
    maps = "a=rtpmap:96 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n"
    text = f"m=audio 4000 RTP/AVP {' '.join(formats)}\r\n{maps}"
    try:
        lines = kept(text, *allowed)
    except ProtocolError:
        return
    (media,) = parse_sdp((HEAD + "\r\n".join([*lines, ""])).encode()).media
    assert media.formats
    assert set(media.formats) <= set(formats)


def described(*streams: str) -> bytes:
    return ("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n" + "".join(streams)).encode()


def test_fmtp_is_taken_from_the_other_sdp() -> None:
    words = "a=fmtp:18 annexb=no\r\na=fmtp:97 vbr=on\r\na=fmtp:98 mode=20\r\n"
    one = f"m=audio 4000 RTP/AVP 18 97 98\r\n{words}a=ptime:20\r\n"
    other = "m=audio 5000 RTP/AVP 97 18 99\r\na=fmtp:97 vbr=off\r\na=fmtp:99 mode=30\r\na=ptime:40\r\n"
    video = "m=video 4002 RTP/AVP 97\r\na=fmtp:97 max-fs=99\r\n"
    assert with_fmtp_of(described(one, video), described(other)) == described(
        "m=audio 4000 RTP/AVP 18 97 98\r\na=fmtp:98 mode=20\r\na=ptime:20\r\na=fmtp:97 vbr=off\r\n", video
    )


def test_equal_fmtp_changes_nothing() -> None:
    one, other = described(AUDIO), described(AUDIO.replace("4000", "5000").replace("8 0 96", "0 96 8"))
    assert with_fmtp_of(one, other) == one


def test_common_codecs_are_those_of_both_peers() -> None:
    one, other, none = (peer(codecs=frozenset(codecs)) for codecs in ("ab", "bc", ""))
    whatever = peer()
    assert common_codecs(one, other) == {"b"}
    assert common_codecs(one, whatever) == common_codecs(whatever, one) == {"a", "b"}
    assert common_codecs(one, none) == set()
    assert common_codecs(whatever, whatever) is None


# -- Attributes that cross


@pytest.mark.parametrize("flag", ["sendrecv", "sendonly", "recvonly", "inactive", "rtcp-mux", "rtcp-rsize"])
def test_allowed_flags_pass(flag: str) -> None:
    assert mask_attribute(flag, None) == (flag, None)
    assert mask_attribute(flag, "alice") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rtpmap", "0 PCMU/8000"),
        ("rtpmap", "111 opus/48000/2"),
        ("rtpmap", "127 AMR-WB/16000/1"),
        ("fmtp", "101 0-15"),
        ("fmtp", "101 0-11,16,32-35"),
        ("fmtp", "18 annexb=no"),
        ("fmtp", "96 mode-set=0,2,5,7;octet-align=1;max-red=0"),
        ("fmtp", "97 mode=30"),
        ("fmtp", "98 profile-level-id=42e01f;packetization-mode=1;max-mbps=108000"),
        ("fmtp", "99 br=5.9-13.2;bw=nb-swb;ch-aw-recv=-1;cmr=1"),
        ("fmtp", "121 0/5/0"),
        ("fmtp", "34 QCIF=1;CIF=2"),
        ("fmtp", "112 vbr=on"),
        ("ptime", "20"),
        ("maxptime", "150"),
        ("framerate", "30"),
        ("rtcp", "4001"),
        ("rtcp-fb", "* ccm fir"),
        ("rtcp-fb", "98 nack pli"),
        ("crypto", "1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:4"),
        ("crypto", "2 AEAD_AES_256_GCM inline:HGAPy4Cedy/qumbZvpuCZSVT7rNDk8vG4TdUXp5hkyWqJCqiLRGab0KJy1g="),
    ],
)
def test_allowed_attributes_pass_unchanged(name: str, value: str) -> None:
    assert mask_attribute(name, value) == (name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rtpmap", "96 alice/8000"),
        ("rtpmap", "96 PCMU/13800000001"),
        ("rtpmap", "13800000001 PCMU/8000"),
        ("rtpmap", "128 PCMU/8000"),
        ("rtpmap", "0 PCMU/8000\r\nm=alice"),
        ("fmtp", "96 alice=1"),
        ("fmtp", "96 mode-set=alice"),
        ("fmtp", "96 maxptime=13800000001"),
        ("fmtp", "96 maxptime=138-0000-0001"),
        ("fmtp", "96 profile-level-id=138000-00001"),
        ("fmtp", "96 138,000,000,01"),
        ("fmtp", "101 138-000"),
        ("fmtp", "101 300"),
        ("fmtp", "96 138/000/000/01"),
        ("fmtp", "13800000001 0-15"),
        ("fmtp", "١٣٨ 0-15"),
        ("fmtp", "96 sprop-parameter-sets=Z0IACpZTBYmI,aMljiA=="),
        ("fmtp", "96 \u212a=1"),
        ("ptime", "13800000001"),
        ("rtcp", "13800000001 IN IP4 192.0.2.1"),
        ("rtcp-fb", "* alice"),
        ("crypto", "1 ALICE_13800000001 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"),
        ("crypto", "1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz alice"),
        ("T38VendorInfo", "0 0 37"),
        ("T38FaxVersion", "0"),
        ("T38FaxFillBitRemoval", None),
        ("tool", "alice"),
        ("ssrc", "1 cname:alice"),
        ("msid", "alice"),
        ("candidate", "1 1 UDP 2130706431 10.0.1.1 8998 typ host"),
        ("ice-ufrag", "alice"),
        ("fingerprint", "sha-256 AA:BB"),
        ("sendrecv", ""),
        ("fmtp", "96 " + "mode=1;" * 100),
    ],
)
def test_other_attributes_are_dropped(name: str, value: str | None) -> None:
    assert mask_attribute(name, value) is None


def test_only_known_fmtp_parameters_pass() -> None:
    assert mask_attribute("fmtp", "96 useinbandfec=1; x-alice=1;sprop-stereo=13800000001; maxptime=40") == (
        "fmtp",
        "96 useinbandfec=1;maxptime=40",
    )


def test_only_the_port_of_rtcp_passes() -> None:
    assert mask_attribute("rtcp", "4001 IN IP4 10.0.0.7") == ("rtcp", "4001")


def test_value_attribute_without_a_value_is_dropped() -> None:
    assert mask_attribute("alice", None) is None
    assert mask_attribute("rtpmap", None) is None
