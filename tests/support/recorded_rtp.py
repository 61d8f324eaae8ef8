"""RTP as rtpengine captures it: who speaks what, when, to which port; and what a WAV file made of it has."""

from __future__ import annotations

import hashlib
import io
import math
import socket
import struct
import wave
from array import array
from collections.abc import Iterable, Iterator

from relay.model.rtp_streams import RtpStream, note_packet
from relay.store.recordings import Recording
from tests.support.sounds import a_law_wav
from tests.support.spool import HEAD, packet

CALLER_PORT, CALLEE_PORT = 30_000, 30_002
CALLER_HOST, CALLEE_HOST = "192.0.2.31", "198.51.100.7"
FRAME_MS = 20
PCMA, EVENT = 8, 101
STREAMS = {
    CALLER_PORT: RtpStream("caller", {PCMA: "pcma", EVENT: "telephone-event"}),
    CALLEE_PORT: RtpStream("callee", {PCMA: "pcma", EVENT: "telephone-event"}),
}
Sent = tuple[int, bytes]  # ms of the recording, IP packet


def datagram(port: int, type_: int, seq: int, timestamp: int, payload: bytes, ssrc: int = 7) -> bytes:
    """An IP packet with RTP."""
    host = CALLER_HOST if port == CALLER_PORT else CALLEE_HOST
    rtp = struct.pack("!BBHII", 0x80, type_, seq & 0xFFFF, timestamp & 0xFFFF_FFFF, ssrc) + payload
    udp = struct.pack("!HHHH", 40_000, port, 8 + len(rtp), 0)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(rtp), 0, 0, 64, 17, 0)
    return head + socket.inet_aton(host) + socket.inet_aton("192.0.2.40") + udp + rtp


def speech(
    port: int,
    payloads: Iterable[bytes],
    *,
    at_ms: int = 0,
    type_: int = PCMA,
    step: int = 160,
    seq: int = 0,
    timestamp: int = 0,
    ssrc: int = 7,
    every_ms: int = FRAME_MS,
) -> list[Sent]:
    """A side that sends a payload every 20 ms."""
    return [
        (at_ms + every_ms * n, datagram(port, type_, seq + n, timestamp + step * n, payload, ssrc))
        for n, payload in enumerate(payloads)
    ]


def a_law(frequency: int, seconds: float, size: int = 160) -> list[bytes]:
    """A tone in payloads."""
    sound = a_law_wav(frequency, seconds)[-round(seconds * 8_000) :]
    return [sound[at : at + size] for at in range(0, len(sound), size)]


def capture_of(*sent: Sent, streams: dict[int, RtpStream] = STREAMS) -> bytes:
    """A capture as the backend keeps it, in the order of arrival."""
    note = packet(0, note_packet(streams, 101)) if streams else b""
    return HEAD + note + b"".join(packet(at_ms, data) for at_ms, data in sorted(sent, key=lambda each: each[0]))


def recording_of(data: bytes) -> Recording:
    return Recording("c" * 32, "acme", 0, 0, len(data), hashlib.sha256(data).hexdigest())


def in_parts(data: bytes, size: int = 1_000) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


class Heard:
    """A WAV file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        with wave.open(io.BytesIO(data)) as file:
            assert file.getsampwidth() == 2
            self.rate = file.getframerate()
            samples = array("h", file.readframes(file.getnframes()))
        self.channels = [samples[n :: file.getnchannels()] for n in range(file.getnchannels())]

    def share(self, channel: int, frequency: int, begin_s: float = 0, end_s: float | None = None) -> float:
        """A tone's share of a channel's energy, 0 to 1, by Goertzel's algorithm in windows of 25 ms."""
        samples = self.part(channel, begin_s, end_s)
        size = self.rate // 40
        windows = [samples[at : at + size] for at in range(0, len(samples), size)]
        return sum(self._energy(each, frequency) for each in windows) / (sum(each * each for each in samples) or 1)

    def part(self, channel: int, begin_s: float = 0, end_s: float | None = None) -> array[int]:
        end = None if end_s is None else round(end_s * self.rate)
        return self.channels[channel][round(begin_s * self.rate) : end]

    def is_silent(self, channel: int, begin_s: float = 0, end_s: float | None = None) -> bool:
        return all(abs(each) <= 8 for each in self.part(channel, begin_s, end_s))  # A-law has no zero

    def _energy(self, samples: array[int], frequency: int) -> float:
        coefficient = 2 * math.cos(2 * math.pi * frequency / self.rate)
        one = two = 0.0
        for sample in samples:
            one, two = sample + coefficient * one - two, one
        return 2 * (one * one + two * two - coefficient * one * two) / len(samples)
