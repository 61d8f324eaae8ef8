"""What a look at a request's bytes tells, before it is parsed: whether it begins something, and what an answer copies.

What it says of a message that can be parsed is what `parse_message` says; of what is written unusually it says nothing.
"""

from __future__ import annotations

import re
from typing import Final

from relay.errors import ParseError
from relay.sip.message import Request, parse_message

Copied = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes]
"""What a response copies (RFC 3261 8.2.6.2). Of the topmost Via what it says before its parameters, and the parameters
from the first ";" on; the other Vias, each with its line end; the values of From, To, Call-ID and CSeq."""

_match_vias: Final = re.compile(
    rb"[A-Z]++ [^\r\n]++\r\n"
    rb'Via: (SIP/2\.0/[A-Z]++ [^;,"\r\n]++)([^,"\r\n]*+)\r\n'
    rb"((?:Via: [^\r\n]++\r\n)*+)"
).match
_find_odd: Final = re.compile(rb"\r\n[Vv \t]").search  # another Via, a folded line


def is_untagged(data: bytes) -> bool:
    """Whether it is a request without a To tag (RFC 3261 8.1.1.2). Of what cannot be parsed: anything."""
    start = data.find(b"\r\nTo:")
    end = data.find(b"\r\n", start + 5)
    if start < 0 or data[end + 2 : end + 3] in (b" ", b"\t") or start > data.find(b"\r\n\r\n"):
        return _is_untagged(data)
    rest = data[start + 5 : end].rpartition(b">")[2]
    if b'"' in rest:
        return _is_untagged(data)
    _, tag, value = rest.partition(b";tag=")
    if tag and value[:1].isalnum():
        return False
    return _is_untagged(data) if b";" in rest or data.startswith(b"SIP/2.0 ") else True


def _is_untagged(data: bytes) -> bool:
    try:
        message = parse_message(data)
        return isinstance(message, Request) and message.to_tag is None
    except ParseError:
        return False


def copied(data: bytes) -> Copied | None:
    """None: it is written unusually. Whether what it copies is well formed is not looked at."""
    vias = _match_vias(data)
    if vias is None:
        return None
    end = data.find(b"\r\n\r\n")
    if end < vias.end() - 2:  # compiled, a slice that ends before it begins is an error
        return None
    rest = data[vias.end() - 2 : end + 2]
    if _find_odd(rest):
        return None
    from_, to = _value(rest, b"\r\nFrom: "), _value(rest, b"\r\nTo: ")
    call_id, cseq = _value(rest, b"\r\nCall-ID: "), _value(rest, b"\r\nCSeq: ")
    if not (from_ and to and call_id and cseq):
        return None
    return vias[1], vias[2], vias[3], from_, to, call_id, cseq


def _value(lines: bytes, name: bytes) -> bytes:
    start = lines.find(name)
    if start < 0:
        return b""
    start += len(name)
    return lines[start : lines.find(b"\r\n", start)]
