"""The order of codecs and attributes in a description; part of the masking.

Two makes of phone that have the same codecs list them in different orders, so the order says what a phone is. Where
rtpengine is in between, all descriptions have one order: ours. Numbers of payload types are left: rtpengine passes
packets on under the number that they came with, so what is written must be what the other side sends and takes.
"""

from __future__ import annotations

from typing import Final

from relay.call.codecs import codec_names
from relay.sip.sdp import Attribute, Media, Sdp

# What both sides have is used in this order: first what sounds best, then what costs least. What is no speech of its
# own is last. Whatever is not named stands between, by its name.
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
    """Streams stay in their places (RFC 3264 6): what is within each is put in order."""
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
        """Of several of one codec the highest rate first, and then by what is said of them."""
        name = names.get(payload, payload)
        settings = said.get(payload, "").partition(" ")[2]
        return _RANKS.get(name, 0), name, -rates.get(payload, 0), settings, int(payload)

    media.formats.sort(key=place)


def _rate(rtpmap: str) -> int:
    return int(rtpmap.split("/")[1])


def _sort(attributes: list[Attribute], formats: list[str]) -> None:
    """By their names, and by the order of the payload types that they are of; else as they came: crypto has one."""

    def place(attribute: Attribute) -> tuple[int, str, int]:
        name, value = attribute
        payload = value.partition(" ")[0] if value is not None and name in _BY_PAYLOAD else ""
        rank = _ATTRIBUTES.get(name, _OTHER)
        return rank, name if rank == _OTHER else "", formats.index(payload) if payload in formats else -1

    attributes.sort(key=place)
