"""What must not be seen on the other side of a call, and whether it is (DESIGN 3).

It is stricter than the relay's own tripwire: it also looks for every header value, SDP name and id that was sent.
"""

from __future__ import annotations

import re

from relay.sip.message import Message

SHORTEST = 8  # characters of a header value or SDP line that is searched for: shorter ones occur by chance

# Lines that the relay may well write itself, word for word.
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
    """What one side has sent or is known by. `find` looks for it in what the other side receives."""

    def __init__(self) -> None:
        self._anywhere: dict[bytes, str] = {}  # what to look for -> what it is
        self._hosts: dict[bytes, str] = {}  # looked for in the headers alone: media addresses pass in SDP

    def add(self, what: str, text: str) -> None:
        if text:
            self._anywhere[text.encode("utf-8", "surrogateescape")] = what

    def add_host(self, what: str, host: str) -> None:
        self._hosts[host.encode()] = what

    def add_message(self, message: Message) -> None:
        """Every header value and every line of SDP that tells of its sender."""
        for name, value in message.headers:
            if name not in _HARMLESS and len(value) >= SHORTEST:
                self.add(f"the value of {name}", value)
        for line in _PRIVATE_SDP.findall(message.body):
            if len(line) >= SHORTEST:
                self._anywhere[line] = "a line of SDP that names its sender"

    def find(self, data: bytes) -> list[str]:
        """What of it stands in a message; never the thing itself."""
        head = data.partition(b"\r\n\r\n")[0]
        found = {what for text, what in self._anywhere.items() if text in data}
        for host, what in self._hosts.items():
            around = rb"[0-9A-Fa-f:]" if b":" in host else rb"[\w.]"  # else it is part of a longer address or name
            if re.search(b"(?<!%b)%b(?!%b)" % (around, re.escape(host), around), head):
                found.add(what)
        return sorted(found)
