"""All that one party's side may see of the other: the only module that lets anything across (DESIGN 3).

It works by allow-list. Each function takes a message as it came and gives what may be written into the message that
goes out; what it does not name does not exist on the other side. It never sends and keeps nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from relay.call.sdp_masking import SdpWriter
from relay.errors import ParseError, ProtocolError
from relay.sip.headers import parse_reason
from relay.sip.message import Message, Request, Response
from relay.sip.sdp import parse_sdp

METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "PRACK", "UPDATE", "INFO", "OPTIONS")
OPTION_TAGS = ("100rel", "timer")
ALLOW = f"Allow: {', '.join(METHODS)}\r\n"
CAPABILITIES = f"{ALLOW}Accept: application/sdp\r\nSupported: {', '.join(OPTION_TAGS)}\r\n"  # RFC 3261 11.2

PHRASES = {
    100: "Trying",
    180: "Ringing",
    182: "Queued",
    183: "Session Progress",
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    413: "Request Entity Too Large",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    420: "Bad Extension",
    422: "Session Interval Too Small",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    484: "Address Incomplete",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    491: "Request Pending",
    500: "Server Internal Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "Version Not Supported",
    513: "Message Too Large",
    603: "Decline",
}

# 181 and 199 tell of the callee's forwarding and forking; the caller is told of ringing or of progress only.
_PROVISIONAL = {180: 180, 181: 182, 182: 182, 183: 183}


class Verdict(NamedTuple):
    """What the caller is told of an attempt that did not connect, and how the record calls it."""

    status: int
    q850_cause: int
    outcome: str


# A callee's final answer -> what the caller sees. 3xx carries a real target, 401/407/503 speak of the callee's network:
# none of them is shown. What is not listed falls back on its class.
_FINAL = {
    300: Verdict(480, 20, "unreachable"),
    400: Verdict(480, 41, "failed"),
    401: Verdict(480, 21, "failed"),
    403: Verdict(480, 21, "rejected"),
    404: Verdict(404, 1, "unreachable"),
    407: Verdict(480, 21, "failed"),
    408: Verdict(480, 18, "unreachable"),
    410: Verdict(404, 22, "unreachable"),
    415: Verdict(488, 88, "failed"),
    420: Verdict(480, 111, "failed"),
    422: Verdict(422, 31, "failed"),
    480: Verdict(480, 18, "unreachable"),
    484: Verdict(404, 28, "unreachable"),
    486: Verdict(486, 17, "busy"),
    488: Verdict(488, 88, "failed"),
    500: Verdict(480, 41, "failed"),
    503: Verdict(480, 34, "unreachable"),
    504: Verdict(480, 102, "unreachable"),
    600: Verdict(486, 17, "busy"),
    603: Verdict(603, 21, "rejected"),
    604: Verdict(404, 1, "unreachable"),
    606: Verdict(488, 88, "failed"),
}
NO_ANSWER = Verdict(480, 19, "no_answer")
LEAK = Verdict(480, 41, "failed")
NO_PEER = Verdict(480, 3, "unreachable")  # Q.850 3: no route to destination
NO_PROGRESS = Verdict(480, 102, "unreachable")  # Q.850 102: recovery on timer expiry
NO_CONNECTION = Verdict(480, 38, "unreachable")  # Q.850 38: network out of order
CANCELLED = Verdict(487, 127, "cancelled")

_IN_DIALOG = frozenset({400, 408, 415, 422, 481, 487, 488, 491, 500})


def mask_provisional(status: int) -> int | None:
    """The 18x shown for a callee's 1xx, or None where nothing is shown (100, 199, unknown ones)."""
    return _PROVISIONAL.get(status)


def mask_final(status: int, *, rang: bool) -> Verdict:
    """The verdict on a callee's final 3xx-6xx to the initial INVITE; `rang`: it had sent 180 before."""
    if rang and status in (408, 480):
        return NO_ANSWER
    return _FINAL.get(status) or _FINAL[status // 100 * 100]


def mask_in_dialog(status: int) -> int:
    """The final status shown for one to a request inside a call: ours only where the requester can act on it."""
    if 200 <= status < 300:
        return 200
    if status in _IN_DIALOG:
        return status
    return 500 if status >= 500 else 488


class Body(NamedTuple):
    content_type: str
    data: bytes


def mask_body(message: Message, writer: SdpWriter) -> Body | None:
    """The body that may pass: SDP written anew, or a DTMF digit; None where there is none.

    Raises ProtocolError 415 for any other type and 488 for SDP that cannot be read.
    """
    if not message.body:
        return None
    content_type = message.content_type
    kind = content_type.type if content_type else ""
    if kind == "application/sdp":
        return _mask_sdp(message.body, writer)
    if kind.startswith("multipart/") and content_type is not None:
        return _mask_sdp(_sdp_part(message.body, content_type.params.get("boundary")), writer)
    if kind in _DTMF and isinstance(message, Request) and message.method == "INFO":
        return _mask_dtmf(message.body, kind)
    raise ProtocolError(415, "only SDP and DTMF bodies are relayed")


def mask_ack_body(ack: Request, writer: SdpWriter) -> Body | None:
    """The body that may pass in an ACK, which cannot be refused: one that may not pass is left out."""
    try:
        return mask_body(ack, writer)
    except (ProtocolError, ParseError):
        return None


def has_sdp(message: Message) -> bool:
    """Whether the message carries an offer or an answer (RFC 3264)."""
    content_type = message.content_type if message.body else None
    return content_type is not None and (
        content_type.type == "application/sdp" or content_type.type.startswith("multipart/")
    )


def _mask_sdp(body: bytes, writer: SdpWriter) -> Body:
    try:
        return Body("application/sdp", writer.write(parse_sdp(body)))
    except ParseError as error:
        raise ProtocolError(488, f"SDP: {error.reason}") from error


def _sdp_part(body: bytes, boundary: str | None) -> bytes:
    """The first application/sdp part of a multipart body (RFC 2046 5.1)."""
    if not boundary:
        raise ProtocolError(400, "multipart body without a boundary")
    delimiter = b"\r\n--" + boundary.encode("utf-8", "surrogateescape")
    for part in (b"\r\n" + body).split(delimiter)[1:]:
        head, blank, content = part.partition(b"\r\n\r\n")
        if blank and _SDP_PART.search(head):
            return content
    raise ProtocolError(415, "multipart body without SDP")


_SDP_PART = re.compile(rb"(?im)^(?:content-type|c)[ \t]*:[ \t]*application/sdp[ \t]*(?:;|\r?$)")
_DTMF = {
    "application/dtmf-relay": re.compile(rb"(?i)\s*signal\s*=\s*([0-9*#a-d]|flash)\s+duration\s*=\s*(\d{1,5})\s*"),
    "application/dtmf": re.compile(rb"(?i)\s*([0-9*#a-d]|flash)\s*"),
}


def _mask_dtmf(body: bytes, kind: str) -> Body:
    found = _DTMF[kind].fullmatch(body) if len(body) <= 64 else None
    if found is None:
        raise ProtocolError(415, "not a DTMF digit")
    if kind == "application/dtmf":
        return Body(kind, found[1])
    return Body(kind, b"Signal=%b\r\nDuration=%b\r\n" % (found[1], found[2]))


def mask_request_headers(request: Request) -> str:
    """The header lines of a request that cross: Allow, Supported, Require, session timer, Reason."""
    headers = request.index
    lines = mask_tokens("Allow", headers["allow"], METHODS) if "allow" in headers else ""
    if "supported" in headers:
        lines += mask_tokens("Supported", ",".join(request.get_all("supported")), OPTION_TAGS)
    if "require" in headers:
        lines += mask_tokens("Require", ",".join(request.get_all("require")), OPTION_TAGS)
    if "session-expires" in headers or "min-se" in headers:
        lines += _session_timer(request)
    return lines + mask_reason(request)


def mask_response_headers(response: Response) -> str:
    """The header lines of a response that cross: as of a request, but for Reason."""
    headers = response.index
    lines = mask_tokens("Allow", headers["allow"], METHODS) if "allow" in headers else ""
    if "supported" in headers:
        lines += mask_tokens("Supported", ",".join(response.get_all("supported")), OPTION_TAGS)
    if "require" in headers:
        lines += mask_tokens("Require", ",".join(response.get_all("require")), OPTION_TAGS)
    if "session-expires" in headers or "min-se" in headers:
        lines += _session_timer(response)
    return lines


@lru_cache(maxsize=1024)
def mask_tokens(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """The line `name: …` with the tokens of `value` that are allowed, in our order and spelling; "" if none is."""
    given = {token.strip().lower() for token in value.split(",")}
    kept = [token for token in allowed if token.lower() in given]
    return f"{name}: {', '.join(kept)}\r\n" if kept else ""


def unknown_requirements(request: Request) -> list[str]:
    """The option tags of Require that the relay does not know (RFC 3261 8.2.2.3: answer 420)."""
    if "require" not in request.index:
        return []
    return [tag for tag in request.values("require") if tag.lower() not in OPTION_TAGS]


def _session_timer(message: Message) -> str:
    """Session-Expires and Min-SE (RFC 4028), written anew."""
    lines = ""
    timer = message.session_expires
    if timer is not None:
        refresher = f";refresher={timer.refresher}" if timer.refresher else ""
        lines = f"Session-Expires: {timer.seconds}{refresher}\r\n"
    if (min_se := message.min_se) is not None:
        lines += f"Min-SE: {min_se}\r\n"
    return lines


def mask_reason(message: Message) -> str:
    """Reason lines (RFC 3326) as protocol and cause only; values of other protocols or without a cause are dropped."""
    if "reason" not in message.index:
        return ""
    lines = ""
    for value in message.get_all("reason")[:4]:
        try:
            reason = parse_reason(value)
        except ParseError:
            continue
        protocol = {"q.850": "Q.850", "sip": "SIP"}.get(reason.protocol.lower())
        if protocol and reason.cause is not None and 0 < reason.cause < 1000:
            lines += f"Reason: {protocol};cause={reason.cause}\r\n"
    return lines


class Tripwire:
    """The last look at what is about to cross: searches it for the other party's number and addresses, as bytes.

    Only what the relay itself or the other side brought into a message is searched. Lines that echo the receiver's own
    words (Via, From, Call-ID of its request; its Contact) are not: a party could plant guesses there and read from
    our silence which of them is the other party's number.

    A number of less than 7 digits is searched for as a user part only, since "101" is also a payload type.
    """

    __slots__ = ("_hosts", "_numbers")

    def __init__(self, numbers: tuple[str, ...], hosts: tuple[str, ...]) -> None:
        self._numbers = tuple({needle for number in numbers for needle in _needles(number)})
        self._hosts = tuple({host.encode() for host in hosts if host})

    def hit(self, head: bytes, body: bytes = b"", *, own: tuple[str, ...] = ()) -> bool:
        """Whether `head` holds a number or an address, or `body` a number, of the other side.

        `own`: the receiver's own number and the 700 number it is shown, which may contain the other's by chance.
        """
        for host in self._hosts:
            if host in head and _stands_alone(host, head):
                return True
        for number in self._numbers:
            if number in head or number in body:
                return self._is_no_own(own, head, body)
        return False

    def _is_no_own(self, own: tuple[str, ...], head: bytes, body: bytes) -> bool:
        for number in own:
            head, body = head.replace(number.encode(), b"~"), body.replace(number.encode(), b"~")
        return any(number in head or number in body for number in self._numbers)


def _stands_alone(host: bytes, text: bytes) -> bool:
    """Whether the address is there as a whole: 10.0.0.1 is in 10.0.0.12, and is not that host."""
    before, after = (rb"[\w:]", rb"[\w:]") if b":" in host else (rb"[\w.-]", rb"[\w-]|\.\w")
    return re.search(rb"(?<!%b)%b(?!%b)" % (before, re.escape(host), after), text) is not None


def _needles(number: str) -> tuple[bytes, ...]:
    if not number:
        return ()
    # The national form is part of every other way to write a Chinese number.
    national = number[2:] if number.startswith("86") and len(number) > 9 else number
    if len(national) >= 7:
        return (national.encode(),)
    return tuple(form.encode() for form in (f":{national}@", f":+{national}@", f"tel:{national}", f'"{national}"'))
