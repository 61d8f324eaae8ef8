"""Sound of RTP payloads: mono, 16 bits, little-endian.

G.711, the codec of trunks, is read by tables and needs nothing installed. G.722, AMR and Opus need PyAV, an extra
(`relay700[wav]`) that is imported on use.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, NamedTuple, Protocol

from relay.errors import install_command
from relay.model.rtp_streams import OCTET_ALIGNED
from relay.service.fields import invalid


class Codec(NamedTuple):
    """A codec of speech. `clock`: of its RTP timestamps, Hz; `decoder`: PyAV's name."""

    clock: int
    decoder: str
    is_wide: bool = False  # more than telephone bandwidth


_G711: Final = ("pcma", "pcmu")
SPEECH: Final = {
    "pcma": Codec(8_000, ""),
    "pcmu": Codec(8_000, ""),
    "g722": Codec(8_000, "g722", is_wide=True),  # RFC 3551 4.5.2: its clock is half its rate
    "amr": Codec(8_000, "amrnb"),
    "amr-wb": Codec(16_000, "amrwb", is_wide=True),
    "opus": Codec(48_000, "opus", is_wide=True),
}


def codec_of(name: str) -> Codec | None:
    """The codec of a stream's type; None if it is no speech."""
    return SPEECH.get(name.removesuffix(OCTET_ALIGNED))


def check_codecs(names: Collection[str]) -> None:
    """Raises Refused if these codecs cannot be decoded here."""
    wanting = sorted({name.removesuffix(OCTET_ALIGNED) for name in names if name not in _G711})
    if wanting and find_spec("av") is None:
        command = install_command("wav")
        raise invalid("format", f"wav of {', '.join(wanting)} needs the extra relay700[wav]: `{command}` installs it")


class Decoder(Protocol):
    """The decoder of one stream. A payload that cannot be decoded is b""."""

    def decode(self, payload: bytes) -> bytes: ...


def make_decoder(name: str, rate: int) -> Decoder:
    """A decoder to `rate` Hz: 8,000 or 16,000."""
    if name in _G711:
        return _Table(name) if rate == 8_000 else _Resampled(_Table(name), rate)
    return _Av(name, rate)


# -- G.711


def _a_law(byte: int) -> int:
    byte ^= 0x55
    exponent, mantissa = byte >> 4 & 0x07, byte & 0x0F
    magnitude = (mantissa << 4) + 8 if exponent == 0 else ((mantissa << 4) + 0x108) << exponent - 1
    return magnitude if byte & 0x80 else -magnitude


def _u_law(byte: int) -> int:
    byte ^= 0xFF
    magnitude = (((byte & 0x0F) << 3) + 0x84 << (byte >> 4 & 0x07)) - 0x84
    return -magnitude if byte & 0x80 else magnitude


def _tables(samples: Sequence[int]) -> tuple[bytes, bytes]:
    """The low and the high byte of each sample, for `bytes.translate`."""
    return bytes(each & 0xFF for each in samples), bytes(each >> 8 & 0xFF for each in samples)


_TABLES: Final = {"pcma": _tables([*map(_a_law, range(256))]), "pcmu": _tables([*map(_u_law, range(256))])}


class _Table:
    """G.711."""

    def __init__(self, name: str) -> None:
        self._low, self._high = _TABLES[name]

    def decode(self, payload: bytes) -> bytes:
        samples = bytearray(2 * len(payload))
        samples[::2], samples[1::2] = payload.translate(self._low), payload.translate(self._high)
        return bytes(samples)


# -- By PyAV


class _Resampler:
    def __init__(self, rate: int) -> None:
        self._resampler: Any = import_module("av").AudioResampler(format="s16", layout="mono", rate=rate)

    def samples(self, frame: Any) -> bytes:
        frame.pts = None  # each frame follows the one before
        made = self._resampler.resample(frame)
        return b"".join(bytes(each.planes[0])[: 2 * each.samples] for each in made)


class _Resampled:
    """G.711 at another rate than its own."""

    def __init__(self, table: _Table, rate: int) -> None:
        self._table = table
        self._av: Any = import_module("av")
        self._resampler = _Resampler(rate)

    def decode(self, payload: bytes) -> bytes:
        if not payload:
            return b""
        frame = self._av.AudioFrame(format="s16", layout="mono", samples=len(payload))
        frame.sample_rate = 8_000
        plane = frame.planes[0]
        plane.update(self._table.decode(payload).ljust(plane.buffer_size, b"\0"))
        return self._resampler.samples(frame)


class _Av:
    def __init__(self, name: str, rate: int) -> None:
        codec = SPEECH[name.removesuffix(OCTET_ALIGNED)]
        self._av: Any = import_module("av")
        self._decoder: Any = self._av.CodecContext.create(codec.decoder, "r")
        self._decoder.layout = "mono"
        self._decoder.sample_rate = 48_000 if name == "opus" else 16_000 if codec.is_wide else 8_000
        self._resampler = _Resampler(rate)
        self._is_amr, self._is_wide, self._is_aligned = name.startswith("amr"), codec.is_wide, "/" in name

    def decode(self, payload: bytes) -> bytes:
        sound = b""
        units = amr_frames(payload, self._is_wide, self._is_aligned) if self._is_amr else [payload]
        for unit in filter(None, units):
            try:
                for frame in self._decoder.decode(self._av.Packet(unit)):
                    sound += self._resampler.samples(frame)
            except self._av.FFmpegError:
                continue
        return sound


# -- AMR and AMR-WB in RTP (RFC 4867), without CRC, interleaving and robust sorting, which nobody negotiates

# Bits of speech by frame type; the last is comfort noise. Types beyond have none.
_NARROW: Final = (95, 103, 118, 134, 148, 159, 204, 244, 39)
_WIDE: Final = (132, 177, 253, 285, 317, 365, 397, 461, 477, 40)


def amr_frames(payload: bytes, is_wide: bool, is_aligned: bool) -> list[bytes]:
    """The frames of a payload as AMR files have them, without comfort noise; [] if it is malformed."""
    bits = _Bits(payload)
    try:
        bits.take(8 if is_aligned else 4)  # mode request
        return list(_frames(bits, _WIDE if is_wide else _NARROW, is_aligned))
    except ValueError:
        return []


def _frames(bits: _Bits, sizes: Sequence[int], is_aligned: bool) -> Iterator[bytes]:
    entries, more = [], 1
    while more:
        more, type_, good = bits.take(1), bits.take(4), bits.take(1)
        bits.take(2 if is_aligned else 0)
        entries.append((type_, good))
    for type_, good in entries:
        size = sizes[type_] if type_ < len(sizes) else 0
        padded = (size + 7) // 8 * 8
        speech = bits.take(padded) if is_aligned else bits.take(size) << padded - size
        if good and type_ < len(sizes) - 1:
            yield bytes([type_ << 3 | 4]) + speech.to_bytes(padded // 8)


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data)
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """Raises ValueError if there are no more."""
        self._left -= count
        if self._left < 0:
            raise ValueError("too short")
        return self._value >> self._left & (1 << count) - 1
