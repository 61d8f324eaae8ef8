"""RTP streams of a recording: which side sends to which of rtpengine's ports, and in which codecs.

The relay hands `describe` to rtpengine at the start of a recording. rtpengine writes it, and each later SDP of its own,
into the text beside the capture, which `read_streams` reads. The backend keeps that as the capture's first packet
(`note_packet`). Nothing in it comes from a party but codecs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

# Names of codecs that are understood, in lower case. The last two are no speech.
CODECS: Final = frozenset("pcmu pcma g722 amr amr-wb opus telephone-event cn".split())
STATIC: Final = {0: "pcmu", 8: "pcma", 9: "g722", 13: "cn"}  # RFC 3551 6
OCTET_ALIGNED: Final = "/octet-align"  # behind amr and amr-wb: RFC 4867 4.4
MOST_PORTS: Final = 32
MOST_TYPES: Final = 32  # of a port
LINK_ETHERNET: Final = 1  # of a capture; others are raw IP

_of_sound: Final = re.compile(rb"(?m)^(?:m=|a=rtpmap:|a=fmtp:)[ -~]*").findall
_is_media: Final = re.compile(r"m=(\w+) (\d{1,5})(?:/\d+)? ").match
_is_rtpmap: Final = re.compile(r"a=rtpmap:(\d{1,3}) ([\w-]+)/").match
_is_fmtp: Final = re.compile(r"a=fmtp:(\d{1,3}) .*octet-align=1").match


class RtpStream(NamedTuple):
    """The RTP sent to one port."""

    side: str  # "caller" or "callee"; "": not known
    types: dict[int, str]  # codecs by payload type, static ones only if they were named


def describe(given: Mapping[str, bytes]) -> str:
    """The text for rtpengine. `given`: its last SDP for each side, which names the port that the side sends to."""
    lines: list[str] = []
    for side, sdp in given.items():
        lines.append(f"side={side}")
        lines += [line.decode("ascii") for line in _of_sound(sdp)]
    return "\n".join(lines)


def read_streams(text: str) -> dict[int, RtpStream]:
    """The streams by port, from rtpengine's text. A payload type has one codec for a whole call (RFC 3264 8.3.2)."""
    found: dict[int, RtpStream] = {}
    side, stream = "", None
    for line in text.splitlines():
        if line.startswith("SDP mode:"):
            side = ""
        elif line.startswith("side="):
            side = line[5:]
        elif media := _is_media(line):
            stream = _at_port(found, int(media[2]), side) if media[1] == "audio" and media[2] != "0" else None
        elif stream is not None:
            _add_codec(stream.types, line)
    return found


# -- The streams as a packet: from and to this machine, port 9 (discard), which no medium uses

_NOTE_HOST: Final = bytes([127, 0, 0, 1])
_NOTE_HEAD: Final = 28  # of IP and UDP
_NOTE_PORT: Final = 9


def note_packet(streams: Mapping[int, RtpStream], link: int) -> bytes:
    """The packet, for a capture of this link type."""
    lines = ["relay700"]
    for port, (side, types) in streams.items():
        lines += [f"side={side}", f"m=audio {port} RTP/AVP 0"]
        for type_, name in types.items():
            plain = name.removesuffix(OCTET_ALIGNED)
            lines.append(f"a=rtpmap:{type_} {plain}/")
            if plain != name:
                lines.append(f"a=fmtp:{type_} octet-align=1")
    text = "\n".join(lines).encode("ascii")
    size = _NOTE_HEAD + len(text)
    ip = bytes([0x45, 0]) + size.to_bytes(2, "big") + bytes([0, 0, 0, 0, 0, 17, 0, 0]) + _NOTE_HOST + _NOTE_HOST
    udp = b"".join([number.to_bytes(2, "big") for number in (_NOTE_PORT, _NOTE_PORT, size - 20, 0)])
    ethernet = bytes(12) + b"\x08\x00" if link == LINK_ETHERNET else b""
    return ethernet + ip + udp + text


def read_note(data: bytes) -> dict[int, RtpStream]:
    """The streams in an IP packet; {} if it is none of ours."""
    if data[16:20] != _NOTE_HOST or data[22:24] != _NOTE_PORT.to_bytes(2, "big"):
        return {}
    return read_streams(data[_NOTE_HEAD:].decode("ascii", "replace"))


# -- Lines of SDP


def _at_port(found: dict[int, RtpStream], port: int, side: str) -> RtpStream | None:
    known = found.get(port)
    if known is None:
        if len(found) >= MOST_PORTS:
            return None
        known = found[port] = RtpStream(side, {})
    elif side and not known.side:
        known = found[port] = known._replace(side=side)
    elif side and known.side != side:  # the same port on two interfaces
        known = found[port] = known._replace(side="")
    return known


def _add_codec(types: dict[int, str], line: str) -> None:
    if rtpmap := _is_rtpmap(line):
        if (name := rtpmap[2].lower()) in CODECS and len(types) < MOST_TYPES:
            types[int(rtpmap[1])] = name
    elif (fmtp := _is_fmtp(line)) and types.get(int(fmtp[1])) in ("amr", "amr-wb"):
        types[int(fmtp[1])] += OCTET_ALIGNED
