"""An independent parser of SIP messages, so that the tests do not verify the relay by its own codec."""

from __future__ import annotations

import re
from dataclasses import dataclass

COMPACT = {
    "i": "call-id", "m": "contact", "e": "content-encoding", "l": "content-length", "c": "content-type", "f": "from",
    "s": "subject", "k": "supported", "t": "to", "v": "via", "o": "event", "r": "refer-to", "b": "referred-by",
    "x": "session-expires",
}  # fmt: skip


@dataclass(frozen=True)
class SipText:
    """One message; header names are lower-case long names."""

    first_line: str
    headers: list[tuple[str, str]]
    body: bytes

    @classmethod
    def parse(cls, data: bytes) -> SipText:
        """Never raises: malformed parts are kept as received."""
        head, _, body = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
        first, *lines = re.sub(r"\r\n[ \t]+", " ", head.decode("utf-8", "surrogateescape")).split("\r\n")
        headers = []
        for line in lines:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            headers.append((COMPACT.get(name, name), value.strip()))
        return cls(first, headers, body)

    @property
    def status(self) -> int:
        """The status; 0 for a request."""
        return int(self.first_line.split()[1]) if self.first_line.startswith("SIP/2.0 ") else 0

    @property
    def method(self) -> str:
        """The method in CSeq, of a response."""
        return self["cseq"].split()[-1] if self.status else self.first_line.split()[0]

    @property
    def uri(self) -> str:
        return self.first_line.split()[1]

    def __getitem__(self, name: str) -> str:
        """The first value; "" without one."""
        return next((value for key, value in self.headers if key == name), "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def text(self) -> str:
        """Header lines, with lower-case long names, and the body."""
        lines = [f"{name}: {value}" for name, value in self.headers]
        return "\n".join([*lines, "", self.body.decode("utf-8", "replace")])

    @property
    def tag(self) -> str:
        """The To tag."""
        return tag_of(self["to"])

    @property
    def contact_uri(self) -> str:
        return uri_of(self["contact"])

    @property
    def branch(self) -> str:
        match = re.search(r";\s*branch=([^;,\s]+)", self["via"])
        return match[1] if match else ""


def tag_of(value: str) -> str:
    match = re.search(r";\s*tag=([^;\s]+)", value.rpartition(">")[2] or value)
    return match[1] if match else ""


def uri_of(value: str) -> str:
    """The URI of a name-addr or addr-spec."""
    match = re.search(r"<([^>]*)>", value)
    return match[1] if match else value.partition(";")[0].strip()


def user_of(value: str) -> str:
    """The user part of a From, To, Contact or bare URI."""
    return uri_of(value).partition(":")[2].partition("@")[0]
