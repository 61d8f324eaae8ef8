"""A user agent controlled by the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.sip.message import Flow, Request, Response, parse_message
from tests.ladder.descriptions import OFFER

if TYPE_CHECKING:
    from tests.ladder.ladder import Ladder


class Side:
    """It keeps its last INVITE, dialog and CSeq for the next step."""

    def __init__(self, ladder: Ladder, host: str, name: str) -> None:
        self.ladder = ladder
        self.host = host
        self.name = name
        self.uri_host = f"[{host}]" if ":" in host else host
        self.relay = ladder.relay_host(host)
        self.inbox: list[tuple[bytes, Flow]] = []
        self.received: list[bytes] = []
        self.flow = Flow(ladder.listener(host), "udp", host, 5060)
        self.call_id = f"{name}-call"
        self.tag = f"{name}-tag"
        self.cseq = 0
        self.remote_tag = ""
        self.from_uri = self.to_uri = self.target = ""
        self.via_count = 0
        self.invite: Request | None = None  # the initial INVITE last received
        self.sent: dict[str, bytes] = {}  # the last request sent, by method
        self.answered = b""  # the last response sent
        self.contact = f"<sip:{name}@{self.uri_host}:5060>"

    # -- received messages

    def get(self, what: str | int) -> Request | Response:
        """Take the next message from the inbox, which must have that method or status."""
        assert self.inbox, f"{self.name} got nothing, not {what}"
        data, _ = self.inbox.pop(0)
        self.received.append(data)
        message = parse_message(data)
        kind = message.method if isinstance(message, Request) else message.status
        assert kind == what, f"{self.name} got {kind}, not {what}:\n{data.decode()}"
        if isinstance(message, Request):
            if message.method == "INVITE" and message.to_tag is None:
                self._be_called(message)
        elif message.cseq.method == "INVITE" and message.status > 100 and message.to_tag:
            self._learn(message)
        return message

    def get_request(self, method: str) -> Request:
        message = self.get(method)
        assert isinstance(message, Request)
        return message

    def get_response(self, status: int) -> Response:
        message = self.get(status)
        assert isinstance(message, Response)
        return message

    def last(self) -> Request | Response:
        """The message last taken."""
        return parse_message(self.received[-1])

    def gets_nothing(self) -> None:
        assert not self.inbox, f"{self.name} got more:\n" + "\n".join(data.decode() for data, _ in self.inbox)

    def _be_called(self, invite: Request) -> None:
        self.invite = invite
        self.call_id = invite.call_id
        self.remote_tag = invite.from_tag or ""
        self.from_uri, self.to_uri = invite.to.uri_text, invite.from_.uri_text
        assert invite.contact is not None
        self.target = invite.contact.uri_text

    def _learn(self, response: Response) -> None:
        self.remote_tag = response.to_tag or ""
        if response.contact is not None:
            self.target = response.contact.uri_text

    # -- requests

    def invites(
        self,
        number: str,
        *,
        caller: str = "13800000001",
        body: bytes = OFFER,
        headers: str = "",
        hops: int = 70,
        contact: str | None = None,
        content_type: str = "application/sdp",
    ) -> None:
        """Send the INVITE of a new call."""
        self.from_uri, self.to_uri = f"sip:{caller}@{self.uri_host}", f"sip:{number}@{self.relay}"
        self.target = f"sip:{number}@{self.relay}:5060"
        self.remote_tag = ""
        lines = f"Contact: {contact or self.contact}\r\n{headers}"
        self.sends("INVITE", body=body, headers=lines, hops=hops, content_type=content_type)

    def texts(
        self,
        number: str,
        text: bytes = b"at the gate",
        *,
        caller: str = "13800000001",
        content_type: str = "text/plain",
        headers: str = "",
        hops: int = 70,
    ) -> None:
        """Send a MESSAGE outside a dialog."""
        self.from_uri, self.to_uri = f"sip:{caller}@{self.uri_host}", f"sip:{number}@{self.relay}"
        self.target = f"sip:{number}@{self.relay}:5060"
        self.remote_tag = ""
        self.call_id = f"{self.name}-text-{self.cseq}"
        self.sends("MESSAGE", body=text, content_type=content_type, headers=headers, hops=hops)

    def reinvites(self, body: bytes = b"", headers: str = "") -> None:
        """Send a re-INVITE, and take the 100."""
        self.sends("INVITE", body=body, headers=f"Contact: {self.contact}\r\n{headers}")
        self.get(100)

    def updates(self, body: bytes = b"", headers: str = "") -> None:
        self.sends("UPDATE", body=body, headers=f"Contact: {self.contact}\r\n{headers}")

    def sends(
        self,
        method: str,
        *,
        body: bytes = b"",
        headers: str = "",
        cseq: int | None = None,
        content_type: str = "application/sdp",
        hops: int = 70,
    ) -> None:
        """Send a request in the dialog, or one that opens it. ACK and CANCEL have the CSeq of the last INVITE."""
        if cseq is None:
            if method not in ("ACK", "CANCEL"):
                self.cseq += 1
            cseq = self._invite_cseq() if method in ("ACK", "CANCEL") else self.cseq
        if method != "CANCEL":
            self.via_count += 1
        to_tag = f";tag={self.remote_tag}" if self.remote_tag and method != "CANCEL" else ""
        if body:
            headers += f"Content-Type: {content_type}\r\n"
        text = (
            f"{method} {self.target} SIP/2.0\r\n"
            f"Via: SIP/2.0/{self.flow.transport.upper()} {self.uri_host}:5060;"
            f"branch=z9hG4bK{self.name}{self.via_count};rport\r\n"
            f"From: <{self.from_uri}>;tag={self.tag}\r\nTo: <{self.to_uri}>{to_tag}\r\n"
            f"Call-ID: {self.call_id}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: {hops}\r\n"
            f"{headers}Content-Length: {len(body)}\r\n\r\n"
        )
        self.sent[method] = text.encode() + body
        self.ladder.deliver(self.sent[method], self.flow)

    def _invite_cseq(self) -> int:
        return parse_message(self.sent["INVITE"]).cseq.number

    def acks(self, body: bytes = b"") -> None:
        """Send the ACK to a 2xx to its last INVITE."""
        self.sends("ACK", body=body)

    def acks_refusal(self) -> None:
        """Send the ACK to the last non-2xx final response, in the INVITE's transaction."""
        response = self.last()
        assert isinstance(response, Response)
        self.ladder.deliver(ack_to_refusal(self.sent["INVITE"], response), self.flow)

    def calls(self, number: str, **invite: Any) -> None:
        """`invites`, and take the 100."""
        self.invites(number, **invite)
        if self.inbox and self.inbox[0][0].startswith(b"SIP/2.0 100 "):  # a call refused at once has none
            self.get(100)

    def is_answered(self) -> None:
        """Take the 200 to its last INVITE, and acknowledge it."""
        self.get(200)
        self.acks()

    def is_refused(self, status: int) -> None:
        """Take that refusal of its last INVITE, and acknowledge it."""
        self.get(status)
        self.acks_refusal()

    def cancels(self, headers: str = "") -> None:
        """Send the CANCEL of its last INVITE."""
        invite = parse_message(self.sent["INVITE"])
        assert isinstance(invite, Request)
        text = (
            f"CANCEL {invite.uri} SIP/2.0\r\nVia: {invite.get('via')}\r\nFrom: {invite.get('from')}\r\n"
            f"To: {invite.get('to')}\r\nCall-ID: {invite.call_id}\r\nCSeq: {invite.cseq.number} CANCEL\r\n"
            f"Max-Forwards: 70\r\n{headers}Content-Length: 0\r\n\r\n"
        )
        self.sent["CANCEL"] = text.encode()
        self.ladder.deliver(self.sent["CANCEL"], self.flow)

    def gives_up(self) -> None:
        """`cancels`, and take the 200 and the 487."""
        self.cancels()
        self.get(200)
        self.is_refused(487)

    def sends_again(self, method: str) -> None:
        """Retransmit its last request of that method."""
        self.ladder.deliver(self.sent[method], self.flow)

    # -- responses

    def accepts(self, *request: Request, **answer: Any) -> None:
        """`answers` an INVITE with 200, and take the ACK."""
        self.answers(200, *request, **answer)
        self.get("ACK")

    def rings(self) -> Request:
        """Take an INVITE, and answer it with 180."""
        invite = self.get_request("INVITE")
        self.proceeds(180)
        return invite

    def proceeds(self, status: int, **answer: Any) -> Response:
        """`answers` with a provisional response that reaches the caller."""
        self.answers(status, **answer)
        return self.ladder.caller.get_response(status)

    def is_cancelled(self, *invite: Request) -> Request:
        """Take the CANCEL of an INVITE, and refuse that with 487."""
        cancel = self.expects("CANCEL")
        self.refuses(487, *invite)
        return cancel

    def agrees(self, body: bytes) -> Request:
        """Take an INVITE, answer it with 200, and take the ACK."""
        invite = self.expects("INVITE", body=body)
        self.get("ACK")
        return invite

    def refuses(self, status: int, *request: Request, **answer: Any) -> None:
        """`answers` an INVITE with that status, and take the ACK."""
        self.answers(status, *request, **answer)
        self.get("ACK")

    def answers(
        self,
        status: int,
        request: Request | None = None,
        *,
        body: bytes = b"",
        headers: str = "",
        tag: str | None = None,
        contact: str | None = None,
        reason: str = "whatever",
    ) -> None:
        """Send a response to `request`, by default to the last received initial INVITE. `contact`: "" for none."""
        request = request or self.invite
        assert request is not None
        tag = self.tag if tag is None else tag
        to_tag = f";tag={tag}" if request.to_tag is None and status > 100 and tag else ""
        where = self.contact if contact is None else contact
        if where and request.method in ("INVITE", "UPDATE") and 100 < status < 300:
            headers += f"Contact: {where}\r\n"
        if body:
            headers += "Content-Type: application/sdp\r\n"
        vias = "".join(f"Via: {value}\r\n" for value in request.get_all("via"))
        text = (
            f"SIP/2.0 {status} {reason}\r\n{vias}From: {request.get('from')}\r\nTo: {request.get('to')}{to_tag}\r\n"
            f"Call-ID: {request.call_id}\r\nCSeq: {request.get('cseq')}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        )
        self.answered = text.encode() + body
        self.ladder.deliver(self.answered, self.flow)

    def answers_again(self) -> None:
        """Retransmit its last response."""
        self.ladder.deliver(self.answered, self.flow)

    def expects(self, method: str, status: int = 200, **answer: object) -> Request:
        """Take a request and answer it; take the ACK to a refusal."""
        request = self.get_request(method)
        self.answers(status, request, **answer)  # type: ignore[arg-type]
        if method == "INVITE" and status >= 300:
            self.get("ACK")
        return request


def ack_to_refusal(data: bytes, response: Response) -> bytes:
    """The ACK to a non-2xx final response (RFC 3261 17.1.1.3). `data`: the INVITE."""
    invite = parse_message(data)
    assert isinstance(invite, Request)
    return (
        f"ACK {invite.uri} SIP/2.0\r\nVia: {invite.get('via')}\r\nFrom: {invite.get('from')}\r\n"
        f"To: {response.get('to')}\r\nCall-ID: {invite.call_id}\r\nCSeq: {invite.cseq.number} ACK\r\n"
        "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    ).encode()
