"""Uniform order of codecs and attributes in SDP, part of the masking.

The order of codecs reveals the make of a phone. With rtpengine in between, all SDPs have the same order. Payload type
numbers stay: rtpengine forwards packets with their original number.
"""

from __future__ import annotations

from typing import Final

from relay.call.codecs import codec_names
from relay.sip.sdp import Attribute, Media, Sdp

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
_BY_PAYLOAD: Final = frozenset({"rtpmap", "fmtp", "rtcp-fb"})


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
