"""The headers and body of a replayed message: those of the trace, without dialog headers, with numbers replaced."""

from __future__ import annotations

from collections.abc import Iterable

from relay.sip.message import Message

SHORTEST_NUMBER = 5  # characters; shorter user parts are not replaced

# Headers generated for each message, and those that only served the traced hop.
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
    """Replaces traced numbers by those of a binding, anywhere in a side's messages."""

    def __init__(self, numbers: Iterable[tuple[str, str]]) -> None:
        """`numbers`: pairs (traced, ours), replaced longest first: one may be part of another."""
        worth = {(traced, ours) for traced, ours in numbers if len(traced) >= SHORTEST_NUMBER}
        self._numbers = sorted(worth, key=lambda pair: -len(pair[0]))

    def headers(self, message: Message, *, without: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
        """The traced headers to keep."""
        return [
            (name, self._replace(value)) for name, value in message.headers if name not in _OWN and name not in without
        ]

    def body(self, message: Message) -> tuple[list[tuple[str, str]], bytes]:
        """The Content-Type header and the body."""
        if not message.body:
            return [], b""
        body = message.body.decode("utf-8", "surrogateescape")
        content_type = [("content-type", message.get("content-type") or "application/octet-stream")]
        return content_type, self._replace(body).encode("utf-8", "surrogateescape")

    def _replace(self, text: str) -> str:
        for traced, ours in self._numbers:
            text = text.replace(traced, ours)
        return text
