"""The basic flows over TLS: pjsua2 softphones and bare sockets, for SIPp's TLS client fails in Debian 13."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.interop.test_softphones import STREAM_SOURCE, assert_each_knows_only_itself, talk
from tests.support.addresses import CALLEE, CALLER, RELAY, free
from tests.support.certificates import write_certificate
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, B, Setup, X
from tests.support.sip_text import user_of
from tests.support.sipp_calls import BACK, FORTH
from tests.support.softphones import Pjsua


def tls_setup(certificate: tuple[Path, Path], host: str = "", **more: Path) -> Setup:
    paths = {"certificate": certificate[0], "key": certificate[1], "ca": certificate[0], **more}
    table = "\n[tls]\n" + "".join(f'{key} = "{path}"\n' for key, path in paths.items())
    return Setup(
        free(host or RELAY),
        free(host or CALLER),
        [free(host or CALLEE)],
        "tls",
        listen=["tls"],
        more=table,
        caller_sources=[] if host else [STREAM_SOURCE],
    )


async def test_two_pjsua2_phones_talk_both_ways(start_relay: StartRelay, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path)
    setup = tls_setup(certificate)
    relay = start_relay(setup)
    relay.bind()
    async with (
        Pjsua(tmp_path, setup.caller, A, "tls", certificate) as a,
        Pjsua(tmp_path, setup.callee, B, "tls", certificate) as b,
    ):
        await talk(relay, a, b, FORTH)
        await talk(relay, b, a, BACK)
        assert_each_knows_only_itself(a, b)
    assert [record["outcome"] for record in relay.calls()] == ["answered", "answered"]


@pytest.mark.parametrize("host", ["", "::1"], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("ended_by", ["caller", "callee"])
async def test_call_over_tls_sockets(start_relay: StartRelay, tmp_path: Path, host: str, ended_by: str) -> None:
    certificate = write_certificate(tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*certificate)
    client = ssl.create_default_context(cafile=str(certificate[0]))  # verifies the relay's certificate
    client.load_cert_chain(*certificate)
    setup = tls_setup(certificate, host, client_ca=certificate[0])
    relay = start_relay(setup)
    relay.bind()
    async with (
        Phone(setup.caller, "tls", server_tls=server, client_tls=client) as caller,
        Phone(setup.callee, "tls", server_tls=server, client_tls=client) as callee,
    ):
        leg_a = Leg.calling(caller, setup.relay, A, X)
        await leg_a.request("INVITE", body=SDP)
        invite = await callee.expect("INVITE")
        assert user_of(invite["from"]) == X
        leg_b = Leg.called(callee, setup.relay, invite)
        await leg_b.answer(invite, 200, body=SDP)
        leg_a.learn(await caller.expect(200, "INVITE"))
        await leg_a.request("ACK", cseq=1)
        await callee.expect("ACK")
        ender, other, waiting = (leg_a, leg_b, callee) if ended_by == "caller" else (leg_b, leg_a, caller)
        await ender.request("BYE")
        await other.answer(await waiting.expect("BYE"), 200)
        await ender.phone.expect(200, "BYE")
        assert B.encode() not in bytes(caller.raw_received)
        assert A.encode() not in bytes(callee.raw_received)
    (record,) = relay.calls()
    assert (record["outcome"], record["ended_by"]) == ("answered", ended_by)


async def test_a_caller_who_does_not_prove_to_be_the_peer_is_cut_off(start_relay: StartRelay, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path)
    client = ssl.create_default_context(cafile=str(certificate[0]))
    setup = tls_setup(certificate, client_ca=certificate[0])
    relay = start_relay(setup)
    relay.bind()
    reader, writer = await asyncio.open_connection(*setup.relay, local_addr=(setup.caller.host, 0), ssl=client)
    writer.write(b"OPTIONS sip:relay SIP/2.0\r\nContent-Length: 0\r\n\r\n")
    with suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    assert relay.statistics()["streams_closed_unproven"] == 1
    assert not relay.calls()
