"""A flood of one kind of message from a peer, or with its forged address, at a fixed rate.

`python peer_flood.py KIND SOURCE RELAY RATE SECONDS CALLER NUMBER` sends RATE messages per second of that kind from
SOURCE to RELAY (each HOST:PORT; port 0: any), and prints as JSON how many it sent, and how many of them were answered
by 503 (`shed`) and otherwise (`answered`). INVITEs call NUMBER as CALLER; of the kind `callers` each has a caller of
its own, which begins with CALLER. No final answer is acknowledged. They go by UDP; KIND-tcp uses one TCP connection,
as fast as it accepts, and reads the answers without counting them.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final

TICK_S: Final = 0.002
LAST_ANSWERS_S: Final = 0.2
BUFFER_BYTES: Final = 4 * 1024 * 1024
MOST_AT_ONCE: Final = 500  # messages per write to a stream

_SDP: Final = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 6000 RTP/AVP 8\r\n"

_NUMBER: Final = b"\r\nCall-ID: flood"
_SHED: Final = b"503"

Writer = Callable[[int], bytes]


@dataclass
class Sent:
    """What was sent, and what became of it."""

    sent: int = 0
    answered: int = 0
    shed: int = 0


def writer(kind: str, source: str, relay: str, caller: str, number: str) -> Writer:
    """Return a factory of messages with unique Call-ID, tag and branch. Raises KeyError for an unknown kind."""
    method, to_tag, body = {
        "options": ("OPTIONS", "", b""),
        "invite": ("INVITE", "", _SDP),
        "callers": ("INVITE", "", _SDP),
        "bye": ("BYE", ";tag=gone", b""),
        "ack": ("ACK", ";tag=gone", b""),
        "info": ("INFO", ";tag=gone", b""),
        "response": ("BYE", ";tag=gone", b""),
        "garbage": ("GARBAGE", "", b""),
    }[kind]
    start = {"response": "SIP/2.0 200 OK", "garbage": "SIP/2.0 or not"}.get(
        kind, f"{method} sip:{number}@{relay} SIP/2.0"
    )
    # %d is the message's number.
    text = (
        f"{start}\r\nVia: SIP/2.0/UDP {source};branch=z9hG4bKflood%d;rport\r\n"
        f"From: <sip:{caller}@{source}>;tag=f%d\r\nTo: <sip:{number}@{relay}>{to_tag}\r\nCall-ID: flood%d@{source}\r\n"
        f"CSeq: 1 {method}\r\nMax-Forwards: 70\r\nContact: <sip:{caller}@{source}>\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    template = text.encode() + body
    if kind == "callers":
        numbered = template.replace(caller.encode(), caller.encode() + b"%07d")
        return lambda number: numbered % (number, number, number, number, number)
    return lambda number: template % (number, number, number)


def flood(kind: str, source: str, relay: str, rate: int, seconds: float, caller: str, number: str) -> Sent:
    """Fewer messages than requested are sent if this process lacks CPU time."""
    if kind.endswith("-tcp"):
        return _flood_stream(kind.removesuffix("-tcp"), source, relay, rate, seconds, caller, number)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(_address(source))
        sender.connect(_address(relay))
        write = writer(kind, "{}:{}".format(*sender.getsockname()), relay, caller, number)
        sender.setblocking(False)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        began = now = time.monotonic()
        found, counted = Sent(), bytearray(int(rate * seconds) + 1)
        while now < began + seconds:
            for serial in range(found.sent, int((now - began) * rate)):
                with suppress(OSError):  # a full buffer, or an ICMP error of an earlier one
                    sender.send(write(serial))
                found.sent += 1
            _count(sender, found, counted)
            time.sleep(TICK_S)
            now = time.monotonic()
        time.sleep(LAST_ANSWERS_S)
        _count(sender, found, counted)
    return found


def _count(sender: socket.socket, found: Sent, counted: bytearray) -> None:
    """Count the answers that wait, the first one to each message."""
    with suppress(OSError):
        while True:
            data = sender.recv(65_536)
            status, start = data[8:11], data.find(_NUMBER) + len(_NUMBER)
            serial = int(data[start : data.find(b"@", start)])
            if not counted[serial]:
                counted[serial] = 1
                if status == _SHED:
                    found.shed += 1
                else:
                    found.answered += 1


def _flood_stream(kind: str, source: str, relay: str, rate: int, seconds: float, caller: str, number: str) -> Sent:
    with socket.create_connection(_address(relay), source_address=_address(source)) as sender:
        sender.setblocking(False)
        write = writer(kind, "{}:{}".format(*sender.getsockname()), relay, caller, number)
        began = now = time.monotonic()
        sent, rest = 0, b""
        while now < began + seconds:
            if not rest:
                due = min(int((now - began) * rate), sent + MOST_AT_ONCE)
                rest = b"".join(map(write, range(sent, due)))
                sent = due
            readable, writable, _ = select.select([sender], [sender] if rest else [], [], TICK_S)
            if readable:
                sender.recv(1_000_000)
            if writable:
                rest = rest[sender.send(rest) :]
            now = time.monotonic()
    return Sent(sent)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    kind, source, relay, rate, seconds, caller, number = sys.argv[1:]
    print(json.dumps(asdict(flood(kind, source, relay, int(rate), float(seconds), caller, number))))
