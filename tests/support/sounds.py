"""Telephone WAV files: 8 kHz, mono, A-law."""

from __future__ import annotations

import math
import struct
import wave
from pathlib import Path

RATE = 8_000


def a_law_wav(frequency: int, seconds: float) -> bytes:
    """A tone."""
    samples = (int(8_000 * math.sin(2 * math.pi * frequency * n / RATE)) for n in range(int(RATE * seconds)))
    data = bytes(map(_compress, samples))
    head = struct.pack("<4sIHHIIHHH", b"fmt ", 18, 6, 1, RATE, RATE, 1, 8, 0)
    body = b"WAVE" + head + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def write_a_law(path: Path, data: bytes) -> Path:
    """A 16-bit WAV file of a received A-law stream."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(b"".join(_expand(byte).to_bytes(2, "little", signed=True) for byte in data))
    return path


def _expand(byte: int) -> int:
    byte ^= 0x55
    exponent, mantissa = byte >> 4 & 0x07, byte & 0x0F
    magnitude = (mantissa << 4) + 8 if exponent == 0 else ((mantissa << 4) + 0x108) << exponent - 1
    return magnitude if byte & 0x80 else -magnitude


def _compress(sample: int) -> int:
    """ITU-T G.711 encoding of a 16-bit sample: sign, exponent and four bits of mantissa."""
    sign, magnitude = (0x80, sample) if sample >= 0 else (0, ~sample)
    exponent = (magnitude >> 8).bit_length()
    mantissa = magnitude >> (exponent + 3 if exponent else 4) & 0x0F
    return (sign | exponent << 4 | mantissa) ^ 0x55
