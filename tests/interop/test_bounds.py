"""Floods of what nobody asked for: memory stays bounded, and a good call passes at the same time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.interop.floods import MORE_BYTES, connect, flooded, invites, is_closed_by_relay, send_datagrams
from tests.support.addresses import CALLER, STRANGER
from tests.support.relay_process import RelayProcess, Setup

FLOOD = 20_000  # messages
CONNECTIONS = 400
OVERSIZE = 8 * 1024 * 1024


async def test_invites_of_a_stranger_where_nobody_is_banned(start_relay: StartRelay, tmp_path: Path) -> None:
    relay = start_relay(Setup(more="\n[limits]\nban_s = 0\n"))
    at = relay.setup.relay
    await flooded(relay, tmp_path, lambda: send_datagrams(STRANGER, at, invites(STRANGER, at, FLOOD)))
    assert relay.statistics()["strangers"] > FLOOD / 2, "most of the flood never came to the relay"
    assert len(relay.calls()) < FLOOD / 10, "what is not answered leaves no record"


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
        ends = [await connect(source, relay) for source in (CALLER, STRANGER) for _ in range(CONNECTIONS)]
        for _, writer in ends:
            writer.write(half)
        assert all(await asyncio.gather(*(is_closed_by_relay(reader) for reader, _ in ends)))
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


async def _send_until_closed(relay: RelayProcess, start: bytes) -> None:
    """The relay must hang up long before it has been sent everything."""
    reader, writer = await connect(CALLER, relay)
    writer.write(start)
    try:
        for _ in range(OVERSIZE // 65_536):
            writer.write(b"x" * 65_536)
            await writer.drain()
        assert await is_closed_by_relay(reader)
    except ConnectionError:
        pass
    finally:
        writer.close()
