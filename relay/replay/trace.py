"""A capture file as SIP messages in order: UDP datagrams and TCP streams; other protocols are skipped."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dpkt.tcp import TCP, TH_ACK, TH_SYN

from relay.errors import ParseError
from relay.replay.capture import Fragments, IpPayload, read_packets
from relay.sip.framing import StreamFramer
from relay.sip.message import Request, Response, parse_message

MAX_WAITING = 64  # out-of-order segments kept per stream
MAX_START_LINE = 2048  # bytes
# A method has at least three letters here, so that random media bytes are not taken for SIP.
_begins_like_sip = re.compile(rb"(?:\r\n)*(?:SIP/2\.0 \d{3}|[A-Z]{3,20} [^\r\n ]+ SIP/2\.0\r\n)").match


class Endpoint(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class SipData(NamedTuple):
    """The bytes of one SIP message, with its endpoints."""

    source: Endpoint
    destination: Endpoint
    data: bytes


class Reassembly:
    """Extracts SIP messages from IP payloads, in order.

    `unreadable` counts SIP streams that could not be framed, and their segments that the capture lacks.
    """

    def __init__(self) -> None:
        self.unreadable = 0
        self._streams: dict[tuple[Endpoint, Endpoint], _TcpDirection] = {}

    def receive(self, payload: IpPayload) -> list[SipData]:
        content = payload.content
        source, destination = Endpoint(payload.source, content.sport), Endpoint(payload.destination, content.dport)
        if not isinstance(content, TCP):
            return [SipData(source, destination, content.data)] if _begins_like_sip(content.data) else []
        found: list[SipData] = []
        opposite = self._streams.get((destination, source))
        if opposite and content.flags & TH_ACK and opposite.lacks(content.ack):
            found += self._resumed(destination, source)  # it has arrived, so it will not come again
        if content.flags & TH_SYN:
            found += self._resumed(source, destination)
        return found + self._segment(source, destination, content)

    def finish(self) -> list[SipData]:
        """Return what waits for missing segments at the end of the capture."""
        return [message for ends in list(self._streams) for message in self._resumed(*ends)]

    def _segment(self, source: Endpoint, destination: Endpoint, segment: TCP) -> list[SipData]:
        begins = segment.flags & TH_SYN
        stream = self._streams.get((source, destination))
        if begins or stream is None:
            if not segment.data and not begins:
                return []
            stream = self._streams[source, destination] = _TcpDirection(segment.seq + 1 if begins else segment.seq)
        stream.add(segment.seq, segment.data)
        found = self._complete(source, destination)
        return found + self._resumed(source, destination) if stream.waits > MAX_WAITING else found

    def _resumed(self, source: Endpoint, destination: Endpoint) -> list[SipData]:
        """The messages of a stream behind its missing segments."""
        found: list[SipData] = []
        while (stream := self._streams.get((source, destination))) and stream.waits:
            self.unreadable += stream.skip()
            found += self._complete(source, destination)
        return found

    def _complete(self, source: Endpoint, destination: Endpoint) -> list[SipData]:
        try:
            return [SipData(source, destination, message) for message in self._streams[source, destination].messages()]
        except ParseError:
            self.unreadable += 1
            del self._streams[source, destination]  # resynchronise at the next segment
            return []


class _TcpDirection:
    """One direction of a TCP connection: segments reordered (RFC 9293 3.10.7.4), then framed as SIP."""

    def __init__(self, expected: int) -> None:
        self._expected = expected  # next sequence number, not wrapped
        self._waiting: dict[int, bytes] = {}
        self._framer: StreamFramer | None = None
        self._start = b""  # undecided bytes: SIP or not

    @property
    def waits(self) -> int:
        """How many segments wait for a missing one."""
        return len(self._waiting)

    def add(self, sequence: int, content: bytes) -> None:
        if content:
            self._waiting[sequence] = max(content, self._waiting.get(sequence, b""), key=len)

    def messages(self) -> list[bytes]:
        """The messages that are complete now. Raises ParseError if a SIP stream cannot be framed."""
        messages: list[bytes] = []
        while (piece := self._next()) is not None:
            messages += self._frame(piece)
        return messages

    def lacks(self, acknowledged: int) -> bool:
        """Whether the receiver has a segment that others wait for here (RFC 9293 3.10.7.4)."""
        return bool(self._waiting) and self._ahead(acknowledged) > 0

    def skip(self) -> bool:
        """Resume at the first segment that waits. Returns whether the stream is SIP."""
        is_sip = self._framer is not None or any(map(_begins_like_sip, self._waiting.values()))
        self._expected += min(map(self._ahead, self._waiting))
        self._framer, self._start = None, b""
        return is_sip

    def _ahead(self, sequence: int) -> int:
        return (sequence - self._expected + 2**31) % 2**32 - 2**31

    def _next(self) -> bytes | None:
        """The next bytes in sequence, without retransmitted and overlapping ones."""
        for sequence, content in list(self._waiting.items()):
            ahead = self._ahead(sequence)
            if ahead > 0:
                continue
            del self._waiting[sequence]
            if fresh := content[-ahead:] if ahead else content:
                self._expected += len(fresh)
                return fresh
        return None

    def _frame(self, piece: bytes) -> list[bytes]:
        if self._framer is None:
            self._start += piece
            if not _begins_like_sip(self._start):
                # Another protocol, or the trace begins within a message: wait for the start of a message.
                if b"\r\n" in self._start.lstrip(b"\r\n") or len(self._start) > MAX_START_LINE:
                    self._start = b""
                return []
            piece, self._start = self._start, b""
            self._framer = StreamFramer()
        return [frame for frame in self._framer.feed(piece) if isinstance(frame, bytes)]


# -- The SIP messages of a capture file


class Event(NamedTuple):
    """One SIP message on the wire."""

    time_s: float
    source: Endpoint
    destination: Endpoint
    message: Request | Response


@dataclass
class Trace:
    packets: int = 0
    unreadable: int = 0  # messages and streams that look like SIP but cannot be parsed, and segments they lack
    events: list[Event] = field(default_factory=list)


def read_trace(path: Path) -> Trace:
    """Read a capture file. Raises ParseError for other files."""
    trace, fragments, transports = Trace(), Fragments(), Reassembly()
    time_s = 0.0
    for packet in read_packets(path):
        trace.packets += 1
        time_s = packet.time_s
        payload = fragments.receive(packet)
        _add(trace, time_s, transports.receive(payload) if payload else [])
    _add(trace, time_s, transports.finish())
    trace.unreadable += transports.unreadable
    return trace


def _add(trace: Trace, time_s: float, messages: list[SipData]) -> None:
    for found in messages:
        try:
            message = parse_message(found.data)
            message.call_id, message.cseq, message.branch  # noqa: B018 - without them it belongs to no call
        except ParseError:
            trace.unreadable += 1
        else:
            trace.events.append(Event(time_s, found.source, found.destination, message))
