"""HEP version 3: a copy of each captured SIP message to a collector, such as Homer, heplify-server or `sngrep -L`.

Both sides of a call carry its call id as the correlation id. At the end of a call that went through rtpengine, two
reports say how well the RTP of each side came. Unless the collector may see real numbers, messages and addresses are
masked as in a ladder (`relay.privacy.capture_mask`); Call-IDs become random-looking ones, a different one for each.

The format is that of "HEP3 Network Protocol Specification", revision 37. Packets that a collector does not take are
dropped and counted: nothing waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import ssl
import struct
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

import msgspec
from structlog.typing import FilteringBoundLogger

from relay.errors import RelayError
from relay.log import Outage
from relay.model.capture import CapturedDialog, CapturedMessage, HepAgent, HepRules, Side
from relay.net.capture import EndItem
from relay.privacy.capture_mask import CaptureMask, wire
from relay.privacy.captured import lines_of

# -- Packets

SIP: Final = 1
RTCP: Final = 5  # reports as JSON
_UDP: Final = 17
_TCP: Final = 6
_IPV4: Final = 2
_IPV6: Final = 10
MOST_PACKET: Final = 65_535  # bytes
_HEAD_BYTES: Final = 6
_CHUNK: Final = struct.Struct("!HHH")  # vendor, type, length with this head


class Packet(NamedTuple):
    """One HEP packet. Addresses as in `CapturedMessage`."""

    at_us: int  # Unix microseconds
    transport: str  # udp, tcp, tls
    source: str
    destination: str
    protocol: int
    payload: bytes
    correlation: str


def encode_packet(packet: Packet, agent: HepAgent) -> bytes:
    """Encode a packet. A payload that does not fit is truncated: a message over TCP may be as long as a packet."""
    (source, source_port), (destination, destination_port) = _address(packet.source), _address(packet.destination)
    if source.version != destination.version:  # of a socket for both families
        source, destination = _as_ipv6(source), _as_ipv6(destination)
    is_ipv4 = source.version == 4
    seconds, microseconds = divmod(packet.at_us, 1_000_000)
    chunks = [
        _uint(0x0001, 1, _IPV4 if is_ipv4 else _IPV6),
        _uint(0x0002, 1, _UDP if packet.transport == "udp" else _TCP),
        _octets(0x0003 if is_ipv4 else 0x0005, source.packed),
        _octets(0x0004 if is_ipv4 else 0x0006, destination.packed),
        _uint(0x0007, 2, source_port),
        _uint(0x0008, 2, destination_port),
        _uint(0x0009, 4, seconds),
        _uint(0x000A, 4, microseconds),
        _uint(0x000B, 1, packet.protocol),
        _uint(0x000C, 4, agent.id),
        _octets(0x000E, agent.key.encode()) if agent.key else b"",
        _octets(0x0011, packet.correlation.encode()) if packet.correlation else b"",
        _octets(0x0013, agent.name.encode()) if agent.name else b"",
    ]
    head = b"".join(chunks)
    room = MOST_PACKET - _HEAD_BYTES - len(head) - _CHUNK.size
    data = head + _octets(0x000F, packet.payload[:room])
    return b"HEP3" + (_HEAD_BYTES + len(data)).to_bytes(2) + data


def _uint(kind: int, size: int, value: int) -> bytes:
    return _octets(kind, value.to_bytes(size))


def _octets(kind: int, value: bytes) -> bytes:
    return _CHUNK.pack(0, kind, _CHUNK.size + len(value)) + value


def _address(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    """The unspecified address for a name, as one that peers see of a listener for all addresses may be."""
    host, _, port = text.rpartition(":")
    try:
        return ip_address(host.strip("[]").partition("%")[0]), int(port)
    except ValueError:
        return IPv4Address(0), int(port) if port.isdecimal() else 0


def _as_ipv6(address: IPv4Address | IPv6Address) -> IPv6Address:
    return address if address.version == 6 else IPv6Address(bytes(10) + b"\xff\xff" + address.packed)


# -- RTP quality reports

CLOCK_KHZ: Final = 8  # of RTP timestamps, in which jitter is told (RFC 3550 6.4.1): that of telephony codecs
_SENDER_REPORT: Final = 200
_SSRC: Final[dict[Side, int]] = {"caller": 1, "callee": 2}  # rtpengine's answer has no SSRC of a whole call
_SINCE_1900: Final = 2_208_988_800  # seconds from there to 1970


def report(side: Side, packets: int, lost: int | None, jitter_ms: int | None, at_us: int) -> bytes:
    """A sender report of the RTP from one side, as rtpengine and other agents write RTCP in JSON."""
    ssrc, (seconds, microseconds) = _SSRC[side], divmod(at_us, 1_000_000)
    of_all = (lost or 0) / max(packets + (lost or 0), 1)
    block = {
        "source_ssrc": ssrc,
        "fraction_lost": min(int(of_all * 256), 255),
        "packets_lost": lost or 0,
        "highest_seq_no": 0,
        "ia_jitter": (jitter_ms or 0) * CLOCK_KHZ,
        "lsr": 0,
        "dlsr": 0,
    }
    return msgspec.json.encode(
        {
            "sender_information": {
                "ntp_timestamp_sec": seconds + _SINCE_1900,
                "ntp_timestamp_usec": microseconds,
                "rtp_timestamp": 0,
                "packets": packets,
                "octets": 0,
            },
            "ssrc": ssrc,
            "type": _SENDER_REPORT,
            "report_count": 0 if lost is None else 1,
            "report_blocks": [] if lost is None else [block],
        }
    )


# -- Calls to packets

MOST_CALLS: Final = 5_000  # whose stand-ins are remembered; a forgotten call gets new ones, except for Call-IDs
MOST_STAND_INS: Final = 300_000  # of all calls, some 50 MB; above it the oldest calls are forgotten
LATE_US: Final = 40_000_000  # after the end of a call: its last retransmission comes within 64*T1, 32 s
MOST_MESSAGES: Final = 1_000  # of a call, or of the registrations of a peer, before it gets new stand-ins


class _Call:
    def __init__(self, mask: CaptureMask | None) -> None:
        self.mask = mask
        self.messages = 0
        self.stand_ins = 0
        self.ways: dict[Side, tuple[str, str]] = {}  # addresses of the side and of the relay


class Packets:
    """Makes the packets of all calls."""

    def __init__(self, *, is_clear: bool) -> None:
        self._is_clear = is_clear
        self._key = os.urandom(16)
        self._calls: OrderedDict[str, _Call] = OrderedDict()
        self._stand_ins = 0  # of all calls
        self._ended: deque[tuple[int, str]] = deque()  # Unix microseconds, call id

    def message(self, call_id: str, dialog: CapturedDialog, message: CapturedMessage) -> Packet:
        call = self._call(call_id, message.at_us)
        remote, local, data = message.remote, message.local, message.data
        if call.mask is not None:
            lines = lines_of(data)
            data = wire(lines, call.mask.masked(lines, dialog.side, sent=message.sent))
            remote, local = call.mask.know(remote, dialog.side), call.mask.know(local, "relay")
            self._bound(call, call.mask.stand_ins)
        call.ways[dialog.side] = remote, local
        source, destination = (local, remote) if message.sent else (remote, local)
        return Packet(message.at_us, message.transport, source, destination, SIP, data, call_id)

    def ended(self, call: EndItem, at_us: int) -> list[Packet]:
        """The reports, from each side to the relay, whose RTP has been counted."""
        self._ended.append((at_us, call.call_id))  # its messages may come later, as those of a call refused at once
        known = self._calls.get(call.call_id)
        if known is None:
            return []
        found: list[tuple[Side, int | None, int | None, int | None]] = [
            ("caller", call.caller_packets, call.caller_lost, call.caller_jitter_ms),
            ("callee", call.callee_packets, call.callee_lost, call.callee_jitter_ms),
        ]
        return [
            Packet(at_us, "udp", *known.ways[side], RTCP, report(side, packets, lost, jitter, at_us), call.call_id)
            for side, packets, lost, jitter in found
            if packets is not None and side in known.ways
        ]

    def _call(self, call_id: str, at_us: int) -> _Call:
        while self._ended and at_us - self._ended[0][0] > LATE_US:
            self._forget(self._ended.popleft()[1])
        call = self._calls.get(call_id)
        if call is None or call.messages >= MOST_MESSAGES:
            self._forget(call_id)
            call = self._calls[call_id] = _Call(None if self._is_clear else CaptureMask(name_call=self._name))
            if len(self._calls) > MOST_CALLS:
                self._forget(next(iter(self._calls)))
        self._calls.move_to_end(call_id)
        call.messages += 1
        return call

    def _forget(self, call_id: str) -> None:
        call = self._calls.pop(call_id, None)
        if call is not None:
            self._stand_ins -= call.stand_ins

    def _bound(self, call: _Call, stand_ins: int) -> None:
        """Forget the oldest calls above MOST_STAND_INS: a message may name hundreds of hosts."""
        self._stand_ins += stand_ins - call.stand_ins
        call.stand_ins = stand_ins
        while self._stand_ins > MOST_STAND_INS:
            self._forget(next(iter(self._calls)))

    def _name(self, sip_call_id: str) -> str:
        """A stand-in for a Call-ID. Collectors join messages by it, so it is unique and outlasts what is remembered."""
        data = sip_call_id.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(data, key=self._key, digest_size=12).hexdigest()


# -- The way to the collector

MOST_WAITING: Final = 4_000_000  # bytes
SLICE: Final = 20  # messages, some 5 ms of masking; then other parts of the backend go first
CONNECT_S: Final = 5.0
STALLED_S: Final = 10.0  # after so long the connection to a collector that reads nothing is closed
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
_ITEM_BYTES: Final = 500  # of a queued message beside its text, about

_Item = tuple[str, CapturedDialog, CapturedMessage] | tuple[EndItem, int]


class HepSender:
    """As `relay.trace.capture.Subscriber`; `run` it until it is cancelled."""

    def __init__(self, rules: HepRules, agent: HepAgent, log: FilteringBoundLogger) -> None:
        self.sent = self.dropped = 0  # messages and reports
        self._rules = rules
        self._agent = agent
        self._log = log
        self._outage = Outage("hep", log)
        self._packets = Packets(is_clear=rules.is_clear)
        self._queue: deque[_Item] = deque()
        self._waiting = 0  # bytes in the queue
        self._wake = asyncio.Event()

    def message(self, call_id: str, dialog: CapturedDialog, message: CapturedMessage) -> None:
        self._put((call_id, dialog, message))

    def ended(self, ended: EndItem) -> None:
        self._put((ended, time.time_ns() // 1000))

    def statistics(self) -> dict[str, int]:
        return {"hep_sent": self.sent, "hep_dropped": self.dropped}

    def _put(self, item: _Item) -> None:
        size = _size(item)
        if self._waiting + size > MOST_WAITING:
            self.dropped += 1
            return
        self._queue.append(item)
        self._waiting += size
        self._wake.set()

    async def run(self) -> None:
        """Connect, and connect again, and send what waits."""
        rules, pause_s = self._rules, FIRST_PAUSE_S
        while True:
            begun = time.monotonic()
            try:
                await (self._datagrams() if rules.transport == "udp" else self._stream())
            except (OSError, TimeoutError) as error:  # an ssl.SSLError is an OSError
                self._outage.failed(RelayError(f"{rules.host}:{rules.port}: {error or 'no answer in time'}"))
            if time.monotonic() - begun > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _datagrams(self) -> None:
        rules = self._rules
        async with asyncio.timeout(CONNECT_S):
            found = await asyncio.get_running_loop().getaddrinfo(rules.host, rules.port, type=socket.SOCK_DGRAM)
        family, *_, address = found[0]
        with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
            datagrams.setblocking(False)
            datagrams.connect(address)
            self._outage.over()
            while True:
                self._send(datagrams.send)
                await asyncio.sleep(0)
                await self._woken()

    async def _stream(self) -> None:
        rules = self._rules
        context = ssl.create_default_context(cafile=rules.ca) if rules.transport == "tls" else None
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(rules.host, rules.port, ssl=context)
        closed = asyncio.create_task(_until_closed(reader))
        closed.add_done_callback(lambda _: self._wake.set())
        try:
            self._outage.over()
            while not closed.done():
                self._send(writer.write)
                await asyncio.sleep(0)
                async with asyncio.timeout(STALLED_S):
                    await writer.drain()
                await self._woken()
            raise ConnectionResetError("the collector closed the connection")
        finally:
            closed.cancel()
            writer.transport.abort()

    async def _woken(self) -> None:
        """Wait until something waits, or the connection is closed."""
        if not self._queue:
            await self._wake.wait()
        self._wake.clear()

    def _send(self, write: Callable[[bytes], object]) -> None:
        """Send the next items."""
        for _ in range(min(SLICE, len(self._queue))):
            try:
                packets = self._encoded(self._queue.popleft())
            except Exception:  # a bug of masking must not end the backend
                self._log.exception("hep.fault")
                self.dropped += 1
                continue
            for data in packets:
                try:
                    write(data)
                except OSError:  # too long for a datagram, the socket is full, or the collector refused the last one
                    self.dropped += 1
                else:
                    self.sent += 1

    def _encoded(self, item: _Item) -> list[bytes]:
        self._waiting -= _size(item)
        packets = self._packets.ended(*item) if len(item) == 2 else [self._packets.message(*item)]
        return [encode_packet(packet, self._agent) for packet in packets]


def _size(item: _Item) -> int:
    return _ITEM_BYTES if len(item) == 2 else _ITEM_BYTES + len(item[2].data)


async def _until_closed(reader: asyncio.StreamReader) -> None:
    """Read and forget what the collector says, until it closes."""
    with contextlib.suppress(OSError):
        while await reader.read(4096):
            pass
