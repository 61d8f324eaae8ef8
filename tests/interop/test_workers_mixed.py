"""Workers together with what else there is: bans, reloads, TLS, many listeners, IPv6, names of peers."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.interop.floods import connect, invites
from tests.support.addresses import CALLER, RELAY, free
from tests.support.certificates import write_certificate
from tests.support.live_call import Call
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import Setup
from tests.support.workers import NUMBERS, A, StartWorkers, kill

pytestmark = pytest.mark.outside

MANY = 16
ONE_EACH = [(f"7001000000100{number:02}", A, f"139000001{number:02}") for number in range(MANY)]
BAN_AFTER = 100
ELSEWHERE = "127.0.0.12"


async def test_who_was_a_peer_when_a_call_of_another_worker_was_made_is_not_banned(start_workers: StartWorkers) -> None:
    """A reload has taken the caller's peer away. One worker has the call, the other one strangers from its address."""
    relay = start_workers(Setup(transport="tcp"))
    async with Phone(relay.setup.caller, "tcp") as caller, Phone(relay.setup.callee, "tcp") as callee:
        call = Call(relay, caller, callee, A, NUMBERS[0])
        await call.answer()
        relay.config.write_text(relay.config.read_text().replace(CALLER, ELSEWHERE))
        assert relay.command("reload").returncode == 0
        _, stranger = await connect(CALLER, relay)
        for invite in invites(CALLER, relay.setup.relay, 2 * BAN_AFTER):
            stranger.write(invite.replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP"))
        assert relay.wait_for_event("source.spared")["source"] == CALLER
        refused = relay.command("bans", "add", CALLER, "--for", "1h", "--reason", "a test")
        assert refused.returncode == 1
        assert "a call that is up" in refused.stderr
        assert not relay.command("bans", "list", "--json").stdout
        await call.hang_up()
        stranger.close()
    assert "source.banned" not in relay.log()
    assert relay.calls()[0]["ended_by"] == "caller"


def tls_of(folder: Path) -> tuple[str, ssl.SSLContext]:
    """The table of the configuration, and what a phone goes by that calls."""
    certificate, key = write_certificate(folder)
    table = f'\n[tls]\ncertificate = "{certificate}"\nkey = "{key}"\nca = "{certificate}"\n'
    return table, ssl.create_default_context(cafile=str(certificate))


async def test_sixteen_workers_serve_eight_listeners(start_workers: StartWorkers, tmp_path: Path) -> None:
    """Each worker has calls by two of the listeners; by which one a call comes in makes no difference."""
    table, tls = tls_of(tmp_path)
    places = [(transport, free(RELAY)) for transport in ("udp", "tcp", "tls", "udp", "tcp", "tls", "udp", "tcp")]
    listen = [f"{transport}:{at}" for transport, at in places]
    setup = Setup(places[0][1], sip={"listen": listen, "t1_ms": 200}, more=table)
    relay = start_workers(setup, MANY, ONE_EACH)
    tags = []
    async with Phone(setup.callee) as callee:
        for number, (x, _, _) in enumerate(ONE_EACH):
            for transport, at in (places[number % 8], places[(number + 1) % 8]):
                async with Phone(free(CALLER), transport, client_tls=tls if transport == "tls" else None) as caller:
                    call = Call(relay, caller, callee, A, x)
                    call.leg.relay = at
                    await call.answer()
                    tags.append(int(call.leg.remote.rpartition("tag=")[2][0], 16))
                    await call.hang_up()
    assert tags == [number for number in range(MANY) for _ in range(2)]
    assert [record["outcome"] for record in relay.calls()] == ["answered"] * 2 * MANY
    relay.stop_and_check()


async def test_a_call_by_tls_outlives_its_worker_and_the_other_side_ends_it_by_udp(
    start_workers: StartWorkers, tmp_path: Path
) -> None:
    """The caller listens nowhere: its connection, which its worker's parent keeps, is the only way to it."""
    table, tls = tls_of(tmp_path)
    by_udp, by_tls = free(RELAY), free(RELAY)
    relay = start_workers(Setup(by_udp, sip={"t1_ms": 200, "listen": [f"tls:{by_tls}", f"udp:{by_udp}"]}, more=table))
    async with (
        Phone(relay.setup.caller, "tls", client_tls=tls) as caller,
        Phone(relay.setup.callee) as callee,
    ):
        call = Call(relay, caller, callee, A, NUMBERS[0])
        call.leg.relay = by_tls
        await call.answer()
        mark = kill(relay, 0)
        await call.called.request("BYE")
        await call.leg.answer(await caller.expect("BYE"), 200)
        await callee.expect(200, "BYE")
        relay.wait_for_event("worker.ready", after=mark)
    assert relay.calls()[0]["ended_by"] == "callee"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_what_comes_while_a_worker_is_replaced_is_answered_by_its_successor(
    start_workers: StartWorkers, transport: str
) -> None:
    """A text is delivered; what rang is gone, and its CANCEL is told so (RFC 3261 9.2)."""
    relay = start_workers(Setup(sip={"t1_ms": 200}, transport=transport, more="\n[sms]\nenabled = true\n"))
    async with Phone(relay.setup.caller, transport) as caller, Phone(relay.setup.callee, transport) as callee:
        ringing = Leg.calling(caller, relay.setup.relay, A, NUMBERS[0])
        branch = await ringing.request("INVITE", body=SDP)
        await Leg.called(callee, relay.setup.relay, invite := await callee.expect("INVITE")).answer(invite, 180)
        await caller.expect(180)
        kill(relay, 0)
        await ringing.request("CANCEL", branch=branch, cseq=1)
        text = Leg.calling(caller, relay.setup.relay, A, NUMBERS[0])
        await text.request("MESSAGE", ["Content-Type: text/plain"], b"at the door")
        await caller.expect(481, "CANCEL")
        message = await callee.expect("MESSAGE")
        await Leg.called(callee, relay.setup.relay, message).answer(message, 200)
        assert (await caller.expect(200)).method == "MESSAGE"
    assert [record["outcome"] for record in relay.calls()] == ["delivered"]
