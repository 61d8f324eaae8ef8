"""Digest authentication and registration with programs that are not ours: SIPp, pjsua2 and baresip."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import PASSWORD, StartRelay, running_relay
from tests.interop.test_asterisk import BetweenPbxs, hang_up_all, pbxs
from tests.interop.test_softphones import assert_each_knows_only_itself, by_time, talk
from tests.support.addresses import CALLEE, Address, free
from tests.support.asterisk import Robot
from tests.support.call_flow import CALLEE_IS_HUNG_UP
from tests.support.relay_process import A, B, RelayProcess, Setup, X
from tests.support.sipp import Sipp, Traffic
from tests.support.sipp_calls import BACK, FORTH
from tests.support.softphones import Baresip, Login, Pjsua, SoftPhone

pytestmark = pytest.mark.outside

CHALLENGE = 'WWW-Authenticate: Digest realm="carrier.example",nonce="abc",qop="auth",algorithm='
CALLER_LADDER = """
    > INVITE sdp
    < 100?
    < 180
    < 200
    > ACK
    pause 100
    > BYE
    < 200
    """


def trunk(address: Address, password_file: Path, more: str = "") -> str:
    return (
        f'uri = "sip:{address};transport=udp"\nsources = ["{address.host}/32"]\n'
        f'auth = {{username = "4001", password_file = "{password_file}"}}\n{more}'
    )


def calls(folder: Path, relay: RelayProcess, callee: Sipp) -> tuple[Traffic, Traffic]:
    """The caller's traffic and the callee's."""
    caller = Sipp(folder, "caller", CALLER_LADDER, relay.setup.caller, calls_to=relay.setup.relay, numbers=[(A, X)])
    try:
        return caller.finish(), callee.finish()
    finally:
        caller.stop()
        callee.stop()


def challenging(algorithms: list[str]) -> str:
    """A trunk that wants INVITE and BYE proved, and checks the proof."""
    lines = "\n".join(f"        {CHALLENGE}{name}" for name in algorithms)
    return f"""
    < INVITE
    > 401
{lines}
    < ACK
    < INVITE fresh proves=4001:{PASSWORD}
    > 180
    > 200 sdp
    < ACK
    < BYE
    > 401
{lines}
    < BYE proves=4001:{PASSWORD}
    > 200
    """


@pytest.mark.parametrize("algorithms", [["MD5"], ["SHA-256"], ["MD5", "SHA-256"]], ids=str)
def test_a_trunk_that_challenges_each_request(
    start_relay: StartRelay, tmp_path: Path, password_file: Path, algorithms: list[str]
) -> None:
    address = free(CALLEE)
    relay = start_relay(Setup(trunk=trunk(address, password_file)))
    relay.bind()
    by_caller, by_callee = calls(tmp_path, relay, Sipp(tmp_path, "callee", challenging(algorithms), address))
    invite, ack = [message for message in by_callee.received if message["authorization"] and message.method != "BYE"]
    assert (invite.method, ack.method) == ("INVITE", "ACK")
    assert invite["authorization"] == ack["authorization"]
    assert f"algorithm={algorithms[-1]}" in invite["authorization"]
    assert not [message for message in by_caller.received if "uthenticate" in message.text or message.status == 401]
    assert [record["outcome"] for record in relay.calls()] == ["answered"]
    assert PASSWORD not in relay.log()


def test_a_password_that_has_changed_is_told_after_a_reload(
    start_relay: StartRelay, tmp_path: Path, password_file: Path
) -> None:
    password_file.write_text("the one before\n")
    address = free(CALLEE)
    relay = start_relay(Setup(trunk=trunk(address, password_file)))
    relay.bind()
    password_file.write_text(f"{PASSWORD}\n")
    assert relay.command("reload").returncode == 0
    calls(tmp_path, relay, Sipp(tmp_path, "callee", challenging(["SHA-256"]), address))
    assert [record["outcome"] for record in relay.calls()] == ["answered"]


def test_it_registers_refreshes_and_leaves(tmp_path: Path, password_file: Path) -> None:
    """Each REGISTER is challenged; the last one is the relay's farewell on SIGTERM."""
    proved = f"""
    < REGISTER
    > 401
        {CHALLENGE}SHA-256
    < REGISTER proves=4001:{PASSWORD}
    > 200
        Expires: """
    address = free(CALLEE)
    registrar = Sipp(tmp_path, "callee", f"{proved}2{proved}3600{proved}0", address)
    setup = Setup(trunk=trunk(address, password_file, "register = true\n"))
    try:
        with running_relay(tmp_path, setup) as relay:
            up = relay.wait_for_event("registration.up")
            assert (up["peer"], up["granted_s"]) == ("trunk", 2)
            (state,) = [peer for peer in peers(relay) if peer["peer"] == "trunk"]
            assert (state["registered"], state["target"]) == (True, f"udp:{address}")
            pause = threading.Event()
            while len(registrar.traffic().sent) < 4:  # it has refreshed
                assert not pause.wait(0.05)
        received = registrar.finish().received
    finally:
        registrar.stop()
    assert {message["contact"] for message in received} == {f"<sip:4001@{setup.relay}>"}
    assert [message["expires"] for message in received] == ["3600"] * 4 + ["0"] * 2
    assert PASSWORD not in relay.log()


def peers(relay: RelayProcess) -> list[dict[str, Any]]:
    done = relay.command("peers", "list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


AUTH = f"type = auth\nauth_type = userpass\npassword = {PASSWORD}\nusername = "
IDENTIFY = "[relay700]\ntype = identify"
TRUNK_OF_ASTERISK = {
    "aors = relay700\n": "aors = relay700,4001\nauth = relay\n",
    IDENTIFY: f"[relay]\n{AUTH}4001\n\n[4001]\ntype = aor\nmax_contacts = 1\n\n{IDENTIFY}",
}


async def test_asterisk_as_the_trunk(start_relay: StartRelay, tmp_path: Path, password_file: Path) -> None:
    """It challenges what the relay sends, and has it registered."""
    address = free(CALLEE)
    relay = start_relay(BetweenPbxs(callees=[address], trunk=trunk(address, password_file, "register = true\n")))
    relay.bind()
    async with pbxs(relay, tmp_path, [Robot(B, "wait")], callee_changes=TRUNK_OF_ASTERISK) as (a, b):
        assert await asyncio.to_thread(relay.stop) == 0  # it met nobody at first, and would try again in half a minute
        await asyncio.to_thread(relay.start)
        await asyncio.to_thread(relay.wait_for_event, "registration.up")
        assert f"sip:4001@{relay.setup.relay}" in await b.command("pjsip show aor 4001")
        await a.call(A, X, "wait")
        await b.expect("Seen")
        await hang_up_all(a, b)
        assert "401 Unauthorized" in b.everything()
    assert [record["outcome"] for record in relay.calls()] == ["answered"]


# -- peers without a fixed address


def phone_peer(password_file: Path, username: str = "1001") -> str:
    return f'login = {{username = "{username}", password_file = "{password_file}"}}\nnumbers = ["{B}"]\n'


def registered(relay: RelayProcess) -> dict[str, Any]:
    return relay.wait_for_event("login.registered")


def test_sipp_registers_is_called_and_calls(start_relay: StartRelay, tmp_path: Path, password_file: Path) -> None:
    """Its REGISTER is challenged, its INVITE from there is not; from elsewhere it is."""
    relay = start_relay(Setup(trunk=phone_peer(password_file)))
    relay.bind()
    address = free(CALLEE)
    credentials = f"[authentication username=1001 password={PASSWORD}]"
    register = f"""
    > REGISTER
        Contact: <sip:phone@[local_ip]:[local_port]>
        Expires: 60
    < 401 challenge
    > REGISTER fresh
        Contact: <sip:phone@[local_ip]:[local_port]>
        Expires: 60
        {credentials}
    < 200
    """
    plays(tmp_path, "registers", register, address, relay)
    assert relay.wait_for_event("login.registered")["source"] == CALLEE
    callee = Sipp(tmp_path, "callee", CALLEE_IS_HUNG_UP, address)
    _, by_callee = calls(tmp_path, relay, callee)
    assert by_callee.received[0].uri == f"sip:{B}@{address}"
    caller_side = Sipp(tmp_path, "callee", CALLEE_IS_HUNG_UP, relay.setup.caller)
    plays(tmp_path, "calls", CALLER_LADDER, address, relay)
    caller_side.finish()
    challenged = CALLER_LADDER.replace(
        "> INVITE sdp\n",
        f"> INVITE sdp\n    < 401 challenge\n    > ACK\n    > INVITE sdp fresh\n        {credentials}\n",
        1,
    )
    caller_side = Sipp(tmp_path, "callee", CALLEE_IS_HUNG_UP, relay.setup.caller)
    plays(tmp_path, "challenged", challenged, free(CALLEE), relay)
    caller_side.finish()
    assert [(record["outcome"], record["peer_in"]) for record in by_time(relay)] == [
        ("answered", "caller_side"),
        ("answered", "trunk"),
        ("answered", "trunk"),
    ]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("kind", [Pjsua, Baresip])
async def test_a_softphone_registers_is_called_and_calls(
    start_relay: StartRelay, tmp_path: Path, password_file: Path, kind: type[SoftPhone], transport: str
) -> None:
    # baresip 1.1 takes an offer of SHA-256 for a fault.
    setup = Setup(trunk=phone_peer(password_file), sip={"login_algorithms": ["MD5"]} if kind is Baresip else {})
    relay = start_relay(setup)
    relay.bind()
    login = Login(setup.relay, "1001", PASSWORD)
    async with (
        Pjsua(tmp_path, setup.caller, A) as a,
        kind(tmp_path, free(CALLEE), B, transport, login=login) as b,
    ):
        await asyncio.to_thread(registered, relay)
        await talk(relay, a, b, FORTH)
        await talk(relay, b, a, BACK)
        assert_each_knows_only_itself(a, b)
    assert [(record["outcome"], record["peer_in"]) for record in by_time(relay)] == [
        ("answered", "caller_side"),
        ("answered", "trunk"),
    ]


REGISTRATION = """
[relay]
type = registration
transport = udp
outbound_auth = we
server_uri = sip:{relay}
client_uri = sip:1001@{relay}
contact_user = 1001
expiration = 60
"""


async def test_asterisk_without_a_fixed_address(start_relay: StartRelay, tmp_path: Path, password_file: Path) -> None:
    relay = start_relay(BetweenPbxs(trunk=phone_peer(password_file) + 'identity = "pai"\nsend_pai = true\n'))
    relay.bind()
    registration = REGISTRATION.format(relay=relay.setup.relay)
    changes = {
        "aors = relay700\n": "aors = relay700\noutbound_auth = we\n",
        IDENTIFY: f"[we]\n{AUTH}1001\n{registration}\n{IDENTIFY}",
    }
    async with pbxs(relay, tmp_path, [Robot(B, "wait")], callee_changes=changes) as (a, b):
        await asyncio.to_thread(registered, relay)
        await a.call(A, X, "wait")
        await b.expect("Seen")
        await hang_up_all(a, b)
        await b.call(B, X, "wait")
        await asyncio.to_thread(relay.wait_for_event, "call.ended", matching=lambda event: event["peer_in"] == "trunk")
    assert [record["peer_in"] for record in by_time(relay)] == ["caller_side", "trunk"]


def plays(folder: Path, name: str, ladder: str, local: Address, relay: RelayProcess) -> Traffic:
    """A SIPp that is b's phone."""
    there = relay.setup.relay
    uri = ["-auth_uri", f"{X}@{there}"]
    phone = Sipp(folder, name, ladder, local, calls_to=there, numbers=[(B, X)], options=uri)
    return phone.finish()
