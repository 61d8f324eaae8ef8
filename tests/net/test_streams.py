"""TCP connections over real sockets: receiving, sending, limits and closing."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from relay.call.engine import Engine
from relay.defence.bans import GRAVE, KnownAddresses
from relay.errors import ConfigError
from relay.model.actions import Send
from relay.model.settings import Limits, PeerCertificate, Target, TlsFiles
from relay.net.stream import MAX_CARRIED, MOST_DIALLED, MOST_PINGS
from relay.net.streams import _return_flow
from relay.net.tls import client_context
from relay.net.tokens import tokens
from relay.sip.message import Flow
from tests.net.certificates import Authority
from tests.net.streams import PEER, PEER_HOST, STRANGER, FarEnd, ended, listening, message, read_all
from tests.net.support import until
from tests.support.addresses import Address, free
from tests.support.targets import target_at

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


async def test_an_oversized_message_is_refused_alone() -> None:
    async with listening() as h:
        engine = Engine(h.settings, tokens().__next__, 0.0)

        def receive(data: bytes, flow: Flow) -> None:
            engine.receive(data, flow, h.streams.now)
            for action in engine.take_actions():
                if isinstance(action, Send):
                    h.streams.send(action.data, action.flow)

        h.streams.received = receive  # type: ignore[method-assign]
        reader, writer = await h.connect()
        for number, length in enumerate((0, 70_000, 0), 1):
            writer.write(_options(number, length) + bytes(length))
        answers = [await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) for _ in range(3)]
        assert [answer.split()[1] for answer in answers] == [b"200", b"400", b"200"]
        assert b"CSeq: 2 OPTIONS\r\n" in answers[1]
        assert h.failed.empty()
        writer.close()


def _options(number: int, length: int) -> bytes:
    return (
        f"OPTIONS sip:relay SIP/2.0\r\nVia: SIP/2.0/TCP {PEER_HOST};branch=z9hG4bK{number}\r\nMax-Forwards: 70\r\n"
        f"From: <sip:a@{PEER_HOST}>;tag=1\r\nTo: <sip:relay>\r\nCall-ID: c\r\nCSeq: {number} OPTIONS\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


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


@pytest.mark.parametrize("start", [b"", message(), message() + b"\r\n", _options(1, 70_000)])
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
        refused, second_stranger = await h.connect("127.0.0.66")
        assert await ended(refused)
        _, peer = await h.connect()
        peer.write(message())
        await h.heard()
        for writer in (stranger, second_stranger, peer):
            writer.close()


async def test_oldest_connection_of_the_unknown_source_with_the_most_gives_way_to_a_source_with_fewer() -> None:
    """A few sources could else keep all places for good, each with a keep-alive now and then."""
    async with listening(max_strangers=8) as h:
        h.bans.spare(lambda: KnownAddresses([], ["127.0.0.60"]))  # a phone that has registered, behind NAT
        places = {}
        for host in ("127.0.0.60", "127.0.0.61", "127.0.0.62", "127.0.0.63"):
            for number in range(2):
                reader, writer = await h.connect(host)
                writer.write(message())
                _, flow = await h.heard()
                places[host, number] = reader, writer, flow
        newcomers = []
        for host in ("127.0.0.64", "127.0.0.65", "127.0.0.66"):
            reader, writer = await h.connect(host)
            writer.write(message())
            await h.heard()
            newcomers.append((reader, writer))
        gone = {key for key, (_, _, flow) in places.items() if flow.connection not in h.streams._by_number}
        assert gone == {(f"127.0.0.{host}", 0) for host in (61, 62, 63)}
        for key in gone:
            assert await ended(places[key][0])
        assert {await h.failure() for _ in range(6)} >= {places[key][2] for key in gone}
        reader, writer = await h.connect("127.0.0.61")  # has one, as the others have
        assert await ended(reader)
        assert h.streams.statistics()["streams_from_strangers"] == 8
        assert h.streams.statistics()["streams_closed_crowded"] == 3
        for opened in (*newcomers, *places.values(), (reader, writer)):
            opened[1].close()


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
        stranger.write(b"\r\n\r\n")  # a keep-alive is no message
        assert await reader.readexactly(2) == b"\r\n"
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


async def test_a_response_to_a_closed_connection_goes_to_the_port_in_its_via() -> None:
    """RFC 3261 18.2.2; the host is where the request came from, whatever its Via says."""
    async with listening() as h, FarEnd.at(PEER_HOST) as (far, address):
        _, writer = await h.connect()
        writer.write(message())
        _, flow = await h.heard()
        writer.close()
        await h.settled(0)
        for name in ("sbc.example", STRANGER):
            ok = f"SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP {name}:{address.port};branch=z9hG4bKa\r\n\r\n".encode()
            h.streams.send(ok, flow)
            assert await far.heard() == ok
        assert len(far.writers) == 1


@pytest.mark.parametrize(("transport", "port"), [("tcp", 5060), ("tls", 5061)])
def test_a_response_without_a_port_in_its_via_goes_to_the_default_port(transport: str, port: int) -> None:
    ok = b"SIP/2.0 200 OK\r\nVia: SIP / 2.0/TCP sbc.example;branch=z9hG4bKa\r\n\r\n"
    assert _return_flow(ok, Flow(0, transport, PEER_HOST, 40_123, 7)) == Flow(0, transport, PEER_HOST, port)


async def test_a_request_to_a_closed_connection_opens_a_new_one() -> None:
    async with listening() as h, FarEnd.at(PEER_HOST) as (far, address):
        h.streams.send(b"request", h.flow_to(address)._replace(connection=77))
        assert await far.heard() == b"request"


async def test_a_far_end_that_is_gone_without_a_word_is_noticed() -> None:
    async with listening() as h, FarEnd.at(PEER_HOST) as (far, address):
        _, writer = await h.connect()
        h.streams.send(b"hello", h.flow_to(address))
        await far.heard()
        for connection in h.streams._by_number.values():
            assert connection._transport is not None
            connected = connection._transport.get_extra_info("socket")
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000  # ms
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10
            assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert len(h.streams._by_number) == 2
        writer.close()


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


async def test_a_host_with_many_contacts_leaves_connections_to_configured_targets() -> None:
    """A peer may name any port of its own host in a Contact, in each request another one."""
    async with FarEnd.at(PEER_HOST) as (far, address):
        peer = replace(PEER, targets=(target_at(PEER_HOST, address.port, "tcp"),))
        async with listening(max_connections=80, peer=peer) as h:
            for port in range(1, 101):
                h.streams.send(b"INFO", h.flow_to(Address(PEER_HOST, port)))
            assert h.streams.statistics()["streams"] == MOST_DIALLED
            h.streams.send(b"hello", h.flow_to(address))
            assert await far.heard() == b"hello"
            await h.settled(1)
            far.writers[0].transport.abort()
            await h.settled(0)
            assert h.streams._admission.count == 0


async def test_a_located_target_is_dialled_whatever_the_total() -> None:
    async with listening(max_connections=1) as h, FarEnd.at("127.0.0.12") as (far, address):
        h.streams.locate({PEER.name: (target_at(address.host, address.port, "tcp"),)})
        _, writer = await h.connect()
        await h.settled(1)
        h.streams.send(b"hello", h.flow_to(address))
        assert await far.heard() == b"hello"
        writer.close()


async def test_connections_of_a_target_are_recounted_when_it_is_located() -> None:
    async with listening() as h:
        _, writer = await h.connect(STRANGER)
        await h.settled(1)
        h.streams.locate({PEER.name: (target_at(STRANGER, transport="tcp"),)})
        assert h.streams.statistics()["streams_from_strangers"] == 0
        writer.close()
        await h.settled(0)
        assert not h.streams._admission._by_peer


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


# -- TLS connections over real sockets: certificates shown and verified


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def far_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


async def test_tls_carries_messages_both_ways(authority: Authority) -> None:
    files = authority.issue("127.0.0.10")
    async with listening("tls", files) as h:
        reader, writer = await h.connect(tls=client_context(files))
        writer.write(message("abc"))
        data, flow = await h.heard()
        assert (data, flow.transport) == (message("abc"), "tls")
        h.streams.send(b"answer", flow)
        assert await reader.readexactly(6) == b"answer"
        writer.close()


async def test_a_failed_handshake_releases_its_connection(authority: Authority) -> None:
    async with listening("tls", authority.issue("127.0.0.10"), max_connections=1) as h:
        for _ in range(3):
            reader, writer = await h.connect()
            writer.write(b"OPTIONS sip:not-tls SIP/2.0\r\n\r\n")
            await ended(reader)
            writer.close()
            await until(lambda: not h.streams._admission.count)
        assert h.streams.statistics()["streams_closed_handshake"] == 3


async def test_unknown_sources_above_the_limit_are_refused_before_the_handshake(authority: Authority) -> None:
    async with listening("tls", authority.issue("127.0.0.10"), max_strangers=0) as h:
        reader, writer = await h.connect("127.0.0.66")
        assert await ended(reader)
        writer.close()


async def test_a_server_certificate_of_the_authority_is_accepted(authority: Authority) -> None:
    far_files = authority.issue(PEER_HOST)
    async with (
        listening("tls", authority.issue("127.0.0.10")) as h,
        FarEnd.at(PEER_HOST, far_context(far_files)) as (far, address),
    ):
        h.streams.send(b"hello", h.flow_to(address))
        assert await far.heard() == b"hello"


@pytest.mark.parametrize("other", ["authority", "host"])
async def test_nothing_is_sent_to_a_server_that_fails_verification(
    authority: Authority, tmp_path: Path, other: str
) -> None:
    (tmp_path / "other").mkdir()
    if other == "authority":
        far_files = Authority(tmp_path / "other", "other").issue(PEER_HOST)
    else:
        far_files = authority.issue("127.0.0.99")
    async with (
        listening("tls", authority.issue("127.0.0.10")) as h,
        FarEnd.at(PEER_HOST, far_context(far_files)) as (far, address),
    ):
        wanted = h.flow_to(address)
        h.streams.send(b"hello", wanted)
        assert wanted in {await h.failure(), await h.failure()}
        assert far.lines.empty()


async def test_a_server_located_by_name_must_prove_that_name(authority: Authority) -> None:
    """RFC 5922 4: the URI's host name, not the SRV target's."""
    async with FarEnd.at(PEER_HOST, far_context(authority.issue("carrier.example"))) as (far, address):
        found = Target(address.host, address.port, "tls", "carrier.example")
        for located, heard in (({}, False), ({"peer": (found,)}, True)):
            async with listening("tls", authority.issue("127.0.0.10")) as h:
                h.streams.locate(located)
                h.streams.send(b"hello", h.flow_to(address))
                if heard:
                    assert await far.heard() == b"hello"
                else:
                    assert h.flow_to(address) in {await h.failure(), await h.failure()}


async def test_reloaded_certificates_apply_to_new_connections(authority: Authority) -> None:
    first, second = authority.issue("127.0.0.10"), authority.issue("127.0.0.12")
    async with listening("tls", first) as h:
        _, writer = await h.connect(tls=client_context(first))
        h.streams.reload(h.settings, replace(first, certificate=second.certificate, key=second.key))
        with pytest.raises(ssl.SSLCertVerificationError):
            await h.connect(tls=client_context(first))
        writer.write(message())
        await h.heard()  # the old connection goes on
        writer.close()


async def test_unusable_certificates_leave_the_old_ones_in_force(authority: Authority, tmp_path: Path) -> None:
    files = authority.issue("127.0.0.10")
    async with listening("tls", files) as h:
        with pytest.raises(ConfigError):
            h.streams.reload(h.settings, replace(files, key=tmp_path / "none"))
        _, writer = await h.connect(tls=client_context(files))
        writer.close()


@pytest.mark.parametrize("reloaded", [False, True])
@pytest.mark.parametrize("by", ["target", "source"])
async def test_a_peer_may_have_its_own_client_certificate(authority: Authority, by: str, reloaded: bool) -> None:
    context = far_context(authority.issue(PEER_HOST))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    trunk = authority.issue("trunk.example")
    files = authority.issue("127.0.0.10")
    async with FarEnd.at(PEER_HOST, context) as (far, address):
        port = address.port if by == "target" else 5061
        peer = replace(PEER, targets=(target_at(PEER_HOST, port, "tls"),))
        shown = PeerCertificate(PEER.name, trunk.certificate, trunk.key, "peer[0]")
        wanted = replace(files, peers=(shown,))
        async with listening("tls", files if reloaded else wanted, peer=peer) as h:
            if reloaded:
                h.streams.reload(h.settings, wanted)
            h.streams.send(b"hello", h.flow_to(address))
            await far.heard()
            certificate = far.writers[0].get_extra_info("peercert")
    assert certificate["subjectAltName"] == (("DNS", "trunk.example"),)


@pytest.mark.parametrize(
    ("shown", "heard"), [(PEER_HOST, True), ("127.0.0.99", False), ("stranger", False), ("", False)]
)
async def test_a_connecting_peer_must_prove_its_identity(
    authority: Authority, tmp_path: Path, shown: str, heard: bool
) -> None:
    (tmp_path / "other").mkdir()
    files = replace(authority.issue("127.0.0.10"), client_ca=authority.file)
    issuer = Authority(tmp_path / "other", "other") if shown == "stranger" else authority
    context = client_context(files)
    if shown:
        theirs = issuer.issue(PEER_HOST if shown == "stranger" else shown)
        context.load_cert_chain(theirs.certificate, theirs.key)
    else:
        context = ssl.create_default_context(cafile=authority.file)
    async with listening("tls", files, peer=replace(PEER, targets=(target_at(PEER_HOST, transport="tls"),))) as h:
        reader, writer = await h.connect(tls=context)
        writer.write(message())
        if heard:
            await h.heard()
            writer.close()
        else:
            assert await ended(reader)
            assert h.messages.empty()


@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_a_peer_without_a_tls_target_needs_no_certificate(authority: Authority, transport: str) -> None:
    """Such as a phone that registers."""
    files = replace(authority.issue("127.0.0.10"), client_ca=authority.file)
    context = ssl.create_default_context(cafile=authority.file) if transport == "tls" else None
    async with listening(transport, files) as h:
        _, writer = await h.connect(tls=context)
        writer.write(message())
        await h.heard()
        writer.close()


async def test_without_verification_any_certificate_is_accepted(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    far_files = Authority(tmp_path / "other", "other").issue(PEER_HOST)
    async with (
        listening("tls", authority.issue("127.0.0.10", verify=False)) as h,
        FarEnd.at(PEER_HOST, far_context(far_files)) as (far, address),
    ):
        h.streams.send(b"hello", h.flow_to(address))
        assert await far.heard() == b"hello"


async def test_an_incoming_connection_from_a_peer_s_port_is_not_reused_for_it(
    authority: Authority,
) -> None:
    files = authority.issue("127.0.0.10")
    claimed = free(PEER_HOST)
    peer = replace(PEER, targets=(target_at(PEER_HOST, claimed.port, "tls"),))
    async with listening("tls", files, peer=peer) as h:
        _, writer = await asyncio.open_connection(
            *h.address, local_addr=claimed, ssl=client_context(files), server_hostname=h.address.host
        )
        writer.write(message())
        _, flow = await h.heard()
        h.streams.send(b"hello", flow._replace(connection=0))
        assert await h.failure() in (flow._replace(connection=0), flow._replace(connection=flow.connection + 1))
        writer.close()


# -- Bans for misuse of connections


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
    hosts = [f"127.0.0.{number}" for number in range(60, 64)]
    async with listening(max_strangers=4) as h:
        h.bans.spare(lambda: KnownAddresses([], hosts))  # phones that have registered
        places = [await h.connect(host) for host in hosts]
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
