"""Digest nonces without state until their first use: time and random token under a keyed MAC (RFC 7616 3.3, 5.4).

Nonce counts are tracked, so that credentials cannot be replayed. It reads no clock and draws no random number.
"""

from __future__ import annotations

import hmac
from typing import Final

LIFE_S: Final = 300.0
MOST_COUNTED: Final = 10_000  # nonces with a tracked count; older ones are stale
_MS_DIGITS, _MAC_DIGITS = 12, 32


class Nonces:
    """The nonces of one engine. `now` is in monotonic seconds."""

    def __init__(self, key: bytes) -> None:
        """`key`: 16 random bytes or more. Nonces under another key are stale."""
        self._key = key
        self._counts: dict[str, int] = {}  # highest nonce count by nonce, in order of first use
        self._forgotten_ms = -1  # nonces made up to then and not in `_counts` are stale

    def make(self, host: str, token: str, now: float) -> str:
        """A nonce for requests from that host. `token`: random hexadecimal digits."""
        start = f"{int(now * 1000):0{_MS_DIGITS}x}{token}"
        return start + self.mac(start, host)

    def mac(self, *parts: str) -> str:
        """The keyed MAC of the texts, 32 hexadecimal digits."""
        data = "\n".join(parts).encode("utf-8", "surrogateescape")
        return hmac.digest(self._key, data, "sha256").hex()[:_MAC_DIGITS]

    def is_fresh(self, nonce: str, host: str, now: float) -> bool:
        """Whether the nonce is ours for that host and at most LIFE_S old."""
        start, mac = nonce[:-_MAC_DIGITS], nonce[-_MAC_DIGITS:]
        if not nonce.isascii() or not hmac.compare_digest(mac, self.mac(start, host)):
            return False
        return now - _made_ms(nonce) / 1000 <= LIFE_S

    def count(self, nonce: str, number: int) -> bool:
        """Register nonce count `number` of a fresh nonce. False for a replay: not higher than before."""
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
