"""A phone's media, spoken and heard by the test itself: A-law RTP to and from rtpengine, and RTCP reports."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.support.capture import RECEIVER_REPORT, SENDER_REPORT
from tests.support.rtpengine import HOST
from tests.support.sip_text import SipText

RATE = 8_000  # samples, and bytes, per second
FRAME = 160  # bytes per packet of 20 ms
PATIENCE_S = 20.0
_DELAY = struct.pack("!I", 1)  # delay since the last sender report in 1/65536 s; 0 means none was received


class Report(NamedTuple):
    """A receiver's report block."""

    lost: int
    jitter_ms: int


class Ear(NamedTuple):
    """Sockets for RTP and RTCP on adjacent ports, with an SSRC."""

    rtp: socket.socket
    rtcp: socket.socket
    ssrc: int

    def described(self) -> bytes:
        host, port = self.rtp.getsockname()
        head = f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        return f"{head}m=audio {port} RTP/AVP 8\r\n".encode()

    def say(self, port: int, number: int, frame: bytes) -> None:
        """Send packet `number` to rtpengine's port for this side."""
        head = struct.pack("!BBHII", 0x80, 8, number, FRAME * number, self.ssrc)
        self.rtp.sendto(head + frame, (HOST, port))

    def heard(self) -> list[bytes]:
        """The A-law frames received since the last call."""
        frames = []
        while True:
            try:
                packet = self.rtp.recv(2048)
            except BlockingIOError:
                return frames
            if packet[1] & 0x7F == 8:
                frames.append(packet[12:])

    async def hears(self) -> bytes:
        """The next frame."""
        async with asyncio.timeout(PATIENCE_S):
            return (await asyncio.get_running_loop().sock_recv(self.rtp, 2048))[12:]

    async def sender_report(self) -> bytes:
        """The next sender report from rtpengine."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                packet = await asyncio.get_running_loop().sock_recv(self.rtcp, 2048)
                if packet[1] == SENDER_REPORT:
                    return packet

    def report(self, port: int, heard: bytes, said: Report) -> None:
        """Answer the sender report `heard` (RFC 3550 6.4.2), by its SSRC and time stamp."""
        ssrc, sent = heard[4:8], heard[10:14]
        block = ssrc + struct.pack("!III", said.lost, 1, RATE * said.jitter_ms // 1000) + sent + _DELAY
        self.rtcp.sendto(struct.pack("!BBHI", 0x81, RECEIVER_REPORT, 7, self.ssrc) + block, (HOST, port + 1))


@contextmanager
def ear(host: str, ssrc: int) -> Iterator[Ear]:
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtcp,
        ):
            port = 2 * random.randrange(5_000, 15_000)
            try:
                rtp.bind((host, port))
                rtcp.bind((host, port + 1))
            except OSError:  # one of the ports is taken
                continue
            for made in (rtp, rtcp):
                made.setblocking(False)
            yield Ear(rtp, rtcp, ssrc)
            return


def port_in(message: SipText) -> int:
    """The media port of an SDP."""
    (line,) = [line for line in message.body.decode().split("\r\n") if line.startswith("m=")]
    return int(line.split(" ")[1])
