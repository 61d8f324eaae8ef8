"""What identifies one side: words, numbers, addresses and cell ids that must never reach the other one."""

from __future__ import annotations

import re
from typing import NamedTuple

_SEPARATORS = re.compile(rb"[-. ()/,;=%]")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


class Marks(NamedTuple):
    """`word` is in whatever has room for one; the others stand where a word cannot."""

    word: str
    number: str  # of the party, national form
    friend: str  # another real number of that side, as a diversion brings
    cseq: int  # where its sequence numbers begin: as telling as an address
    host: str  # signalling address
    inner: str  # address behind its NAT
    inner6: str
    cell: str

    def found_in(self, data: bytes) -> list[str]:
        """The marks that the bytes hold, in any case and any notation of numbers."""
        plain = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), data).lower()
        words = (self.word, self.inner, self.inner6, self.cell)
        found = [word for word in words if word.lower().encode() in plain]
        if re.search(rb"(?<![0-9.])%b(?![0-9])" % re.escape(self.host.encode()), plain):
            found.append(self.host)
        digits = b"\n".join(_SEPARATORS.sub(b"", line) for line in plain.splitlines())
        numbers = (self.number, self.friend, str(self.cseq)[:-2])
        return found + [number for number in numbers if number.encode() in digits]

    def notations(self) -> tuple[str, ...]:
        """The friend's number in the ways that peers write numbers."""
        number = self.friend
        dashed = f"{number[:3]}-{number[3:7]}-{number[7:]}"
        escaped = "".join(f"%3{digit}" for digit in number)
        return (
            *(number, f"+86{number}", f"0086{number}", f"86{number}", f"0{number}", dashed, f"+86-{dashed}"),
            *(dashed.replace("-", "."), f"+86.({number[:3]}){number[3:]}", escaped),
        )


ALICE = Marks(
    "alicemark",
    "13800000001",
    "13711112222",
    1_380_000_000,
    "127.0.0.11",
    "10.11.12.13",
    "2001:db8:a11c::1",
    "46000a11ce",
)
BOB = Marks(
    "bobmark", "13900000002", "13722223333", 1_390_000_000, "127.0.0.22", "10.22.12.13", "2001:db8:b0b::1", "460000b0b0"
)
