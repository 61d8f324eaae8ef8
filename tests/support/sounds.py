"""WAV files as a telephone has them: 8 kHz, mono, A-law."""

from __future__ import annotations

import math
import struct

RATE = 8_000


def a_law_wav(frequency: int, seconds: float) -> bytes:
    """One tone."""
    samples = (int(8_000 * math.sin(2 * math.pi * frequency * n / RATE)) for n in range(int(RATE * seconds)))
    data = bytes(map(_compress, samples))
    head = struct.pack("<4sIHHIIHHH", b"fmt ", 18, 6, 1, RATE, RATE, 1, 8, 0)
    body = b"WAVE" + head + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def _compress(sample: int) -> int:
    """ITU-T G.711: of 16 bits, the sign, the place of the highest one and the four bits behind it."""
    sign, magnitude = (0x80, sample) if sample >= 0 else (0, ~sample)
    exponent = (magnitude >> 8).bit_length()
    mantissa = magnitude >> (exponent + 3 if exponent else 4) & 0x0F
    return (sign | exponent << 4 | mantissa) ^ 0x55
