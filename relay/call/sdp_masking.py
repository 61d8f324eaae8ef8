"""Session descriptions as the other side may see them (DESIGN 3, "SDP"); part of the masking.

Whatever identifies a person, a device or a program is left out: origin, names, keys in clear, candidates, unknown
attributes, codecs and formats. Media addresses pass as they are (`[media] mode = "direct"`).
"""

from __future__ import annotations

import re
from functools import lru_cache

from relay.errors import ParseError
from relay.sip.sdp import Connection, Media, Origin, Sdp

_KINDS = frozenset({"audio", "video", "image", "text"})
_PROTOCOLS = frozenset({"RTP/AVP", "RTP/SAVP", "RTP/AVPF", "RTP/SAVPF", "udptl", "UDPTL"})
_BANDWIDTHS = frozenset({"AS", "CT", "TIAS", "RS", "RR"})
_FLAGS = frozenset({"sendrecv", "sendonly", "recvonly", "inactive", "rtcp-mux", "rtcp-rsize"})
_ENCODINGS = frozenset(
    "pcmu pcma g722 g7221 g723 g728 g729 g729d g729e gsm gsm-efr gsm-hr-08 ilbc isac speex silk opus amr amr-wb"
    " amr-wb+ evs l16 g726-16 g726-24 g726-32 g726-40 dvi4 lpc bv16 bv32 vdvi qcelp mpa cn red telephone-event tone"
    " clearmode h261 h263 h263-1998 h263-2000 h264 h265 vp8 vp9 av1 jpeg t38 t140".split()
)
_FMTP_NAMES = frozenset(
    "annexa annexb mode mode-set octet-align mode-change-period mode-change-capability mode-change-neighbor crc"
    " robust-sorting interleaving max-red bitrate useinbandfec usedtx stereo sprop-stereo cbr maxplaybackrate"
    " sprop-maxcapturerate maxaveragebitrate minptime maxptime ptime br bw br-send br-recv bw-send bw-recv ch-send"
    " ch-recv ch-aw-recv cmr dtx dtx-recv hf-only evs-mode-switch vbr apt profile-level-id packetization-mode"
    " level-asymmetry-allowed max-mbps max-fs max-fr max-br max-cpb max-dpb max-smbps profile level qcif cif".split()
)
_SETTING = r"[0-9a-fA-F]{1,6}(?:\.[0-9]{1,2})?"
_FMTP_VALUE = re.compile(rf"{_SETTING}(?:[,-]{_SETTING}){{0,15}}|yes|no|on|off|any")
_FMTP_EVENTS = re.compile(r"[0-9]{1,3}(?:-[0-9]{1,3})?(?:,[0-9]{1,3}(?:-[0-9]{1,3})?){0,15}")
_FMTP_RED = re.compile(r"[0-9]{1,3}(?:/[0-9]{1,3}){1,4}")
_RTPMAP = re.compile(r"([0-9]{1,3}) ([A-Za-z0-9+-]{1,20})/([0-9]{3,6})(?:/([0-9]{1,2}))?")
_CRYPTO = re.compile(
    r"[0-9]{1,2} [A-Z0-9_]{5,40} inline:[A-Za-z0-9+/=]{20,120}(?:\|2\^[0-9]{1,2})?(?:\|[0-9]{1,3}:[0-9])?"
)
_T38 = re.compile(
    r"T38(?:FaxVersion|MaxBitRate|FaxFillBitRemoval|FaxTranscodingMMR|FaxTranscodingJBIG|FaxRateManagement|FaxMaxBuffer"
    r"|FaxMaxDatagram|FaxMaxIFP|FaxUdpEC|FaxUdpECDepth|VendorInfo)"
)
_T38_VALUE = re.compile(r"[0-9]{1,6}|transferredTCF|localTCF|t38UDPRedundancy|t38UDPFEC|t38UDPNoEC")
_RTCP_FB = re.compile(
    r"(?:[0-9]{1,3}|\*) (?:nack(?: pli| sli| rpsi)?|ccm (?:fir|tmmbr)|ack rpsi|goog-remb|trr-int [0-9]{1,5})"
)
_SMALL = re.compile(r"[0-9]{1,5}")
_STATIC_PAYLOADS = frozenset(str(number) for number in range(35))

Attribute = tuple[str, str | None]


class SdpWriter:
    """Writes one leg's descriptions under the relay's own origin (RFC 3264 8: same session id, version +1 a change)."""

    __slots__ = ("_last", "session_id", "version")

    def __init__(self, session_id: int, version: int = 0) -> None:
        self.session_id = session_id  # 1 to 2**31: no number of a party is that short and that random
        self.version = version  # of the description last written; 0: none yet
        self._last = b""

    def write(self, sdp: Sdp) -> bytes:
        """The description that the leg's peer may see. Raises ParseError where nothing usable is left."""
        masked = Sdp(
            origin=Origin("-", "0", "0", "IP4", "0.0.0.0"),
            connection=sdp.connection,
            bandwidths=_bandwidths(sdp.bandwidths),
            timings=["0 0"],
            attributes=[kept for attribute in sdp.attributes if (kept := mask_attribute(*attribute))],
            media=[_mask_media(media) for media in sdp.media],
        )
        first = sdp.connection or next((c for media in sdp.media for c in media.connections), None)
        if first is None:
            raise ParseError("no connection address", "c")
        return self._under_own_origin(masked, first)

    def _under_own_origin(self, masked: Sdp, connection: Connection) -> bytes:
        content = masked.serialize().partition(b"s=-\r\n")[2]
        if content != self._last:
            self._last = content
            self.version += 1
        # The origin's address is that of the media (RFC 4566 5.2 wants one; none of ours is there in direct mode).
        origin = (
            f"v=0\r\no=- {self.session_id} {self.version} IN {connection.address_type} {connection.address}\r\ns=-\r\n"
        )
        return origin.encode() + content


def _bandwidths(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(kind, value) for kind, value in lines if kind in _BANDWIDTHS and len(value) <= 9]


def _mask_media(media: Media) -> Media:
    if media.kind not in _KINDS or media.protocol not in _PROTOCOLS:
        # RFC 3264 6: the stream stays in its place and is refused.
        return Media("audio", 0, None, "RTP/AVP", ["0"], [], [], [])
    attributes = [kept for attribute in media.attributes if (kept := mask_attribute(*attribute))]
    formats = _formats(media, attributes)
    port = media.port if formats else 0
    return Media(
        media.kind,
        port,
        media.port_count,
        media.protocol,
        formats or ["0"],
        media.connections,
        _bandwidths(media.bandwidths),
        attributes,
    )


def _formats(media: Media, attributes: list[Attribute]) -> list[str]:
    """The payload types that mean something: static ones, and dynamic ones whose codec is known."""
    if media.protocol in ("udptl", "UDPTL"):
        return ["t38"] if "t38" in media.formats else []
    mapped = {value.partition(" ")[0] for name, value in attributes if name == "rtpmap" and value}
    return [payload for payload in media.formats if payload in mapped or payload in _STATIC_PAYLOADS]


@lru_cache(maxsize=4096)
def mask_attribute(name: str, value: str | None) -> Attribute | None:
    """The attribute written anew, or None where it is not on the allow-list."""
    if value is None:
        return (name, None) if name in _FLAGS or _T38.fullmatch(name) else None
    if name == "rtpmap":
        found = _RTPMAP.fullmatch(value)
        return (name, value) if found and found[2].lower() in _ENCODINGS else None
    if name == "fmtp":
        return _mask_fmtp(value)
    if name in ("ptime", "maxptime", "framerate"):
        return (name, value) if _SMALL.fullmatch(value) else None
    if name == "rtcp":
        # RFC 3605: the port alone; an address here may be another one than that of the media.
        port = value.partition(" ")[0]
        return (name, port) if _SMALL.fullmatch(port) else None
    if name == "crypto":
        return (name, value) if _CRYPTO.fullmatch(value) else None
    if name == "rtcp-fb":
        return (name, value) if _RTCP_FB.fullmatch(value) else None
    return (name, value) if _T38.fullmatch(name) and _T38_VALUE.fullmatch(value) else None


def _mask_fmtp(value: str) -> Attribute | None:
    """`fmtp` with the parameters that known codecs define, each with a short numeric value."""
    payload, _, rest = value.partition(" ")
    if not (payload.isdecimal() and len(payload) <= 3):
        return None
    if _FMTP_EVENTS.fullmatch(rest) or _FMTP_RED.fullmatch(rest):
        return ("fmtp", f"{payload} {rest}")
    kept = []
    for parameter in rest.split(";"):
        name, _, setting = parameter.strip().partition("=")
        if name.lower() in _FMTP_NAMES and _FMTP_VALUE.fullmatch(setting):
            kept.append(f"{name}={setting}")
    return ("fmtp", f"{payload} {';'.join(kept)}") if kept else None
