"""Leak detection of the replay: one side's private data in messages to the other side (DESIGN 3).

Stricter than the relay's own leak check: it also searches for every header value and every private SDP line sent.
"""

from __future__ import annotations

import re

from relay.sip.message import Message

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
