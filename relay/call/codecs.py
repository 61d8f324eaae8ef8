"""The codecs that a peer's streams may have; part of the masking, after all else of it. And what is said of them.

A stream of which nothing is left is refused in its place, port 0 (RFC 3264 6): no m= line is ever without a format.
"""

from __future__ import annotations

import re
from typing import Final

from relay.call.settings import Peer
from relay.errors import ProtocolError
from relay.sip.sdp import Attribute, Media, parse_sdp

# RFC 3551 6: what a payload type is that no rtpmap names.
_STATIC: Final = {
    **{"0": "pcmu", "3": "gsm", "4": "g723", "5": "dvi4", "6": "dvi4", "7": "lpc", "8": "pcma", "9": "g722"},
    **{"10": "l16", "11": "l16", "12": "qcelp", "13": "cn", "14": "mpa", "15": "g728", "16": "dvi4", "17": "dvi4"},
    **{"18": "g729", "25": "celb", "26": "jpeg", "28": "nv", "31": "h261", "32": "mpv", "33": "mp2t", "34": "h263"},
}
_NO_SPEECH: Final = frozenset({"telephone-event", "tone", "cn", "red"})  # of no use without another codec
_BY_PAYLOAD: Final = frozenset({"rtpmap", "fmtp", "rtcp-fb"})
_fmtp_lines: Final = re.compile(rb"(?m)^a=fmtp:.*").findall
_HEAD: Final = b"v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\n"


def common_codecs(one: Peer, other: Peer) -> frozenset[str] | None:
    """What both peers of a call may have; None: all. An offer that holds no more can be answered."""
    if one.codecs is None or other.codecs is None:
        return one.codecs if other.codecs is None else other.codecs
    return one.codecs & other.codecs


def keep_codecs(content: bytes, allowed: frozenset[str]) -> bytes:
    """A masked description, from behind its line s= on, with the allowed codecs alone; names are in lower case.

    Raises ProtocolError 488 where no stream is left, ParseError where it is no description.
    """
    sdp = parse_sdp(_HEAD + content)
    before = sum([media.port > 0 for media in sdp.media])
    for media in sdp.media:
        if media.port:
            _keep(media, allowed)
    if before and not any([media.port for media in sdp.media]):
        raise ProtocolError(488, "no codec is left that the peer may have")
    return sdp.serialize().partition(b"s=-\r\n")[2]


def with_fmtp_of(description: bytes, other: bytes) -> bytes:
    """The description with what `other` says (fmtp) of the payload types that both have in the same stream.

    Raises ParseError where either is none.
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
    """What its payload types are, in lower case; also what others would be that no rtpmap names."""
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
    """Whether a stream's attribute still means something where these payload types alone are kept."""
    name, value = attribute
    if name not in _BY_PAYLOAD or value is None:
        return True
    payload = value.partition(" ")[0]
    return payload == "*" or payload in kept
