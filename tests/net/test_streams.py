"""TCP connections over real sockets: receiving, sending, limits and closing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from relay.net.stream import MAX_CARRIED, MOST_PINGS
from relay.sip.flow import Flow
from tests.net.streams import PEER_HOST, STRANGER, FarEnd, ended, listening, message, read_all
from tests.net.support import until
from tests.support.addresses import Address, free

# Receiving


@pytest.mark.parametrize("host", ["127.0.0.10", "::1"])
async def test_messages_are_framed_and_answered_on_their_connection(host: str) -> None:
    source = "::1" if ":" in host else PEER_HOST
    async with listening(host=host) as h:
        reader, writer = await h.connect(source)
        text = message("abc") + message()
        for piece in (text[:10], text[10:70], text[70:]):
            writer.write(piece)
            await writer.drain()
        first, second = await h.heard(), await h.heard()
        assert (first[0], second[0]) == (message("abc"), message())
        assert first[1] == second[1] == Flow(0, "tcp", *writer.get_extra_info("sockname")[:2], first[1].connection)
        assert first[1].connection > 0
        h.streams.send(b"answer", first[1])
        assert await reader.readexactly(6) == b"answer"
        writer.close()


async def test_a_ping_is_answered_with_a_pong() -> None:
    async with listening() as h:
        reader, writer = await h.connect()
        writer.write(b"\r\n\r\n")
        assert await reader.readexactly(2) == b"\r\n"
        writer.close()


@pytest.mark.parametrize(
    "hostile",
    [
        b"OPTIONS sip:x SIP/2.0\r\nX: " + b"x" * 20_000,
        b"OPTIONS sip:x SIP/2.0\r\nContent-Length: 99999999\r\n\r\n",
        b"OPTIONS sip:x SIP/2.0\r\nContent-Length: minus one\r\n\r\n",
        b"OPTIONS sip:x SIP/2.0\r\n\r\n",
    ],
)
async def test_a_stream_that_cannot_be_framed_is_closed(hostile: bytes) -> None:
    async with listening() as h:
        reader, writer = await h.connect()
        writer.write(hostile)
        assert await ended(reader)
        await h.settled(0)
        assert h.streams.statistics()["streams_closed_framing"] == 1
        writer.close()


# Limits


async def test_idle_connections_are_closed_and_busy_ones_are_not() -> None:
    async with listening(idle_timeout_s=100) as h:
        idle, idle_writer = await h.connect()
        busy, busy_writer = await h.connect()
        await h.settled(2)
        start = h.streams.now
        h.streams.sweep(start + 60)
        busy_writer.write(message())
        await h.heard()
        h.streams.sweep(start + 101)
        assert await ended(idle)
        busy_writer.write(b"\r\n\r\n")
        assert await busy.readexactly(2) == b"\r\n"
        idle_writer.close()
        busy_writer.close()


@pytest.mark.parametrize("start", [b"", message(), message() + b"\r\n"])
async def test_a_slow_message_closes_the_connection(start: bytes) -> None:
    async with listening(message_timeout_s=30) as h:
        reader, writer = await h.connect()
        writer.write(start + b"OPTIONS ")
        await h.settled(1)
        (connection,) = h.streams._by_number.values()
        await until(lambda: connection.message_since is not None)
        begun = h.streams.now
        h.streams.sweep(begun + 29)
        writer.write(b"s")  # further bytes do not extend the limit
        await until(lambda: connection.heard == begun + 29)
        h.streams.sweep(begun + 31)
        assert await ended(reader)
        await h.settled(0)
        assert h.streams.statistics()["streams_closed_half_message"] == 1
        writer.close()


async def test_a_complete_message_stops_the_message_timeout() -> None:
    async with listening(message_timeout_s=30) as h:
        reader, writer = await h.connect()
        writer.write(message()[:10])
        await h.settled(1)
        writer.write(message()[10:])
        await h.heard()
        h.streams.sweep(h.streams.now + 60)
        writer.write(b"\r\n\r\n")
        assert await reader.readexactly(2) == b"\r\n"
        writer.close()


async def test_connections_above_the_limit_are_refused_until_one_closes() -> None:
    async with listening(max_per_source=2) as h:
        places = [await h.connect() for _ in range(2)]
        await h.settled(2)
        reader, writer = await h.connect()
        assert await ended(reader)
        writer.close()
        assert h.streams.statistics()["streams_closed_refused"] == 1
        places[0][1].close()
        await h.settled(1)
        reader, writer = await h.connect()
        writer.write(message())
        await h.heard()
        for _, open_writer in (*places, (reader, writer)):
            open_writer.close()


async def test_unknown_sources_leave_room_for_peers() -> None:
    async with listening(max_strangers=1) as h:
        _, stranger = await h.connect("127.0.0.66")
        await h.settled(1)
        refused, second_stranger = await h.connect("127.0.0.67")
        assert await ended(refused)
        _, peer = await h.connect()
        peer.write(message())
        await h.heard()
        for writer in (stranger, second_stranger, peer):
            writer.close()


async def test_a_far_end_that_does_not_read_is_closed() -> None:
    async with listening(max_unsent=131_072) as h:
        _, writer = await h.connect()
        writer.write(message())
        _, flow = await h.heard()
        (connection,) = h.streams._by_number.values()
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_limits()[1] == 131_072
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        while h.streams.statistics()["streams"]:
            h.streams.send(bytes(60_000), flow)
            await asyncio.sleep(0)
        assert h.streams.statistics()["streams_closed_slow_reader"] == 1
        writer.transport.abort()


async def test_a_silent_connection_of_an_unknown_source_is_closed() -> None:
    async with listening(message_timeout_s=30) as h:
        reader, stranger = await h.connect(STRANGER)
        _, peer = await h.connect()
        await h.settled(2)
        h.streams.sweep(h.streams.now + 31)
        assert await ended(reader)
        await h.settled(1)
        stranger.close()
        peer.close()


async def test_a_flood_of_pings_closes_the_connection() -> None:
    async with listening() as h:
        reader, writer = await h.connect()
        writer.write(b"\r\n\r\n" * 10_000)
        assert len(await asyncio.wait_for(read_all(reader), 10)) <= 2 * MOST_PINGS
        assert h.streams.statistics()["streams_closed_pings"] == 1
        writer.close()


async def test_pings_of_several_seconds_are_all_answered() -> None:
    async with listening() as h:
        reader, writer = await h.connect()
        for _ in range(3 * MOST_PINGS):
            h.streams.sweep(h.streams.now + 1)
            writer.write(b"\r\n\r\n")
            assert await reader.readexactly(2) == b"\r\n"
        writer.close()


# Sending


async def test_a_connection_is_opened_from_the_listener_s_address_and_reused() -> None:
    async with listening() as h, FarEnd.at(PEER_HOST) as (far, address):
        for text in (b"one", b"two"):  # the second while the connection is being opened
            h.streams.send(text, h.flow_to(address))
        heard = await far.heard()
        while len(heard) < 6:
            heard += await far.heard()
        h.streams.send(b"three", h.flow_to(address))
        assert (heard, await far.heard()) == (b"onetwo", b"three")
        assert len(far.writers) == 1
        assert far.writers[0].get_extra_info("peername")[0] == h.address.host


async def test_a_host_name_is_resolved() -> None:
    async with listening(host="127.0.0.1") as h, FarEnd.at("127.0.0.1") as (far, address):
        h.streams.send(b"hello", h.flow_to(Address("localhost", address.port)))
        assert await far.heard() == b"hello"


async def test_messages_on_our_connection_come_with_its_actual_address() -> None:
    async with listening(host="127.0.0.1") as h, FarEnd.at("127.0.0.1") as (far, address):
        h.streams.send(b"hello", h.flow_to(Address("localhost", address.port)))
        await far.heard()
        far.writers[0].write(message())
        _, flow = await h.heard()
        assert (flow.host, flow.port) == address


async def test_an_incoming_connection_is_reused_for_requests_to_its_address() -> None:
    async with listening() as h:
        reader, writer = await h.connect()
        writer.write(message())
        _, flow = await h.heard()
        h.streams.send(b"request", flow._replace(connection=0))
        assert await reader.readexactly(7) == b"request"
        writer.close()


async def test_a_response_to_a_closed_connection_opens_a_new_one() -> None:
    async with listening() as h, FarEnd.at(PEER_HOST) as (far, address):
        h.streams.send(b"answer", h.flow_to(address)._replace(connection=77))
        assert await far.heard() == b"answer"


async def test_a_refused_connection_fails_the_requested_flow() -> None:
    async with listening() as h:
        wanted = h.flow_to(free(PEER_HOST))._replace(connection=77)
        h.streams.send(b"hello", wanted)
        failed = {await h.failure(), await h.failure(), await h.failure()}
        assert {wanted, wanted._replace(connection=0)} < failed
        await h.settled(0)


@pytest.mark.parametrize("name", ["no-such-host.invalid", "x" * 64 + ".invalid"])
async def test_an_invalid_host_name_fails_the_flow(name: str) -> None:
    async with listening() as h:
        wanted = h.flow_to(Address(name, 5060))
        h.streams.send(b"hello", wanted)
        assert wanted in {await h.failure(), await h.failure()}


async def test_a_closed_connection_fails_each_of_its_flows() -> None:
    async with listening() as h, FarEnd.at(PEER_HOST) as (far, address):
        wanted = h.flow_to(address)
        h.streams.send(b"hello", wanted)
        await far.heard()
        far.writers[0].transport.abort()
        failed = {await h.failure(), await h.failure()}
        assert failed == {wanted, wanted._replace(connection=1)}


async def test_no_connection_is_opened_above_the_limit() -> None:
    async with listening(max_connections=1) as h, FarEnd.at(PEER_HOST) as (_, address):
        _, writer = await h.connect()
        await h.settled(1)
        h.streams.send(b"hello", h.flow_to(address))
        assert await h.failure() == h.flow_to(address)
        writer.close()


async def test_unknown_sources_are_recounted_on_reload() -> None:
    async with listening("tcp", max_strangers=0) as h:
        h.streams.reload(replace(h.settings, peers=()), None)
        reader, _ = await h.connect()
        assert await ended(reader)
        h.streams.reload(h.settings, None)
        _, writer = await h.connect()
        writer.write(message())
        await h.heard()
        writer.close()


# The end


async def test_close_delivers_unsent_data() -> None:
    async with listening() as h:
        reader, writer = await h.connect()
        writer.write(message())
        _, flow = await h.heard()
        h.streams.send(bytes(500_000), flow)
        await h.streams.close()
        assert len(await asyncio.wait_for(reader.read(), 10)) == 500_000
        assert h.failed.empty()
        writer.close()


async def test_an_address_in_use_is_an_error() -> None:
    async with listening() as h:
        with pytest.raises(OSError, match="in use"):
            h.streams.listen(0)


async def test_a_broken_connection_fails_the_flows_it_carried() -> None:
    """A dialog's flow names a Contact's port, and a connection that may be closed."""
    async with listening() as relay:
        reader, writer = await relay.connect()
        writer.write(message())
        _, flow = await relay.heard()
        by_contact = flow._replace(port=5060)
        by_gone = flow._replace(connection=flow.connection + 1000)
        for other in (by_contact, by_gone):
            relay.streams.send(message(), other)
            await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        told = {await relay.failure() for _ in range(4)}
        assert told == {flow, flow._replace(connection=0), by_contact, by_gone}


async def test_the_flows_remembered_by_a_connection_are_limited() -> None:
    async with listening() as relay:
        _, writer = await relay.connect()
        writer.write(message())
        _, flow = await relay.heard()
        for port in range(1, MAX_CARRIED + 100):
            relay.streams.send(message(), flow._replace(port=port))
        writer.transport.abort()
        await relay.settled(0)
        assert MAX_CARRIED <= relay.failed.qsize() <= MAX_CARRIED + 2


async def test_an_idle_connection_with_unsent_data_is_aborted() -> None:
    async with listening(max_unsent=50_000_000) as relay:
        _, writer = await relay.connect()
        writer.transport.pause_reading()
        writer.write(message())
        _, flow = await relay.heard()
        for _ in range(300):
            relay.streams.send(message("x" * 60_000), flow)
        for late in (10_000.0, 10_001.0):
            relay.streams.sweep(asyncio.get_running_loop().time() + late)
        await relay.settled(0)
