"""The SIP messages of a capture file, in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from relay.errors import ParseError
from relay.replay.capture import read_packets
from relay.replay.internet import Fragments
from relay.replay.transport import Endpoint, Transports
from relay.sip.message import Request, Response, parse_message


class Event(NamedTuple):
    """One SIP message on the wire."""

    time_s: float
    source: Endpoint
    destination: Endpoint
    message: Request | Response


@dataclass
class Trace:
    packets: int = 0
    unreadable: int = 0  # messages and streams that look like SIP but cannot be parsed
    events: list[Event] = field(default_factory=list)


def read_trace(path: Path) -> Trace:
    """Read a capture file. Raises ParseError for other files."""
    trace, fragments, transports = Trace(), Fragments(), Transports()
    for packet in read_packets(path):
        trace.packets += 1
        payload = fragments.receive(packet)
        for found in transports.receive(payload) if payload else ():
            try:
                message = parse_message(found.data)
                message.call_id, message.cseq, message.branch  # noqa: B018 - without them it belongs to no call
            except ParseError:
                trace.unreadable += 1
            else:
                trace.events.append(Event(packet.time_s, found.source, found.destination, message))
    trace.unreadable += transports.unreadable
    return trace
