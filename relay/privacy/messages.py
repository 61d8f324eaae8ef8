"""Writing of the relay's own messages from a leg's constants; headers of the other side come in masked."""

from __future__ import annotations

import re
from typing import Final

from relay.model.settings import Listener
from relay.privacy.masking import Body
from relay.sip.message import PHRASES, Flow, Request, Response

PATH_MTU_LIMIT: Final = 1300  # bytes; RFC 3261 18.1.1: larger requests need a transport with congestion control
MOST_BY_UDP: Final = 65_507  # bytes; the payload of the largest UDP datagram over IPv4


def encode(text: str) -> bytes:
    try:
        return text.encode()  # a third of the cost, and rarely fails
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


def contact_line(listener: Listener, shown: str, *, secure: bool = False) -> str:
    """Our Contact on the listener; `shown`: the number that the peer knows, or "".

    `secure`: for a dialog begun with a sips: URI (RFC 3261 8.1.1.8, 12.1.1).
    """
    if secure:
        user = f"{shown}@" if shown else ""
        return f"Contact: <sips:{user}{listener.contact.removesuffix(';transport=tls')}>\r\n"
    return f"Contact: <sip:{shown}@{listener.contact}>\r\n" if shown else f"Contact: <sip:{listener.contact}>\r\n"


def unsupported_line(unknown: list[str]) -> str:
    """The header of a 420 that names the option tags we do not know (RFC 3261 8.2.2.3)."""
    return f"Unsupported: {', '.join(unknown)}\r\n"


def timestamp_line(request: Request) -> str:
    """The Timestamp that a 100 copies (RFC 3261 8.2.6.1), "" for none and for one that is malformed."""
    value = request.get("timestamp")
    return f"Timestamp: {value}\r\n" if value is not None and _is_timestamp(value) else ""


_is_timestamp: Final = re.compile(r"[0-9]{1,10}(?:\.[0-9]{0,9})?(?:[ \t]{1,4}[0-9]{0,9}(?:\.[0-9]{0,9})?)?").fullmatch


class OutgoingRequest:
    """A request without its Via: branch and transport are chosen at each sending."""

    __slots__ = ("_body", "_constants", "_credentials", "_cseq", "_rest", "method", "uri")

    def __init__(self, method: str, uri: str, constants: str, cseq: int, rest: str, body: Body | None = None) -> None:
        """`constants`: the lines Route, From, To, Call-ID; `rest`: further header lines; each line with its CRLF."""
        self.method = method
        self.uri = uri
        self._constants = constants
        self._cseq = cseq
        self._credentials = ""
        self._rest = rest + _body_lines(body)
        self._body = body.data if body else b""

    def with_credentials(self, cseq: int, credentials: str) -> OutgoingRequest:
        """A copy with a new CSeq and these authorization header lines (RFC 3261 22.2)."""
        request = OutgoingRequest(self.method, self.uri, self._constants, cseq, "")
        request._credentials = credentials
        request._rest = self._rest
        request._body = self._body
        return request

    @property
    def size(self) -> int:
        """Approximate size in bytes, for the choice of a transport: 120 for start line, Via and CSeq."""
        return len(self._constants) + len(self._credentials) + len(self._rest) + len(self._body) + 120

    def render(self, listener: Listener, branch: str) -> bytes:
        rest = self._credentials + self._rest if self._credentials else self._rest
        return self._write(self.method, listener, branch, self._constants, rest) + self._body

    def cancel(self, listener: Listener, branch: str, reason: str) -> bytes:
        """The CANCEL of this request (RFC 3261 9.1). `reason`: a masked Reason line, or ""."""
        rest = f"Max-Forwards: 70\r\n{reason}Content-Length: 0\r\n\r\n"
        return self._write("CANCEL", listener, branch, self._constants, rest)

    def ack(self, response: Response, listener: Listener, branch: str) -> bytes:
        """The ACK to a non-2xx final response, whose To it takes (RFC 3261 17.1.1.3)."""
        to = response.get("to")
        constants = _TO_LINE.sub(lambda _: f"To: {to}\r\n", self._constants, count=1) if to else self._constants
        rest = f"{self._credentials}Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        return self._write("ACK", listener, branch, constants, rest)

    def _write(self, method: str, listener: Listener, branch: str, constants: str, rest: str) -> bytes:
        return encode(
            f"{method} {self.uri} SIP/2.0\r\nVia: {listener.via};branch={branch};rport\r\n"
            f"{constants}CSeq: {self._cseq} {method}\r\n{rest}"
        )


_TO_LINE: Final = re.compile(r"(?m)^To: .*\r\n")


_STATUS_LINES: Final = {status: f"SIP/2.0 {status} {phrase}\r\n" for status, phrase in PHRASES.items()}


class Reply:
    """Writer of the responses to one request: headers copied by RFC 3261 8.2.6.2, and destination (18.2.2, RFC 3581).

    It holds what the sender itself wrote, which therefore stays out of the leak check.
    """

    __slots__ = ("_after_to", "_before_to", "_record_route", "_to", "flow", "to_tag")

    def __init__(self, request: Request, flow: Flow) -> None:
        """Raises ParseError if a header to copy is missing or malformed."""
        via = request.via
        via_lines, port = _received(request, via.host, via.port, via.params, flow)
        self.flow = flow if port == flow.port or flow.reliable else flow._replace(port=port)
        self._before_to = f"{via_lines}From: {request.demand('from')}\r\nTo: "
        self._to = request.get("to") or ""
        self._after_to = f"\r\nCall-ID: {request.call_id}\r\nCSeq: {request.demand('cseq')}\r\n"
        self.to_tag = request.to_tag
        self._record_route = ""
        if request.method == "INVITE" and self.to_tag is None and request.has("record-route"):
            self._record_route = "".join([f"Record-Route: {value}\r\n" for value in request.get_all("record-route")])

    def write(self, status: int, *, to_tag: str = "", extra: str = "", body: Body | None = None) -> bytes:
        """The response. `extra`: further header lines, each with CRLF. `to_tag` is for a request whose To has none."""
        tag = f";tag={to_tag}" if to_tag and self.to_tag is None else ""
        if 100 < status < 300:  # a dialog-creating response copies Record-Route (RFC 3261 12.1.1)
            extra = self._record_route + extra
        text = f"{_STATUS_LINES[status]}{self._before_to}{self._to}{tag}{self._after_to}{extra}{_body_lines(body)}"
        return encode(text) + (body.data if body else b"")


def _body_lines(body: Body | None) -> str:
    if body is None:
        return "Content-Length: 0\r\n\r\n"
    return f"Content-Type: {body.content_type}\r\nContent-Length: {len(body.data)}\r\n\r\n"


def _received(
    request: Request, host: str, port: int | None, params: dict[str, str | None], flow: Flow
) -> tuple[str, int]:
    """The Via lines of a response, with received and rport on the topmost, and the port to send it to."""
    vias = _vias(request)
    first = vias[0]
    if "received" in params:  # a value set by the sender is not trusted
        first = str(request.via.without("received"))
    if "rport" in params:  # RFC 3581 4
        first = _set_rport(first, flow.port)
        reply_port = flow.port
    else:
        reply_port = port or 5060
    if host != flow.host or "rport" in params:
        first += f";received={flow.host}"
    vias[0] = first
    return "".join([f"Via: {via}\r\n" for via in vias]), reply_port


def _vias(request: Request) -> list[str]:
    lines = request.get_all("via")
    return request.values("via") if len(lines) > 1 or "," in lines[0] else lines


def _set_rport(via: str, port: int) -> str:
    """Set the value of the `rport` parameter, replacing one set by the sender."""
    parts = via.split(";")
    return ";".join(f"rport={port}" if part.partition("=")[0].strip().lower() == "rport" else part for part in parts)
