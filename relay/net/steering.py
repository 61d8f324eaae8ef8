"""Which of several workers a SIP message is for, told from the message alone.

A worker's tokens begin with its hexadecimal digit, so what answers a request of ours (its branch) or is inside a dialog
(its To tag) tells the worker. What begins something goes by the number that it dials, since a number's caps are counted
in one worker. It opens no socket and knows no worker's state.
"""

from __future__ import annotations

import re
from typing import Final
from zlib import crc32

from relay.call.admission import number_dialled
from relay.errors import ParseError
from relay.sip.message import Request, Response, parse_message
from relay.sip.transaction import MAGIC_COOKIE

# Nearly all messages are written like these; what is not is parsed. Both read alike: see tests/net/test_steering.py.
_match_response: Final = re.compile(
    rb"SIP/2\.0 [1-6][0-9]{2} [^\r\n]*+\r\n"
    rb"(?:[^Vv \t\r\n][^\r\n]*+\r\n)*+"  # header lines that are no Via
    rb'Via: [^;,"\r\n]*+(?:;(?!branch=)[^;,"\r\n]*+)*+;branch=z9hG4bK([0-9a-f])[0-9a-f]{15}(?=[;,\r])'
    rb'[^"\r\n]*+\r\n(?![ \t])'
).match
_match_start: Final = re.compile(
    rb"([A-Z]++) (?:"
    rb"sip:700[0-9]{10}([0-9]{2})@[A-Za-z0-9][A-Za-z0-9._-]*+(?::[1-5]?+[0-9]{1,4}+)?+(?:;[a-z]++=[a-z]++)*+"
    rb"|[^ \r\n]++) SIP/2\.0\r\n"
).match
_find_to: Final = re.compile(
    rb'\r\nTo: (?:[^>\r\n]*+>)++(?:;tag=([0-9a-f])[0-9a-f]{15}(?:;[^"\r\n]*+)?+)?+\r\n(?![ \t])'
).search
_is_token: Final = re.compile(r"[0-9a-f]{16}").fullmatch  # relay.tokens


def owner(data: bytes, workers: int) -> int | None:
    """The worker, from 0, that a datagram or a stream's message is for; `workers` is 2 to 16.

    None: it is of no call, and whoever has it serves it. All messages of one transaction, its CANCEL and the ACK to its
    refusal have the same owner. Of what cannot be parsed it may be anybody.
    """
    if data.startswith(b"SIP/2.0 "):
        response = _match_response(data)
        return _owner_of_any(data, workers) if response is None else int(response[1], 16) % workers
    start, to = _match_start(data), _find_to(data)
    if start is None or to is None or to.start() > data.find(b"\r\n\r\n"):
        return _owner_of_any(data, workers)
    method, digits = start.groups()
    if method == b"REGISTER":
        return 0
    if tag := to[1]:
        return int(tag, 16) % workers
    if method == b"OPTIONS":
        return None
    return _owner_of_any(data, workers) if digits is None else int(digits) % workers


def _owner_of_any(data: bytes, workers: int) -> int | None:
    try:
        message = parse_message(data)
        if isinstance(message, Response):
            return _owner_of_token(message.branch.removeprefix(MAGIC_COOKIE), workers)
        if message.method == "REGISTER":
            return 0
        if message.to_tag is not None:
            return _owner_of_token(message.to_tag, workers)
    except ParseError:
        return None
    return None if message.method == "OPTIONS" else _owner_of_new(message, workers)


def _owner_of_token(token: str, workers: int) -> int | None:
    """None: it is none of ours, as in a stray response or a request in a dialog that we never had."""
    return int(token[0], 16) % workers if _is_token(token) else None


def _owner_of_new(request: Request, workers: int) -> int | None:
    number = number_dialled(request)
    if number:
        return int(number[-2:]) % workers
    call_id = request.get("call-id")
    return None if call_id is None else crc32(call_id.encode("utf-8", "surrogateescape")) % workers
