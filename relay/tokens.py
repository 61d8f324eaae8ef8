"""Random tokens for tags, branches, Call-IDs and session ids, from the system's CSPRNG."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

DIGITS: Final = 16  # hexadecimal: the worker's, and 60 random bits
_POOL_BYTES: Final = 4096


def tokens(worker: int = 0) -> Iterator[str]:
    """Tokens without end. Randomness is fetched for 512 at a time: 0.06 us each, against 0.25 of `secrets.token_hex`.

    Each begins with the hexadecimal digit of the `worker`, 0 to 15. Where there is but one process that is 0: after a
    restart with several workers all tags of a call must name the same one. Not to be shared by processes: each makes
    its own after a fork.
    """
    digit = bytes([worker << 4 | byte & 0x0F for byte in range(256)])
    while True:
        pool = _pool(digit).hex()
        for start in range(0, len(pool), DIGITS):
            yield pool[start : start + DIGITS]


def _pool(digit: bytes) -> bytes:
    """`digit` translates the first byte of each token."""
    pool = bytearray(os.urandom(_POOL_BYTES))
    pool[:: DIGITS // 2] = pool[:: DIGITS // 2].translate(digit)
    return bytes(pool)
