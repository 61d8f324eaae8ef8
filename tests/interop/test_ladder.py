"""The ladder of real calls: what it says went out is byte for byte what SIPp and other peers received."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.interop.conftest import running_relay
from tests.interop.ladders import SETUP_FLOWS
from tests.interop.test_capture import capturing, refused
from tests.support.live_call import Call
from tests.support.phone import Leg, Phone
from tests.support.relay_process import A, B, RelayProcess, X
from tests.support.sipp_calls import run_flow
from tests.trace.test_pcap import dissect

pytestmark = pytest.mark.outside
SMS = "\n[sms]\nenabled = true\n"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """One relay that captures all calls."""
    setup = capturing("all")
    setup.more += SMS
    with running_relay(tmp_path_factory.mktemp("ladder"), setup) as relay:
        relay.bind()
        relay.wait_for_event("backend.ready")
        yield relay


async def ladder_of(relay: RelayProcess, call_id: str) -> dict[str, Any]:
    """In clear. It is kept a second or more after the call."""
    for _ in range(40):
        done = await asyncio.to_thread(relay.command, "calls", "ladder", call_id, "--json")
        if done.returncode == 0:
            ladder: dict[str, Any] = json.loads(done.stdout)
            return ladder
        await asyncio.sleep(0.5)
    raise AssertionError(done.stderr)


def sent(ladder: dict[str, Any], *lanes: int) -> list[str]:
    """The texts of the messages to these lanes, retransmissions included, in order of time."""
    messages = [each for each in ladder["messages"] if each["sent"] and each["lane"] in lanes]
    times = [(at, each["text"]) for each in messages for at in (each["after_ms"], *each["again_after_ms"])]
    return [text for _, text in sorted(times, key=lambda time: time[0])]


async def test_sipp_received_what_the_ladder_shows(relay: RelayProcess, tmp_path: Path) -> None:
    caller, callee = await asyncio.to_thread(run_flow, relay, tmp_path, SETUP_FLOWS["caller_hangs_up"])
    ladder = await ladder_of(relay, relay.calls()[-1]["call_id"])
    for lane, traffic in ((0, caller), (1, callee)):
        rest = traffic.raw_received
        for text in sent(ladder, lane):
            before, found, rest = rest.partition(text.encode())
            assert found
            assert not before.strip()
        assert not rest.split(b"--------", 1)[0].strip()
    invite = next(each for each in ladder["messages"] if each["sent"] and each["what"] == "INVITE")
    assert ladder["messages"][invite["made_from"]]["lane"] == 0


async def test_failover_is_shown_target_by_target(relay: RelayProcess, tmp_path: Path) -> None:
    async with (
        Phone(relay.setup.caller) as caller,
        Phone(relay.setup.callees[0]) as first,
        Phone(relay.setup.callees[1]) as second,
    ):
        await refused(relay, caller, [first, second], [503, 486])
        call_id = relay.calls()[-1]["call_id"]
        ladder = await ladder_of(relay, call_id)
        for lane, phone in enumerate((caller, first, second)):
            assert "".join(sent(ladder, lane)).encode() == bytes(phone.raw_received)
    assert [lane["peer"] for lane in ladder["lanes"]] == ["caller_side", "callee_side_1", "callee_side_2"]
    assert [each["lane"] for each in ladder["messages"] if each["what"] == "INVITE"] == [0, 1, 2]
    file = tmp_path / "call.html"
    assert relay.command("calls", "ladder", call_id, "--html", str(file)).returncode == 0
    assert not [word for word in (A, B, relay.setup.caller.host) if word in file.read_text()]


async def test_message_is_shown_on_both_sides_and_tshark_opens_the_file(relay: RelayProcess, tmp_path: Path) -> None:
    """But for its text, which is not kept."""
    text = b"at the gate"
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        leg = Leg.calling(caller, relay.setup.relay, A, X)
        await leg.request("MESSAGE", ["Content-Type: text/plain", "Subject: hidden"], text)
        message = await callee.expect("MESSAGE")
        await Leg.called(callee, relay.setup.relay, message).answer(message, 200)
        await caller.expect(200, "MESSAGE")
        call_id = relay.calls()[-1]["call_id"]
        ladder = await ladder_of(relay, call_id)
        for lane, phone in enumerate((caller, callee)):
            received = bytes(phone.raw_received).replace(text, b"*" * len(text))
            assert "".join(sent(ladder, lane)).encode() == received
    made = next(each for each in ladder["messages"] if each["made_from"] == 0)
    verdicts = {each["name"]: each["verdict"] for each in made["crossings"]}
    assert (verdicts["Subject"], verdicts["text/plain"]) == ("withheld", "crossed")
    for name, options in (("masked", []), ("clear", ["--reveal", "--reason", "case 7"])):
        file = tmp_path / f"{name}.pcap"
        assert relay.command("calls", "ladder", call_id, "--pcap", str(file), *options).returncode == 0
        packets = dissect(file.read_bytes(), tmp_path)
        assert [packet.get("sip.Method") or packet["sip.Status-Code"] for packet in packets] == [
            *("MESSAGE", "MESSAGE", "200", "200")
        ]
        assert not [packet for packet in packets if "_ws.malformed" in packet]
        assert (A.encode() in file.read_bytes()) == (name == "clear")
        assert text not in file.read_bytes()


async def test_a_call_that_is_up_has_a_ladder_over_the_api(relay: RelayProcess) -> None:
    scopes = ("--scope", "calls:read", "--scope", "parties:read")
    key = relay.answer("keys", "make", "--operator", *scopes, "--json")["secret"]
    headers = {"authorization": f"Bearer {key}"}
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        up = Call(relay, caller, callee)
        await up.answer()
        call_id = relay.calls("--live")[-1]["call_id"]
        url = f"http://{relay.setup.api}/v1/calls/{call_id}/ladder"
        async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
            while (answer := await client.get(url)).status_code == 404:  # until the backend has read the messages
                assert "the call is not over" in answer.text
            assert answer.status_code == 200, answer.text
            assert "200 OK" in [each["what"] for each in answer.json()["messages"]]
            assert A not in answer.text
            clear = (await client.get(f"{url}?reveal=true&reason=case")).json()
            assert "".join(sent(clear, 1)).encode() == bytes(callee.raw_received)
        done = relay.command("calls", "ladder", call_id)
        assert "the call is not over" in done.stderr
        await up.hang_up()
        await ladder_of(relay, call_id)
