"""Prescan of a message's bytes before a parse: To tag, matching keys, and the headers that a response copies.

For well-formed messages it agrees with `parse_message`; for unusual syntax it gives no result.
"""

from __future__ import annotations

from typing import Final

from relay.errors import ParseError
from relay.sip.message import Request, parse_message

Copied = tuple[bytes, bytes, bytes, bytes, bytes, bytes]
"""The headers that a response copies (RFC 3261 8.2.6.2): the value of the topmost Via, the other Vias as lines with
their ends, and the values of From, To, Call-ID and CSeq."""

# First letters of the lines to copy, and of unusual lines: a Via in another spelling, or a folded line.
_V: Final = ord("V")
_F: Final = ord("F")
_T: Final = ord("T")
_C: Final = ord("C")
_ODD: Final = frozenset(b"v \t")


Marks = tuple[str, str, str, str]
"""Method (of a response: from its CSeq), topmost Via, From tag and To tag ("" for none)."""


def marks(data: bytes) -> Marks | None:
    """The keys that match a message to its transaction and dialog. None for unusual syntax or a malformed message."""
    via, from_, to, cseq = [_first(data, name) for name in (b"\r\nVia: ", b"\r\nFrom: ", b"\r\nTo: ", b"\r\nCSeq: ")]
    from_tag, to_tag = _tag(from_), _tag(to)
    if not (via and from_ and to and cseq) or from_tag is None or to_tag is None:
        return None
    method = cseq.rpartition(" ")[2] if data.startswith(b"SIP/2.0 ") else _text(data[: data.find(b" ")])
    return method, via, from_tag, to_tag


def _first(data: bytes, name: bytes) -> str:
    """The value of the first line with that name, "" if there is none or it has no end."""
    start = data.find(name)
    if start < 0:
        return ""
    start += len(name)
    end = data.find(b"\r\n", start)
    return _text(data[start:end]) if end >= 0 else ""


def _text(part: bytes) -> str:
    return part.decode("utf-8", "surrogateescape")


def _tag(address: str) -> str | None:
    """The tag, "" for none. None: there are parameters, perhaps with a tag in another spelling."""
    _, _, parameters = address.rpartition(">")[2].partition(";")
    _, equals, rest = f";{parameters}".partition(";tag=")
    return None if parameters and not equals else rest.partition(";")[0]


def is_untagged(data: bytes) -> bool:
    """Whether it is a request without a To tag (RFC 3261 8.1.1.2). Undefined for malformed messages."""
    start = data.find(b"\r\nTo:")
    end = data.find(b"\r\n", start + 5)
    if start < 0 or data[end + 2 : end + 3] in (b" ", b"\t") or start > data.find(b"\r\n\r\n"):
        return _is_untagged(data)
    rest = data[start + 5 : end].rpartition(b">")[2]
    if rest.find(b'"') >= 0:  # `in` costs twice as much
        return _is_untagged(data)
    _, tag, value = rest.partition(b";tag=")
    if tag and value[:1].isalnum():
        return False
    return _is_untagged(data) if rest.find(b";") >= 0 or data.startswith(b"SIP/2.0 ") else True


def _is_untagged(data: bytes) -> bool:
    try:
        message = parse_message(data)
        return isinstance(message, Request) and message.to_tag is None
    except ParseError:
        return False


def copied(data: bytes) -> Copied | None:
    """The headers to copy, of a request without a To tag. None: it has one, or unusual syntax. Undefined for malformed
    requests."""
    end = max(0, data.find(b"\r\n\r\n"))
    vias: list[bytes] = []
    from_ = to = call_id = cseq = b""
    for line in data[:end].split(b"\r\n"):
        first = line[0] if line else 0
        if first == _C:
            if line.startswith(b"Call-ID: "):
                call_id = line[9:]
            elif line.startswith(b"CSeq: "):
                cseq = line[6:]
        elif first == _F and line.startswith(b"From: "):
            from_ = line[6:]
        elif first == _T and line.startswith(b"To: "):
            to = line[4:]
        elif first == _V and line.startswith(b"Via: "):
            vias.append(line)
        elif first == _V or first in _ODD:
            return None
    if not (vias and from_ and to and call_id and cseq) or (to[-1:] != b">" and to.find(b";") >= 0):
        return None
    others = b"" if len(vias) == 1 else b"\r\n".join([*vias[1:], b""])
    return vias[0][5:], others, from_, to, call_id, cseq
