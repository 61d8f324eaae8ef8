"""The messages of a caller, as in caller.xml, and the answers of a callee, as in callee.xml. Calls are numbered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

_CALL_ID: Final = b"\r\nCall-ID: f"
_DIGITS: Final = 8
_SDP: Final = b"""v=0\r
o=u%08d 53655765 2353687637 IN IP4 %b\r
s=-\r
c=IN IP4 %b\r
t=0 0\r
m=audio 6000 RTP/AVP 8 0 101\r
a=rtpmap:8 PCMA/8000\r
a=rtpmap:0 PCMU/8000\r
a=rtpmap:101 telephone-event/8000\r
a=fmtp:101 0-16\r
a=ptime:20\r
a=sendrecv\r
"""
_MORE: Final = b"""Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, UPDATE, INFO\r
Supported: 100rel, timer\r
User-Agent: operator-sbc/1.0\r
Content-Type: application/sdp\r
"""
_ANSWER: Final = b"""Allow: INVITE, ACK, CANCEL, OPTIONS, BYE\r
Content-Type: application/sdp\r
Content-Length: %d\r
\r
%b"""
_SDP_ANSWER: Final = b"""v=0\r
o=b 53655765 2353687637 IN IP4 127.0.0.22\r
s=-\r
c=IN IP4 127.0.0.22\r
t=0 0\r
m=audio 6000 RTP/AVP 8 101\r
a=rtpmap:8 PCMA/8000\r
a=rtpmap:101 telephone-event/8000\r
a=fmtp:101 0-16\r
a=ptime:20\r
a=sendrecv\r
"""
_ECHOED: Final = (b"Via", b"From", b"To", b"Call-ID", b"CSeq")


class Dialog(NamedTuple):
    """The data for a call's ACK and BYE."""

    to: bytes
    uri: bytes


class CallerMessages:
    """The requests of a caller at `local` through `target`, by bindings of (caller, number dialled) in turn."""

    def __init__(self, local: tuple[str, int], target: tuple[str, int], bindings: Sequence[Sequence[str]]) -> None:
        self._bindings = [(caller.encode(), dialled.encode()) for caller, dialled in bindings]
        self._host = local[0].encode()
        self._here = b"%b:%d" % (self._host, local[1])
        self._there = b"%b:%d" % (target[0].encode(), target[1])

    def invite(self, number: int) -> bytes:
        caller, _ = self._binding(number)
        body = _SDP % (number, self._host, self._host)
        uri = self._uri(number)
        return (
            b"INVITE %b SIP/2.0\r\n%bTo: <%b>\r\nCSeq: 1 INVITE\r\n"
            b"Contact: <sip:%b@%b>\r\n%bContent-Length: %d\r\n\r\n%b"
            % (uri, self._start(number, b"i"), uri, caller, self._here, _MORE, len(body), body)
        )

    def ack(self, number: int, dialog: Dialog) -> bytes:
        return self._without_body(b"ACK", 1, number, b"a", dialog)

    def ack_of_refusal(self, number: int, refusal: bytes) -> bytes:
        """RFC 3261 17.1.1.3: in the transaction of the INVITE."""
        return self._without_body(b"ACK", 1, number, b"i", Dialog(_value(refusal, b"To"), self._uri(number)))

    def bye(self, number: int, dialog: Dialog) -> bytes:
        return self._without_body(b"BYE", 2, number, b"b", dialog)

    def _binding(self, number: int) -> tuple[bytes, bytes]:
        return self._bindings[number % len(self._bindings)]

    def _uri(self, number: int) -> bytes:
        return b"sip:%b@%b" % (self._binding(number)[1], self._there)

    def _without_body(self, method: bytes, cseq: int, number: int, branch: bytes, dialog: Dialog) -> bytes:
        return b"%b %b SIP/2.0\r\n%bTo: %b\r\nCSeq: %d %b\r\nContent-Length: 0\r\n\r\n" % (
            method, dialog.uri, self._start(number, branch), dialog.to, cseq, method,
        )  # fmt: skip

    def _start(self, number: int, branch: bytes) -> bytes:
        return (
            b"Via: SIP/2.0/UDP %b;branch=z9hG4bKf%b%08d\r\nMax-Forwards: 70\r\n"
            b'From: "Alice" <sip:%b@%b>;tag=f%08d%b%08d\r\n'
            % (self._here, branch, number, self._binding(number)[0], self._here, number, _CALL_ID, number)
        )


def answer(request: bytes, status: bytes, contact: bytes, *, with_sdp: bool) -> bytes:
    """A callee's answer, such as "180 Ringing"."""
    echoed = [b"%b: %b" % (name, _value(request, name)) for name in _ECHOED]
    if b";tag=" not in echoed[2]:
        echoed[2] += b";tag=callee"
    head = b"\r\n".join([b"SIP/2.0 " + status, *echoed, b"Contact: " + contact, b""])
    return head + (_ANSWER % (len(_SDP_ANSWER), _SDP_ANSWER) if with_sdp else b"Content-Length: 0\r\n\r\n")


def number_of(message: bytes) -> int:
    """The number of the call."""
    at = message.find(_CALL_ID) + len(_CALL_ID)
    return int(message[at : at + _DIGITS])


def dialog_of(answer: bytes) -> Dialog:
    """The dialog that a 200 establishes."""
    return Dialog(_value(answer, b"To"), _value(answer, b"Contact").partition(b"<")[2].partition(b">")[0])


def _value(data: bytes, name: bytes) -> bytes:
    at = data.find(b"\r\n%b: " % name) + len(name) + 4
    return data[at : data.find(b"\r\n", at)]
