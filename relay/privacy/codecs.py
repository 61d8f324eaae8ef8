"""Codecs that cross: the filter per peer, the order, and format parameters (fmtp). The last step of SDP masking.

A stream without an allowed codec is refused in its place by port 0 (RFC 3264 6), so that each m= line has a format.
"""

from __future__ import annotations

import re
from typing import Final

from relay.errors import ProtocolError
from relay.model.settings import Peer
from relay.sip.sdp import Attribute, Media, Sdp, parse_sdp

# Static payload types (RFC 3551 6), for those without rtpmap.
_STATIC: Final = {
    **{"0": "pcmu", "3": "gsm", "4": "g723", "5": "dvi4", "6": "dvi4", "7": "lpc", "8": "pcma", "9": "g722"},
    **{"10": "l16", "11": "l16", "12": "qcelp", "13": "cn", "14": "mpa", "15": "g728", "16": "dvi4", "17": "dvi4"},
    **{"18": "g729", "25": "celb", "26": "jpeg", "28": "nv", "31": "h261", "32": "mpv", "33": "mp2t", "34": "h263"},
}
_NO_SPEECH: Final = frozenset({"telephone-event", "tone", "cn", "red"})  # useless without another codec
_BY_PAYLOAD: Final = frozenset({"rtpmap", "fmtp", "rtcp-fb"})
_fmtp_lines: Final = re.compile(rb"(?m)^a=fmtp:.*").findall
_HEAD: Final = b"v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\n"


def common_codecs(one: Peer, other: Peer) -> frozenset[str] | None:
    """Codecs allowed for both peers of a call; None: all. An offer limited to them can be answered."""
    if one.codecs is None or other.codecs is None:
        return one.codecs if other.codecs is None else other.codecs
    return one.codecs & other.codecs


def keep_codecs(content: bytes, allowed: frozenset[str]) -> bytes:
    """Masked SDP, from behind its line s= on, reduced to the allowed codecs (names in lower case).

    Raises ProtocolError 488 if no stream is left, ParseError for malformed SDP.
    """
    sdp = parse_sdp(_HEAD + content)
    before = sum([media.port > 0 for media in sdp.media])
    for media in sdp.media:
        if media.port:
            _keep(media, allowed)
    if before and not any([media.port for media in sdp.media]):
        raise ProtocolError(488, "no codec left that is allowed for the peer")
    return sdp.serialize().partition(b"s=-\r\n")[2]


def with_fmtp_of(description: bytes, other: bytes) -> bytes:
    """The SDP with the fmtp lines of `other` for payload types that both have in the same stream.

    Raises ParseError if either is malformed.
    """
    if _fmtp_lines(description) == _fmtp_lines(other):
        return description
    sdp = parse_sdp(description)
    for media, model in zip(sdp.media, parse_sdp(other).media, strict=False):
        said = [each for each in model.attributes if each[0] == "fmtp" and is_of(each, media.formats)]
        own = [each for each in media.attributes if each[0] != "fmtp" or not is_of(each, model.formats)]
        media.attributes = own + said
    return sdp.serialize()


def codec_names(media: Media) -> dict[str, str]:
    """Codec names by payload type, in lower case: of its rtpmap lines and all static types."""
    names = dict(_STATIC)
    for name, value in media.attributes:
        if name == "rtpmap" and value is not None:
            payload, _, codec = value.partition(" ")
            names[payload] = codec.partition("/")[0].lower()
    return names


def _keep(media: Media, allowed: frozenset[str]) -> None:
    names = codec_names(media)
    kept = [payload for payload in media.formats if names.get(payload, payload).lower() in allowed]
    if all([names.get(payload) in _NO_SPEECH for payload in kept]):
        media.port, media.port_count, media.attributes = 0, None, []
        media.formats = media.formats[:1]
        return
    media.formats = kept
    media.attributes = [each for each in media.attributes if is_of(each, kept)]


def is_of(attribute: Attribute, kept: list[str]) -> bool:
    """Whether a stream's attribute applies to the kept payload types."""
    name, value = attribute
    if name not in _BY_PAYLOAD or value is None:
        return True
    payload = value.partition(" ")[0]
    return payload == "*" or payload in kept


# -- Uniform order of codecs and attributes in SDP

# Order of preference: best sound first, then lowest cost; non-speech codecs last. Others are in between, by name.
_FIRST: Final = "opus evs amr-wb+ amr-wb g722 g7221 pcma pcmu amr g729 h264 h265 vp8 vp9 av1".split()
_LAST: Final = "red cn tone telephone-event".split()
_RANKS: Final = {name: rank - len(_FIRST) for rank, name in enumerate(_FIRST)} | {
    name: rank + 1 for rank, name in enumerate(_LAST)
}
_ATTRIBUTES: Final = {
    name: rank
    for rank, name in enumerate(
        "rtcp rtcp-mux rtcp-rsize crypto rtpmap fmtp rtcp-fb ptime maxptime framerate"
        " sendrecv sendonly recvonly inactive".split()
    )
}
_OTHER: Final = len(_ATTRIBUTES)


def put_in_order(sdp: Sdp) -> None:
    """Sort formats and attributes within each stream; the streams keep their places (RFC 3264 6)."""
    _sort(sdp.attributes, [])
    for media in sdp.media:
        if "RTP/" in media.protocol:
            _sort_formats(media)
        _sort(media.attributes, media.formats)


def _sort_formats(media: Media) -> None:
    names = codec_names(media)
    said = {value.partition(" ")[0]: value for name, value in media.attributes if name == "fmtp" and value}
    rates = {value.partition(" ")[0]: _rate(value) for name, value in media.attributes if name == "rtpmap" and value}

    def place(payload: str) -> tuple[int, str, int, str, int]:
        """By rank and name; of one codec the highest rate first, then by fmtp."""
        name = names.get(payload, payload)
        settings = said.get(payload, "").partition(" ")[2]
        return _RANKS.get(name, 0), name, -rates.get(payload, 0), settings, int(payload)

    media.formats.sort(key=place)


def _rate(rtpmap: str) -> int:
    return int(rtpmap.split("/")[1])


def _sort(attributes: list[Attribute], formats: list[str]) -> None:
    """Sort by name, then by the order of payload types. Stable, since the order of crypto lines matters."""

    def place(attribute: Attribute) -> tuple[int, str, int]:
        name, value = attribute
        payload = value.partition(" ")[0] if value is not None and name in _BY_PAYLOAD else ""
        rank = _ATTRIBUTES.get(name, _OTHER)
        return rank, name if rank == _OTHER else "", formats.index(payload) if payload in formats else -1

    attributes.sort(key=place)
