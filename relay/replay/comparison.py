"""Comparison with the trace: the relay's intended changes, and secrets that must not cross."""

from __future__ import annotations

import re
from typing import NamedTuple

from relay.errors import ParseError, ProtocolError
from relay.privacy import masking
from relay.privacy.sdp import SdpWriter
from relay.sip.message import Message, Request, Response


class DesignedRefusal(NamedTuple):
    """The relay's own answer to a request."""

    statuses: tuple[int, ...]
    why: str


class ShownResponse(NamedTuple):
    """The response that the requester should see. `why` is "" if it is unchanged."""

    status: int | None  # None: no response
    why: str = ""


def refusal_of(request: Request) -> DesignedRefusal | None:
    """How the relay refuses a request of a call; None if it relays it."""
    if request.method not in masking.METHODS:
        return DesignedRefusal((405, 501), f"{request.method} is not relayed")
    try:
        if unknown := masking.unknown_requirements(request):
            return DesignedRefusal((420,), f"option {', '.join(unknown)} is not supported")
    except ParseError:
        return DesignedRefusal((400,), "Require cannot be read")
    if request.method != "ACK" and (status := _refused_body(request)):
        return DesignedRefusal((status,), "its body is not allowed")
    return None


def shown_of(response: Response, invite: Request | None, *, rang: bool, cancelled: bool) -> ShownResponse:
    """The response shown for a response to the initial INVITE (`invite`), or to an in-dialog request."""
    status = response.status
    if status < 200:
        masked = masking.mask_provisional(status)
        return ShownResponse(masked, "" if masked == status else f"{status} is shown as {masked or 'nothing'}")
    if invite and cancelled:
        return ShownResponse(487, "" if status == 487 else f"{status} after CANCEL is shown as 487")
    if status < 300 and _refused_body(response):
        masked = 488 if invite else 500
    elif status < 300:
        masked = 200
    elif invite:
        masked = masking.mask_refusal(response, invite, rang=rang)[0].status
    else:
        masked = masking.mask_in_dialog(status)
    return ShownResponse(masked, "" if masked == status else f"{status} is shown as {masked}")


def _refused_body(message: Message) -> int | None:
    try:
        masking.mask_body(message, SdpWriter(1))
    except ProtocolError as error:
        return error.status
    except ParseError:
        return 400
    return None


# -- Leak detection of the replay

SHORTEST = 8  # characters of a header value or SDP line to search for; shorter ones occur by chance

# Headers that the relay may write identically itself.
_HARMLESS = frozenset(
    {
        "accept",
        "allow",
        "allow-events",
        "content-disposition",
        "content-type",
        "expires",
        "mime-version",
        "min-se",
        "reason",
        "require",
        "session-expires",
        "supported",
    }
)
_PRIVATE_SDP = re.compile(rb"(?m)^(?:[oiuepk]=|s=(?!-)|a=(?:tool|ssrc|msid|candidate|cname)[: ])([^\r\n]+)")


class Secrets:
    """The private data of one side. `find` searches for it in messages to the other side."""

    def __init__(self) -> None:
        self._anywhere: dict[bytes, str] = {}  # secret -> description
        self._hosts: dict[bytes, str] = {}  # likewise, in headers only: media addresses may pass in SDP

    def add(self, what: str, text: str) -> None:
        if text:
            self._anywhere[text.encode("utf-8", "surrogateescape")] = what

    def add_host(self, what: str, host: str) -> None:
        self._hosts[host.encode()] = what

    def add_message(self, message: Message) -> None:
        """Add every header value, and every SDP line that identifies the sender."""
        for name, value in message.headers:
            if name not in _HARMLESS and len(value) >= SHORTEST:
                self.add(f"the value of {name}", value)
        for line in _PRIVATE_SDP.findall(message.body):
            if len(line) >= SHORTEST:
                self._anywhere[line] = "a line of SDP that names its sender"

    def find(self, data: bytes) -> list[str]:
        """Descriptions, never the values, of the secrets that a message contains."""
        head = data.partition(b"\r\n\r\n")[0]
        found = {what for text, what in self._anywhere.items() if text in data}
        for host, what in self._hosts.items():
            around = rb"[0-9A-Fa-f:]" if b":" in host else rb"[\w.]"  # no match within a longer address or name
            if re.search(b"(?<!%b)%b(?!%b)" % (around, re.escape(host), around), head):
                found.add(what)
        return sorted(found)
