"""A capture of all UDP packets on the loopback interface. Needs the test's own network namespace."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Literal, NamedTuple

ETH_P_ALL = 3
PATIENCE_S = 20.0
SENDER_REPORT, RECEIVER_REPORT, SOURCE_DESCRIPTION = 200, 201, 202  # RFC 3550 12.1
CNAME = 1


class Packet(NamedTuple):
    source: tuple[str, int]
    target: tuple[str, int]
    data: bytes  # from the IP header on
    payload: bytes  # of UDP

    @property
    def kind(self) -> Literal["rtp", "rtcp", "other"]:
        """RTP or RTCP by the first two octets (RFC 5761 4)."""
        if len(self.payload) < 8 or self.payload[0] >> 6 != 2:
            return "other"
        return "rtcp" if 192 <= self.payload[1] <= 223 else "rtp"

    def names(self) -> set[bytes]:
        """The text of all SDES items of an RTCP packet (RFC 3550 6.5)."""
        found: set[bytes] = set()
        rest = self.payload
        while len(rest) >= 8:
            size = 4 * (struct.unpack("!H", rest[2:4])[0] + 1)
            if rest[1] == SOURCE_DESCRIPTION:
                found |= _items(rest[8:size])
            rest = rest[size:]
        return found


def _items(chunk: bytes) -> set[bytes]:
    found: set[bytes] = set()
    while chunk and chunk[0]:
        found.add(chunk[2 : 2 + chunk[1]])
        chunk = chunk[2 + chunk[1] :]
    return found


class Capture:
    """Use as `with Capture() as capture`, in a running loop."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self._grown = asyncio.Event()
        self._socket: socket.socket | None = None

    def __enter__(self) -> Capture:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.bind(("lo", ETH_P_ALL))
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._read, self._socket)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._socket is not None
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self, interface: socket.socket) -> None:
        data, (_, _, kind, *_) = interface.recvfrom(65_536)
        if kind == socket.PACKET_OUTGOING and data[9:10] == bytes([socket.IPPROTO_UDP]):  # each also comes in
            self.packets.append(_parse(data))
            self._grown.set()

    async def until(self, enough: Callable[[], object]) -> None:
        """Return once the captured packets suffice. Raises AssertionError with a summary after a while."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not enough():
                    self._grown.clear()
                    await self._grown.wait()
        except TimeoutError:
            kinds = Counter((each.source[0], each.target[0], each.kind) for each in self.packets)
            raise AssertionError(f"not enough: {kinds}") from None

    def to(self, host: str) -> list[Packet]:
        return [packet for packet in self.packets if packet.target[0] == host]

    def between(self, source: str, target: str) -> list[Packet]:
        return [packet for packet in self.to(target) if packet.source[0] == source]


def _parse(data: bytes) -> Packet:
    header = 4 * (data[0] & 15)
    source, target = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
    source_port, target_port = struct.unpack("!HH", data[header : header + 4])
    return Packet((source, source_port), (target, target_port), data, data[header + 8 :])
