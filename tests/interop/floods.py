"""Floods against a running relay, and a good call before, during and after them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path

from tests.interop.ladders import FLOWS
from tests.support.addresses import Address
from tests.support.phone import SDP
from tests.support.relay_process import A, RelayProcess, X
from tests.support.sipp_calls import FORTH, assert_masked, run_flow

MORE_BYTES = 16 * 1024 * 1024  # than after the first call; the floods are more than that, if they were kept
BURST = 50
PAUSE_S = 0.002
MOST_UNREAD = 32 * 1024  # the buffer has room for this and a burst, also where the system limits it to 208 KiB


async def good_call(relay: RelayProcess, folder: Path, name: str) -> None:
    """A whole call of SIPp's, with every check."""
    folder = folder / name
    folder.mkdir()
    caller, callee = await asyncio.to_thread(run_flow, relay, folder, FLOWS["caller_hangs_up"])
    assert_masked(relay, FORTH, caller, callee)


async def flooded(relay: RelayProcess, folder: Path, flood: Callable[[], Awaitable[None]]) -> None:
    """A good call before, during and after the flood; how much memory it took."""
    await asyncio.to_thread(relay.bind)
    await good_call(relay, folder, "before")
    at_first = relay.resident_bytes
    flooding = asyncio.ensure_future(flood())
    await good_call(relay, folder, "during")
    await flooding
    assert relay.resident_bytes - at_first < MORE_BYTES
    await good_call(relay, folder, "after")
    assert relay.resident_bytes - at_first < MORE_BYTES


async def send_datagrams(source: str, relay: Address, messages: Iterable[bytes]) -> None:
    """As fast as the relay reads them: what does not fit into its receive buffer would never come to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        for number, message in enumerate(messages):
            sender.sendto(message, relay)
            if number % BURST == 0:
                await asyncio.sleep(PAUSE_S)
                while _unread_bytes(relay) > MOST_UNREAD:  # noqa: ASYNC110 (no event to wait for)
                    await asyncio.sleep(PAUSE_S)


def _unread_bytes(at: Address) -> int:
    """How much waits in the receive buffer of the socket at that address."""
    address = f"{socket.inet_aton(at.host)[::-1].hex().upper()}:{at.port:04X}"  # as in /proc/net/udp, little-endian
    sockets = map(str.split, Path("/proc/net/udp").read_text().splitlines())
    return sum(int(fields[4].partition(":")[2], 16) for fields in sockets if fields[1] == address)


def invites(source: str, relay: Address, count: int, extra: bytes = b"") -> Iterator[bytes]:
    """Each a call of its own."""
    for number in range(count):
        head = (
            f"INVITE sip:{X}@{relay} SIP/2.0\r\nVia: SIP/2.0/UDP {source}:5060;branch=z9hG4bKflood{number};rport\r\n"
            f"From: <sip:{A}@{source}>;tag=f{number}\r\nTo: <sip:{X}@{relay}>\r\nCall-ID: flood{number}@{source}\r\n"
            f"CSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContact: <sip:{A}@{source}:5060>\r\n"
        )
        yield head.encode() + extra + b"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n" % len(SDP) + SDP


async def connect(source: str, relay: RelayProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*relay.setup.relay, local_addr=(source, 0))


async def is_closed_by_relay(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(20):
            while await reader.read(4096):
                pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True
