"""Floods of what nobody asked for: memory stays bounded, and a good call passes at the same time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.interop.ladders import FLOWS
from tests.support.addresses import CALLER, STRANGER, Address
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, RelayProcess, Setup, X
from tests.support.sipp_calls import FORTH, assert_masked, run_flow

MORE_BYTES = 16 * 1024 * 1024  # than after the first call; the floods are more than that, if they were kept
FLOOD = 20_000  # messages
BURST = 50
CONNECTIONS = 400
OVERSIZE = 8 * 1024 * 1024


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


async def send_datagrams(source: str, relay: Address, messages: Iterator[bytes]) -> None:
    """As fast as one loop can, with room for others between the bursts."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        sender.setblocking(False)
        for number, message in enumerate(messages):
            try:
                sender.sendto(message, relay)
            except BlockingIOError:
                await asyncio.sleep(0.001)
            if number % BURST == 0:
                await asyncio.sleep(0.002)


def invites(source: str, relay: Address, count: int, extra: bytes = b"") -> Iterator[bytes]:
    """Each a call of its own."""
    for number in range(count):
        head = (
            f"INVITE sip:{X}@{relay} SIP/2.0\r\nVia: SIP/2.0/UDP {source}:5060;branch=z9hG4bKflood{number};rport\r\n"
            f"From: <sip:{A}@{source}>;tag=f{number}\r\nTo: <sip:{X}@{relay}>\r\nCall-ID: flood{number}@{source}\r\n"
            f"CSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContact: <sip:{A}@{source}:5060>\r\n"
        )
        yield head.encode() + extra + b"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n" % len(SDP) + SDP


async def test_invites_of_a_stranger(start_relay: StartRelay, tmp_path: Path) -> None:
    relay = start_relay()
    at = relay.setup.relay
    await flooded(relay, tmp_path, lambda: send_datagrams(STRANGER, at, invites(STRANGER, at, FLOOD)))
    assert relay.statistics()["strangers"] > FLOOD / 2, "most of the flood never came to the relay"
    assert len(relay.calls()) < FLOOD / 10, "what is not answered leaves no record"
    assert relay.verify()


async def test_oversize_datagrams_of_a_peer(start_relay: StartRelay, tmp_path: Path) -> None:
    relay = start_relay()
    at = relay.setup.relay
    padding = b"X-Padding: " + b"x" * 60_000 + b"\r\n"

    async def flood() -> None:
        """Until enough has come, and not been dropped on its way."""
        while (await asyncio.to_thread(relay.statistics)).get("malformed", 0) * 60_000 <= MORE_BYTES:
            await send_datagrams(CALLER, at, invites(CALLER, at, FLOOD // 40, padding))

    await flooded(relay, tmp_path, flood)
    assert len(relay.calls()) == 3


async def test_half_messages_on_many_connections(start_relay: StartRelay, tmp_path: Path) -> None:
    relay = start_relay(Setup(more="\n[streams]\nmessage_timeout_s = 2\n"))

    async def flood() -> None:
        half = next(invites(CALLER, relay.setup.relay, 1, b"X-Padding: " + b"x" * 10_000 + b"\r\n"))[:-10]
        ends = [await _connect(source, relay) for source in (CALLER, STRANGER) for _ in range(CONNECTIONS)]
        for _, writer in ends:
            writer.write(half)
        assert all(await asyncio.gather(*(_is_closed_by_relay(reader) for reader, _ in ends)))
        for _, writer in ends:
            writer.close()

    await flooded(relay, tmp_path, flood)
    assert relay.statistics()["streams_closed_half_message"] >= CONNECTIONS


@pytest.mark.parametrize(
    "start",
    [
        b"INVITE sip:",
        b"INVITE sip:x@y SIP/2.0\r\nX-Endless: ",
        b"INVITE sip:x@y SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nContent-Length: 999999999\r\n\r\n",
        b"INVITE sip:x@y SIP/2.0\r\n" + b"X: y\r\n" * 100_000,
    ],
    ids=["first_line", "header", "body", "headers"],
)
async def test_oversize_messages_on_connections(start_relay: StartRelay, tmp_path: Path, start: bytes) -> None:
    relay = start_relay()

    async def flood() -> None:
        await asyncio.gather(*(_send_until_closed(relay, start) for _ in range(20)))

    await flooded(relay, tmp_path, flood)


async def test_more_calls_than_the_limit_of_a_peer(start_relay: StartRelay, tmp_path: Path) -> None:
    """The callee answers none of them."""
    limit = 20
    relay = start_relay(Setup(sip={"ring_timeout_s": 3}, more=f"\n[limits]\nmax_calls_per_peer = {limit}\n"))
    await asyncio.to_thread(relay.bind)
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        legs = [Leg.calling(caller, relay.setup.relay, A, X) for _ in range(limit * 3)]
        for leg in legs:
            await leg.request("INVITE", body=SDP)
        for _ in range(limit * 2):
            refusal = await caller.expect(503)
            assert refusal["retry-after"]
        invited = [await callee.expect("INVITE") for _ in range(limit)]
        assert len({invite["call-id"] for invite in invited}) == limit
    outcomes = [record["outcome"] for record in relay.calls()]
    assert outcomes.count("over_limit") == limit * 2


async def _connect(source: str, relay: RelayProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*relay.setup.relay, local_addr=(source, 0))


async def _is_closed_by_relay(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(20):
            while await reader.read(4096):
                pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


async def _send_until_closed(relay: RelayProcess, start: bytes) -> None:
    """The relay must hang up long before it has been sent everything."""
    reader, writer = await _connect(CALLER, relay)
    writer.write(start)
    try:
        for _ in range(OVERSIZE // 65_536):
            writer.write(b"x" * 65_536)
            await writer.drain()
        assert await _is_closed_by_relay(reader)
    except ConnectionError:
        pass
    finally:
        writer.close()
