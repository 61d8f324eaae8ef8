"""Codecs and attributes that cross: the allow-list of values, the filter per peer, and the order.

A stream without an allowed codec is refused in its place by port 0 (RFC 3264 6), so that each m= line has a format.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Final

from relay.errors import ProtocolError
from relay.model.settings import Peer
from relay.sip.sdp import Attribute, MediaDescription, Sdp, parse_sdp

# Static payload types (RFC 3551 6), for those without rtpmap.
_STATIC: Final = {
    **{"0": "pcmu", "3": "gsm", "4": "g723", "5": "dvi4", "6": "dvi4", "7": "lpc", "8": "pcma", "9": "g722"},
    **{"10": "l16", "11": "l16", "12": "qcelp", "13": "cn", "14": "mpa", "15": "g728", "16": "dvi4", "17": "dvi4"},
    **{"18": "g729", "25": "celb", "26": "jpeg", "28": "nv", "31": "h261", "32": "mpv", "33": "mp2t", "34": "h263"},
}
_NO_SPEECH: Final = frozenset({"telephone-event", "tone", "cn", "red"})  # useless without another codec
_BY_PAYLOAD: Final = frozenset({"rtpmap", "fmtp", "rtcp-fb"})
_fmtp_lines: Final = re.compile(rb"(?m)^a=fmtp:.*").findall


def common_codecs(one: Peer, other: Peer) -> frozenset[str] | None:
    """Codecs allowed for both peers of a call; None: all. An offer limited to them can be answered."""
    if one.codecs is None or other.codecs is None:
        return one.codecs if other.codecs is None else other.codecs
    return one.codecs & other.codecs


def keep_codecs(sdp: Sdp, allowed: frozenset[str]) -> Sdp:
    """The same masked SDP, reduced to the allowed codecs (names in lower case).

    Raises ProtocolError 488 if no stream is left.
    """
    before = sum([media.port > 0 for media in sdp.media])
    for media in sdp.media:
        if media.port:
            _keep(media, allowed)
    if before and not any([media.port for media in sdp.media]):
        raise ProtocolError(488, "no codec left that is allowed for the peer")
    return sdp


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


def codec_names(media: MediaDescription) -> dict[str, str]:
    """Codec names by payload type, in lower case: of its rtpmap lines and all static types."""
    names = dict(_STATIC)
    for name, value in media.attributes:
        if name == "rtpmap" and value is not None:
            payload, _, codec = value.partition(" ")
            names[payload] = codec.partition("/")[0].lower()
    return names


def _keep(media: MediaDescription, allowed: frozenset[str]) -> None:
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
_ATTRIBUTE_ORDER: Final = {
    name: rank
    for rank, name in enumerate(
        "rtcp rtcp-mux rtcp-rsize crypto rtpmap fmtp rtcp-fb ptime maxptime framerate"
        " sendrecv sendonly recvonly inactive".split()
    )
}
_OTHER: Final = len(_ATTRIBUTE_ORDER)


def put_in_order(sdp: Sdp) -> None:
    """Sort formats and attributes within each stream; the streams keep their places (RFC 3264 6)."""
    _sort(sdp.attributes, [])
    for media in sdp.media:
        if "RTP/" in media.protocol:
            _sort_formats(media)
        _sort(media.attributes, media.formats)


def _sort_formats(media: MediaDescription) -> None:
    names = codec_names(media)
    said = {value.partition(" ")[0]: value for name, value in media.attributes if name == "fmtp" and value}
    rates = {value.partition(" ")[0]: _rate(value) for name, value in media.attributes if name == "rtpmap" and value}

    def place(payload: str) -> tuple[int, str, int, str, int]:
        """Orders by rank and name, within one codec by rate (highest first), then by fmtp."""
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
        rank = _ATTRIBUTE_ORDER.get(name, _OTHER)
        return rank, name if rank == _OTHER else "", formats.index(payload) if payload in formats else -1

    attributes.sort(key=place)


# -- Attributes that cross, and their values

_LONGEST_VALUE: Final = 512  # characters of an attribute; longer ones are dropped
_FLAG_ATTRIBUTES: Final = frozenset("sendrecv sendonly recvonly inactive rtcp-mux rtcp-rsize".split())
KNOWN_CODECS: Final = frozenset(
    "pcmu pcma g722 g7221 g723 g728 g729 g729d g729e gsm gsm-efr gsm-hr-08 ilbc isac speex silk opus amr amr-wb"
    " amr-wb+ evs l16 g726-16 g726-24 g726-32 g726-40 dvi4 lpc bv16 bv32 vdvi qcelp mpa cn red telephone-event tone"
    " clearmode h261 h263 h263-1998 h263-2000 h264 h265 vp8 vp9 av1 jpeg".split()
)

_PAYLOAD: Final = r"(?:[1-9]?[0-9]|1[01][0-9]|12[0-7])"
_RATE: Final = r"[0-9]{1,3}(?:\.[0-9]{1,2})?"
_BAND: Final = r"(?:nb|wb|swb|fb)"
# Short values of one kind each: too short for a party's number, even with separators.
_FMTP_VALUES: Final = {
    r"[0-9]{1,6}": (
        "octet-align mode-change-period mode-change-capability mode-change-neighbor crc robust-sorting interleaving"
        " max-red bitrate useinbandfec usedtx stereo sprop-stereo cbr maxplaybackrate sprop-maxcapturerate"
        " maxaveragebitrate minptime maxptime ptime dtx dtx-recv hf-only evs-mode-switch packetization-mode"
        " level-asymmetry-allowed max-mbps max-fs max-fr max-br max-cpb max-dpb max-smbps apt level profile qcif cif"
    ),
    r"[0-8](?:,[0-8]){0,8}": "mode-set",
    r"[0-9]{1,2}|any": "mode",
    r"yes|no": "annexa annexb",
    r"on|off|vad": "vbr",
    r"[0-9a-fA-F]{6}|[0-9]{1,3}": "profile-level-id",
    r"-1|[0-7]": "cmr ch-aw-recv",
    r"[1-6](?:-[1-6])?": "ch-send ch-recv",
    rf"{_RATE}(?:-{_RATE})?": "br br-send br-recv",
    rf"{_BAND}(?:-{_BAND})?": "bw bw-send bw-recv",
}
_is_fmtp_value: Final = {
    name: re.compile(pattern).fullmatch for pattern, names in _FMTP_VALUES.items() for name in names.split()
}
_match_fmtp: Final = re.compile(rf"({_PAYLOAD}) +(.+)").fullmatch
_is_redundancy: Final = re.compile(rf"{_PAYLOAD}(?:/{_PAYLOAD}){{1,4}}").fullmatch  # RFC 2198 5
_is_events: Final = re.compile(r"[0-9]{1,3}(?:-[0-9]{1,3})?(?:,[0-9]{1,3}(?:-[0-9]{1,3})?){0,15}").fullmatch
_match_rtpmap: Final = re.compile(rf"{_PAYLOAD} ([A-Za-z0-9+-]{{1,20}})/[0-9]{{3,6}}(?:/[1-8])?").fullmatch
_is_crypto: Final = re.compile(  # RFC 4568 9.2; suites of RFC 4568 6.2, 6188, 7714
    r"[1-9][0-9]? (?:AES_CM_128_HMAC_SHA1_(?:80|32)|F8_128_HMAC_SHA1_80|AES_(?:192|256)_CM_HMAC_SHA1_(?:80|32)"
    r"|AEAD_AES_(?:128|256)_GCM(?:_8)?) inline:[A-Za-z0-9+/]{38,64}={0,2}(?:\|2\^[0-9]{1,2})?(?:\|[0-9]{1,3}:[0-9])?"
).fullmatch
_is_feedback: Final = re.compile(
    rf"(?:{_PAYLOAD}|\*) (?:nack(?: pli| sli| rpsi)?|ccm (?:fir|tmmbr)|ack rpsi|goog-remb|trr-int [0-9]{{1,5}})"
).fullmatch
_is_small: Final = re.compile(r"[0-9]{1,5}").fullmatch


def mask_attribute(name: str, value: str | None) -> Attribute | None:
    """The masked attribute, or None if it is not on the allow-list."""
    if value is None:
        return (name, None) if name in _FLAG_ATTRIBUTES else None
    mask = _VALUED_ATTRIBUTES.get(name)
    if mask is None or len(value) > _LONGEST_VALUE:
        return None
    kept = mask(value)
    return None if kept is None else (name, kept)


@lru_cache(maxsize=1024)
def _mask_rtpmap(value: str) -> str | None:
    found = _match_rtpmap(value)
    return value if found and found[1].lower() in KNOWN_CODECS else None


@lru_cache(maxsize=1024)
def _mask_fmtp(value: str) -> str | None:
    """The parameters of known codecs that have a valid value."""
    found = _match_fmtp(value)
    if found is None or not value.isascii():
        return None
    payload, settings = found.groups()
    if _is_redundancy(settings) or (_is_events(settings) and _ascend(settings)):
        return f"{payload} {settings}"
    kept = []
    for parameter in settings.split(";"):
        name, _, setting = parameter.strip().partition("=")
        is_value = _is_fmtp_value.get(name.lower())
        if is_value and is_value(setting):
            kept.append(f"{name}={setting}")
    return f"{payload} {';'.join(kept)}" if kept else None


def _ascend(events: str) -> bool:
    """Whether a list of telephone events ascends, up to 255 (RFC 4733 2.4.1), which few numbers would."""
    numbers = [int(number) for number in re.split("[,-]", events)]
    return numbers[-1] <= 255 and all(low < high for low, high in pairwise(numbers))


def _mask_rtcp(value: str) -> str | None:
    """The port only (RFC 3605): the address may differ from that of the media."""
    return _passing(_is_small)(value.partition(" ")[0])


def _passing(is_value: Callable[[str], re.Match[str] | None]) -> Callable[[str], str | None]:
    return lambda value: value if is_value(value) else None


_VALUED_ATTRIBUTES: Final[dict[str, Callable[[str], str | None]]] = {
    "rtpmap": _mask_rtpmap,
    "fmtp": _mask_fmtp,
    "ptime": _passing(_is_small),
    "maxptime": _passing(_is_small),
    "framerate": _passing(_is_small),
    "rtcp": _mask_rtcp,
    "crypto": _passing(_is_crypto),
    "rtcp-fb": _passing(_is_feedback),
}
