"""`relay700 probe`, and the probe of the backend, on a running relay: straight back, and through a peer that leaks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.interop.conftest import running_relay
from tests.support.addresses import RELAY, Address, free
from tests.support.middle_peer import MiddlePeer, serving
from tests.support.relay_process import RelayProcess, Setup
from tests.support.waiting import until_seen

pytestmark = pytest.mark.outside

CALLER, DIRECT, BEHIND = "13800000071", "13900000072", "13900000073"


def table(callees: dict[str, str], caller_at: Address, callee_at: Address) -> str:
    named = ", ".join(f'{peer} = "{number}"' for peer, number in callees.items())
    ends = f'caller_at = "{caller_at}"\ncallee_at = "{callee_at}"\n'
    return f'\n[probe]\nevery = "30m"\ncaller = "{CALLER}"\ncallees = {{{named}}}\n{ends}'


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    """With caps and hours that forbid a second call."""
    more = table({"probe": DIRECT}, free("127.0.0.71"), free("127.0.0.72"))
    policy = {"caller_caps": ["1/5m"], "number_caps": ["1/24h"], "hours": "00:00-00:01"}
    setup = Setup(api=free(RELAY), policy=policy, more=more)
    with running_relay(tmp_path, setup, (CALLER, DIRECT)) as relay:
        yield relay


def metrics(relay: RelayProcess) -> dict[str, float]:
    text = httpx.get(f"http://{relay.setup.api}/metrics", trust_env=False).text
    return {name: float(value) for name, value in re.findall(r"^(relay700_[^ ]+) ([^ ]+)$", text, re.MULTILINE)}


async def test_the_probe_proves_and_touches_no_other_s_figures(relay: RelayProcess) -> None:
    relay.wait_for_event("probe.proven")
    done = relay.command("probe")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("through probe: proven: nothing of one side reached the other\n  compared with ")
    assert "\n    the callee got INVITE, " in done.stdout
    told = json.loads(relay.command("probe", "--json").stdout)
    assert (told["peer"], told["outcome"], told["leaks"]) == ("probe", "proven", [])

    found = metrics(relay)
    assert found['relay700_probes_total{peer="probe",result="proven"}'] == 1
    assert found['relay700_probes_total{peer="probe",result="leak"}'] == 0
    assert found['relay700_privacy_last_proven_seconds{peer="probe"}'] > 1e9
    calls_of = re.compile(r"relay700_calls_\w+_total")
    counted = [name for name, value in found.items() if calls_of.match(name) and value]
    assert counted == ['relay700_calls_ended_total{outcome="answered"}']  # the records read
    calls = relay.calls()
    assert [(call["outcome"], call["business"], call["order_id"]) for call in calls] == [
        ("answered", "relay700-probe", "probe")
    ] * 3
    assert relay.command("report", "daily", "today", "--json").stdout == ""
    logged = [json.loads(line) for line in relay.command("audit", "list", "--json").stdout.splitlines()]
    ours = [entry for entry in logged if entry["action"].startswith("probe")]
    noted = [(entry["action"], entry["actor"].partition(":")[0]) for entry in ours]
    assert noted == [("probe.proven", "cli")] * 2 + [("probe.proven", "relay")]


def leak(data: bytes) -> bytes:
    """The callee's private address as its address of media."""
    inner = re.search(rb"a=X-nat:1 ([0-9.]+)", data)
    if inner is None:
        return data
    head, _, body = data.partition(b"\r\n\r\n")
    body = re.sub(rb"c=IN IP4 [0-9.]+", b"c=IN IP4 " + inner[1], body)
    return re.sub(rb"Content-Length: [0-9]+", b"Content-Length: %d" % len(body), head) + b"\r\n\r\n" + body


async def test_a_leak_ends_with_1_and_raises_the_alarm(tmp_path: Path) -> None:
    callee_at = free("127.0.0.72")
    more = table({"callee_side_1": BEHIND}, free("127.0.0.71"), callee_at)
    setup = Setup(api=free(RELAY), more=more)
    relay = RelayProcess(tmp_path, setup, (CALLER, BEHIND))

    async with serving(MiddlePeer(setup.callee, callee_at, to_caller=leak)):
        relay.start()
        try:
            await until_seen(lambda: '"probe.leak"' in relay.log())
            found = metrics(relay)
            assert found['relay700_probes_total{peer="callee_side_1",result="leak"}'] == 1
            assert found['relay700_privacy_last_proven_seconds{peer="callee_side_1"}'] == 0
            relay.assert_nothing_in_clear()
        finally:
            relay.stop()


def test_without_the_table_the_command_says_so(tmp_path: Path) -> None:
    relay = RelayProcess(tmp_path, Setup())
    assert relay.command("bind", "AXB", "--a", CALLER, "--b", DIRECT).returncode == 0
    done = relay.command("probe")
    assert done.returncode == 1
    assert "probe: missing; write [probe] with caller and callees" in done.stderr
