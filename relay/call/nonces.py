"""Nonces that need no memory until they are used: a time and a random token under a keyed MAC (RFC 7616 3.3, 5.4).

Each counts its uses, so that no credentials are taken twice. It reads no clock and draws no random number.
"""

from __future__ import annotations

import hmac
from typing import Final

LIFE_S: Final = 300.0
MOST_COUNTED: Final = 10_000  # nonces whose uses are remembered; older ones are stale
_MS_DIGITS, _MAC_DIGITS = 12, 32


class Nonces:
    """Of one relay. `now` is in monotonic seconds."""

    def __init__(self, key: bytes) -> None:
        """`key`: 16 random bytes or more. Nonces under another key are stale."""
        self._key = key
        self._counts: dict[str, int] = {}  # the highest so far, by nonce, in the order of first use
        self._forgotten_ms = -1  # what was made up to then and is not in `_counts` is stale

    def make(self, host: str, token: str, now: float) -> str:
        """One for requests from that host. `token`: random hexadecimal digits."""
        start = f"{int(now * 1000):0{_MS_DIGITS}x}{token}"
        return start + self.mac(start, host)

    def mac(self, *parts: str) -> str:
        """32 hexadecimal digits that only this relay can tell for the texts."""
        data = "\n".join(parts).encode("utf-8", "surrogateescape")
        return hmac.digest(self._key, data, "sha256").hex()[:_MAC_DIGITS]

    def is_fresh(self, nonce: str, host: str, now: float) -> bool:
        """Whether it was made here for that host, and not long ago."""
        start, mac = nonce[:-_MAC_DIGITS], nonce[-_MAC_DIGITS:]
        if not nonce.isascii() or not hmac.compare_digest(mac, self.mac(start, host)):
            return False
        return now - _made_ms(nonce) / 1000 <= LIFE_S

    def count(self, nonce: str, number: int) -> bool:
        """Counts a use of a fresh one. False where that number, or a higher one, was there before: a replay."""
        last = self._counts.get(nonce)
        if last is None:
            if _made_ms(nonce) <= self._forgotten_ms:
                return False
            self._make_room()
        elif number <= last:
            return False
        self._counts[nonce] = number
        return True

    def _make_room(self) -> None:
        while len(self._counts) >= MOST_COUNTED:
            oldest = next(iter(self._counts))
            del self._counts[oldest]
            self._forgotten_ms = max(self._forgotten_ms, _made_ms(oldest))


def _made_ms(nonce: str) -> int:
    return int(nonce[:_MS_DIGITS], 16)
