"""Bans for misuse of connections."""

from __future__ import annotations

import pytest

from relay.defence.bans import GRAVE
from relay.model.settings import Limits
from tests.net.streams import STRANGER, ended, listening, message
from tests.net.support import until


@pytest.mark.parametrize(
    "data",
    [b"OPTIONS sip:x SIP/2.0\r\n\r\n", b"\r\n\r\n" * 1000, b"\0" * 20_000],
    ids=["no_length", "pings", "noise"],
)
async def test_repeated_violations_ban_the_source_and_close_its_connections(data: bytes) -> None:
    async with listening() as h:
        idle, idle_writer = await h.connect(STRANGER)
        for _ in range(Limits().ban_after // GRAVE):
            reader, writer = await h.connect(STRANGER)
            writer.write(data)
            await ended(reader)
            writer.close()
        assert await ended(idle)
        reader, writer = await h.connect(STRANGER)
        assert await ended(reader)
        assert [ban.source for ban in h.bans.in_force()] == [STRANGER]
        assert h.streams.statistics()["streams_closed_banned"] >= 2
        _, peer = await h.connect()
        peer.write(message())
        assert await h.heard()
        for each in (idle_writer, writer, peer):
            each.close()


async def test_repeated_connections_without_a_message_ban_the_source() -> None:
    async with listening() as h:
        for _ in range(Limits().ban_after):
            _, writer = await h.connect(STRANGER)
            writer.close()
        await until(h.bans.in_force)


async def test_repeated_connections_above_its_own_limit_ban_the_source() -> None:
    async with listening(max_strangers=8) as h:
        places = [await h.connect(STRANGER) for _ in range(2)]
        await h.settled(2)
        for _ in range(Limits().ban_after):
            reader, writer = await h.connect(STRANGER)
            assert await ended(reader)
            writer.close()
        await h.settled(0)
        assert [ban.source for ban in h.bans.in_force()] == [STRANGER]
        for _, writer in places:
            writer.close()


async def test_connections_refused_by_the_shared_limit_are_no_offence() -> None:
    async with listening(max_strangers=4) as h:
        places = [await h.connect(f"127.0.0.{number}") for number in range(60, 64)]
        await h.settled(4)
        for _ in range(2 * Limits().ban_after):
            reader, writer = await h.connect(STRANGER)
            assert await ended(reader)
            writer.close()
        assert h.bans.in_force() == []
        for _, writer in places:
            writer.close()


async def test_a_peer_is_never_banned_for_its_connections() -> None:
    async with listening() as h:
        for _ in range(2 * Limits().ban_after):
            reader, writer = await h.connect()
            writer.write(b"OPTIONS sip:x SIP/2.0\r\n\r\n")
            await ended(reader)
            writer.close()
        assert h.bans.in_force() == []


async def test_data_received_together_with_the_offence_is_not_parsed() -> None:
    async with listening() as h:
        _, writer = await h.connect(STRANGER)
        h.streams.received = lambda data, flow: (  # type: ignore[method-assign,assignment]
            h.messages.put_nowait((data, flow)),
            h.bans.ban(STRANGER, 2.0, 1.0, "stranger"),
        )
        writer.write(message() * 100)
        await h.settled(0)
        assert h.messages.qsize() == 1
        writer.close()
