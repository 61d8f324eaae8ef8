"""TLS connections over real sockets: certificates shown and verified."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from relay.errors import ConfigError
from relay.model.settings import Target
from relay.net.settings import PeerCertificate, TlsFiles
from relay.net.tls import client_context
from tests.net.certificates import Authority
from tests.net.streams import PEER, PEER_HOST, FarEnd, ended, listening, message
from tests.net.support import until
from tests.support.addresses import free
from tests.support.targets import target_at


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
