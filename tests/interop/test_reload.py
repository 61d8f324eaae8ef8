"""`relay700 reload` and SIGHUP on a running relay and its backend, with a call that is up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.interop.conftest import StartRelay, running_relay
from tests.support.addresses import CALLEE, RELAY, SECOND_CALLEE, free
from tests.support.certificates import write_certificate
from tests.support.phone import SDP, Leg, Phone, connected
from tests.support.relay_process import A, RelayProcess, Setup, X

pytestmark = pytest.mark.outside


def change(relay: RelayProcess, edit: Callable[[str], str]) -> None:
    text = relay.config.read_text()
    assert edit(text) != text
    relay.config.write_text(edit(text))


async def hang_up(leg: Leg, other: Leg) -> None:
    await leg.request("BYE")
    await other.answer(await other.phone.expect("BYE"), 200)
    await leg.phone.expect(200, "BYE")


@pytest.mark.parametrize("by", ["command", "signal"])
async def test_the_next_call_goes_by_it_and_the_one_that_is_up_goes_on(start_relay: StartRelay, by: str) -> None:
    """The first callee's peer is taken out, another one comes in its place, and a prefix more."""
    relay = start_relay(Setup(callees=[free(CALLEE)]))
    relay.bind()
    other = free(SECOND_CALLEE)
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as first, Phone(other) as second:
        leg_a, leg_b = await connected(relay.setup.relay, caller, first, (A, X))
        was = str(relay.setup.callee)
        change(
            relay,
            lambda text: (
                text.replace(was, str(other))
                .replace(f"{CALLEE}/32", f"{SECOND_CALLEE}/32")
                .replace("callee_side_1", "new")
                .replace('["70010000001"]', '["70010000001", "70010000002"]')
            ),
        )
        if by == "command":
            done = await asyncio.to_thread(relay.command, "reload")
            assert (done.returncode, done.stderr) == (0, "")
        else:
            os.kill(relay.pid, signal.SIGHUP)
        assert relay.wait_for_event("relay.reloaded")["peers"] == ["caller_side", "new"]
        leg_c, leg_d = await connected(relay.setup.relay, caller, second, (A, X))
        await leg_b.request("INVITE", body=SDP)
        await leg_a.answer(await caller.expect("INVITE"), 200, body=SDP)
        await first.expect(200, "INVITE")
        await leg_b.request("ACK", cseq=leg_b.cseq)
        await caller.expect("ACK")
        await hang_up(leg_b, leg_a)
        await hang_up(leg_c, leg_d)
    assert [record["peer_out"] for record in relay.calls()] == ["callee_side_1", "new"]
    x = relay.bind(a="13800000003", b="13900000004", x="700100000020001")["x"]
    assert x == "700100000020001"


async def test_who_may_be_a_party_holds_from_the_next_call_and_binding_on(start_relay: StartRelay) -> None:
    relay = start_relay()
    relay.bind()
    change(relay, lambda text: text.replace("[numbers]", '[numbers]\nparties = ["landline"]'))
    assert relay.command("reload").returncode == 0
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        leg = Leg.calling(caller, relay.setup.relay, A, X)
        await leg.request("INVITE", body=SDP)
        await caller.expect(403, "INVITE")
        await leg.request("ACK", cseq=1)
        assert callee.take_arrived() == []
    (record,) = relay.calls()
    assert (record["outcome"], record["routed_at"], record["callee"]) == ("party_not_allowed", None, None)
    assert record["binding_id"] is not None
    done = relay.command("bind", "AXB", "--a", A, "--b", "010 8888 6666")
    assert (done.returncode, done.stderr) == (1, "a: it is a mobile number: a party is a landline with its area code\n")


def test_faults_are_all_told_and_nothing_changes(start_relay: StartRelay) -> None:
    relay = start_relay()
    good = relay.config.read_text()
    change(relay, lambda text: text.replace("sip:", "tel:").replace("[sip]", "[sip]\nt1_ms = 1"))
    done = relay.command("reload")
    assert (done.returncode, done.stdout) == (1, "")
    peers = ["peer[0].uri (caller_side)", "peer[1].uri (callee_side_1)"]
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == ["sip.t1_ms", *peers]
    os.kill(relay.pid, signal.SIGHUP)
    told = relay.wait_for_event("relay.reload_refused")
    assert len(told["problems"]) == 3
    relay.config.write_text(good)
    assert relay.command("reload").returncode == 0


def test_what_holds_from_a_restart_on_is_named(start_relay: StartRelay) -> None:
    relay = start_relay()
    change(relay, lambda text: text.replace("[sip]", "[sip]\nt1_ms = 100").replace("[log]", '[log]\nlevel = "debug"'))
    done = relay.command("reload")
    assert (done.returncode, done.stdout) == (1, "")
    assert [line.split(": ")[:2] for line in done.stderr.splitlines()] == [
        [str(relay.config), key] for key in ("sip.t1_ms", "log")
    ]
    assert "relay.reloaded" not in relay.log()


def test_a_certificate_that_cannot_be_read_changes_nothing(start_relay: StartRelay, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    tls = f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'
    relay = start_relay(Setup(more=tls))
    assert relay.command("reload").returncode == 0
    key.write_text("no key")
    done = relay.command("reload")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"{relay.config}: tls.certificate: {certificate} and {key} are not a matching PEM pair"
    )


def test_without_a_relay_there_is_nothing_to_reload(tmp_path: Path) -> None:
    relay = RelayProcess(tmp_path, Setup())
    done = relay.command("reload")
    assert (done.returncode, done.stderr) == (1, "the relay is not running, or does not answer\n")


def test_the_backend_goes_by_it_too(tmp_path: Path) -> None:
    """Without a moment in which it does not answer: it is the same process."""
    with running_relay(tmp_path, Setup(api=free(RELAY))) as relay:
        relay.wait_for_event("api.listening")
        key = relay.answer("keys", "make", "--operator", "--json")["secret"]
        url = f"http://{relay.setup.api}/v1/bindings"

        def limit() -> str:
            answer = httpx.get(url, headers={"authorization": f"Bearer {key}"}, trust_env=False)
            return answer.headers["ratelimit-limit"]

        assert limit() == "1200"
        change(relay, lambda text: text.replace("[api]", "[api]\nburst = 7"))
        assert relay.command("reload").returncode == 0
        relay.wait_for_event("backend.reloaded")
        assert limit() == "7"
        assert relay.log().count('"backend.started"') == 1
