"""How a traced message is sent anew: its own lines about the call, the traced sender's other headers and body."""

from __future__ import annotations

from collections.abc import Iterable

from relay.sip.message import Message

SHORTEST_NUMBER = 5  # characters; a shorter user part is not searched for in texts

# Made anew for each message; and what only served the traced hop.
_OWN = frozenset(
    {
        "authorization",
        "call-id",
        "contact",
        "content-length",
        "content-type",
        "cseq",
        "from",
        "max-forwards",
        "path",
        "proxy-authorization",
        "rack",
        "record-route",
        "route",
        "rseq",
        "to",
        "via",
    }
)


class Wording:
    """Puts the numbers of a binding in the place of the traced ones, wherever a side's messages name them."""

    def __init__(self, numbers: Iterable[tuple[str, str]]) -> None:
        """`numbers`: (traced, ours). The longest is replaced first, since one may be part of another."""
        worth = {(traced, ours) for traced, ours in numbers if len(traced) >= SHORTEST_NUMBER}
        self._numbers = sorted(worth, key=lambda pair: -len(pair[0]))

    def headers(self, message: Message, *, without: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
        """The traced headers that the message keeps."""
        return [
            (name, self._replace(value)) for name, value in message.headers if name not in _OWN and name not in without
        ]

    def body(self, message: Message) -> tuple[list[tuple[str, str]], bytes]:
        """Content-Type, and the body."""
        if not message.body:
            return [], b""
        body = message.body.decode("utf-8", "surrogateescape")
        content_type = [("content-type", message.get("content-type") or "application/octet-stream")]
        return content_type, self._replace(body).encode("utf-8", "surrogateescape")

    def _replace(self, text: str) -> str:
        for traced, ours in self._numbers:
            text = text.replace(traced, ours)
        return text
