"""The units of config/systemd under a real systemd, as installed by `scripts/service`, which starts this."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from machine import UNITS, Machine, NotUp, Unit, until

from tests.support.addresses import Address
from tests.support.phone import SDP, Leg, Phone, connected

CANNOT_RUN = 77
MOST_EXPOSURE = 15  # of `systemd-analyze security`, in tenths; 100 is no protection at all
PACKAGE = "/root/relay700.deb"  # as `scripts/service FILE.deb` puts it
DEFAULT_BURST = 5  # starts after which systemd gives up, unless the unit says otherwise
RELAY, PBX, CARRIER = (Address(host, 5060) for host in ("127.0.0.1", "127.0.0.3", "127.0.0.2"))  # of relay.toml
LATE = "192.0.2.1"
NODES, EDGE = {"a": "192.0.2.11", "b": "192.0.2.12"}, "192.0.2.30"  # of the manual
MANUAL = (Path(__file__).parents[2] / "docs" / "NODES.md").read_text()
KILLED_FOR_WHAT_IS_DENIED = "SystemCallErrorNumber=kill"  # the unit answers such a system call with EPERM
DENIED = (
    "Operation not permitted",
    "Permission denied",
    "status=31/SYS",
    "backend.ended",
    "notify.failed",
    "Traceback",
)

pytestmark = pytest.mark.timeout(500)
_serial = itertools.count(1)


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    made = Machine(Path(os.environ["RELAY700_ROOT"]))
    try:
        made.boot()
    except NotUp as error:
        pytest.exit(f"not run: this machine cannot boot systemd in a container:\n{error}", CANNOT_RUN)
    yield made
    made.power_off()


@pytest.fixture
def unit(machine: Machine) -> Iterator[Unit]:
    """As installed, and started."""
    made = Unit(machine, "relay700", "/etc/relay700/relay.toml", "/var/lib/relay700")
    as_installed = made.config.read_text()
    made.systemctl("start")
    yield made
    made.config.write_text(as_installed)
    made.systemctl("stop")
    machine.try_("systemctl", "reset-failed", made.name)


class Call:
    """A call that is up. Each is of another binding, as a caller may call only so often."""

    def __init__(self, unit: Unit, relay: Address, caller: Phone, callee: Phone) -> None:
        self._unit, self._relay = unit, relay
        self.caller, self.callee = caller, callee
        serial = next(_serial)
        self.a, self.b, self.x = f"138{serial:08}", f"139{serial:08}", f"70010000001{serial:04}"

    async def answer(self) -> None:
        self._unit.command("bind", "AXB", "--a", self.a, "--b", self.b, "--x", self.x, "--expires-in", "2h")
        self.leg, self.called = await connected(self._relay, self.caller, self.callee, (self.a, self.x))

    async def hang_up(self) -> None:
        await self.leg.request("BYE")
        await self.called.answer(await self.callee.expect("BYE"), 200)
        await self.caller.expect(200, "BYE")

    async def another_is_refused(self) -> None:
        """As while draining."""
        leg = Leg.calling(self.caller, self._relay, self.a, self.x)
        branch = await leg.request("INVITE", body=SDP)
        leg.learn(await self.caller.expect(503, "INVITE"))
        await leg.request("ACK", cseq=leg.cseq, branch=branch)

    async def is_hung_up_by_the_relay(self) -> None:
        await self.leg.answer(await self.caller.expect("BYE"), 200)
        await self.called.answer(await self.callee.expect("BYE"), 200)

    def disturbances(self) -> list[str]:
        """All that came but the question after a restart whether it is still there."""
        arrived = [message.first_line for phone in (self.caller, self.callee) for message in phone.take_arrived()]
        return [line for line in arrived if not line.startswith("OPTIONS")]


@asynccontextmanager
async def call(
    unit: Unit, relay: Address = RELAY, caller: Address = PBX, callee: Address = CARRIER
) -> AsyncIterator[Call]:
    async with Phone(caller) as first, Phone(callee) as second:
        made = Call(unit, relay, first, second)
        await made.answer()
        yield made
    await asyncio.sleep(0)  # asyncio closes their sockets in its next turn


async def until_it_drains(unit: Unit, made: Call) -> None:
    await unit.until_shown("ActiveState", lambda state: state == "deactivating")
    await made.another_is_refused()


def status_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return int(answer.status)


def add_address(host: str) -> None:
    subprocess.run(["ip", "address", "add", f"{host}/32", "dev", "lo"], check=True)


@contextmanager
def changed(machine: Machine, name: str, line: str) -> Iterator[None]:
    """A unit with another setting of its service."""
    folder = machine.root / UNITS.lstrip("/") / f"{name}.service.d"
    folder.mkdir()
    (folder / "changed.conf").write_text(f"[Service]\n{line}\n")
    machine.run("systemctl", "daemon-reload")
    yield
    (folder / "changed.conf").unlink()
    folder.rmdir()
    machine.run("systemctl", "daemon-reload")


# --- one relay


def test_it_starts_with_the_machine_and_counts_as_started_when_it_is_ready(machine: Machine) -> None:
    unit = Unit(machine, "relay700", "/etc/relay700/relay.toml", "/var/lib/relay700")
    assert [unit.show(name) for name in ("Type", "ActiveState", "NRestarts")] == ["notify", "active", "0"]
    journal = unit.journal()
    (ready,) = [n for n, line in enumerate(journal) if '"relay.ready"' in line]
    (started,) = [n for n, line in enumerate(journal) if line.startswith("Started relay700")]
    assert ready < started


async def test_a_call_passes_and_the_backend_answers(unit: Unit) -> None:
    async with call(unit) as made:
        await made.hang_up()
    await unit.until_logged("api.listening")
    assert await asyncio.to_thread(status_of, "http://127.0.0.1:8700/readyz") == 200
    assert made.x in unit.command("calls", "list")


async def test_a_hung_loop_is_restarted_by_the_watchdog_and_its_call_goes_on(unit: Unit) -> None:
    mark = len(unit.journal())
    async with call(unit) as made:
        pid = unit.show("MainPID")
        unit.kill("STOP")
        await unit.until_another_serves(pid)
        await made.hang_up()
    assert any("Watchdog timeout" in line for line in unit.journal()[mark:])
    assert unit.show("NRestarts") == "1"


async def test_a_call_goes_on_after_kill_9(unit: Unit) -> None:
    mark = len(unit.journal())
    async with call(unit) as made:
        pid = unit.show("MainPID")
        unit.kill("KILL")
        await unit.until_another_serves(pid)
        assert [event["calls_restored"] for event in unit.events("relay.ready", mark)] == [1]
        await made.hang_up()
        another = Call(unit, RELAY, made.caller, made.callee)
        await another.answer()
        await another.hang_up()


async def test_reload_applies_a_good_configuration(unit: Unit) -> None:
    pid, mark = unit.show("MainPID"), len(unit.journal())
    unit.change('name = "pbx"', 'name = "renamed"')
    unit.change('peers = ["pbx"]', 'peers = ["renamed"]')
    async with call(unit) as made:
        unit.systemctl("reload")
        assert (await unit.until_logged("relay.reloaded", mark))["peers"] == ["carrier", "renamed"]
        await made.hang_up()
    assert unit.show("MainPID") == pid


@pytest.mark.parametrize(
    ("there", "here", "why"),
    [
        ("t1_ms = 500", "t1_ms = -1", "t1_ms"),
        ("t1_ms = 500", "t1_mss = 500", "t1_mss"),
        ('listen = ["udp:127.0.0.1:5060"', 'listen = ["udp:127.0.0.1:5070"', "restart"),
    ],
    ids=["bad", "unknown", "needs restart"],
)
async def test_reload_refuses_what_it_cannot_apply(unit: Unit, there: str, here: str, why: str) -> None:
    pid, mark = unit.show("MainPID"), len(unit.journal())
    unit.change(there, here)
    status, _ = unit.machine.try_("systemctl", "reload", unit.name)
    assert status != 0
    await until(lambda: any(why in line for line in unit.journal()[mark:]))
    unit.change(here, there)  # commands read it, too
    async with call(unit) as made:
        await made.hang_up()
    assert (unit.show("MainPID"), unit.show("ActiveState")) == (pid, "active")


async def test_stop_waits_for_the_calls(unit: Unit) -> None:
    async with call(unit) as made:
        stopping = unit.machine.begin("systemctl", "stop", unit.name)
        await until_it_drains(unit, made)
        await made.hang_up()
        await until(lambda: stopping.poll() is not None)
    assert [unit.show(name) for name in ("ActiveState", "Result")] == ["inactive", "success"]


async def test_stop_hangs_up_calls_after_drain_s(unit: Unit) -> None:
    unit.change("drain_s = 30", "drain_s = 1")
    await check_that_stop_hangs_up(unit)


async def test_systemd_waits_for_drain_s_when_its_own_timeout_is_shorter(unit: Unit) -> None:
    unit.change("drain_s = 30", "drain_s = 9")
    with changed(unit.machine, unit.name, "TimeoutStopSec=5"):
        await check_that_stop_hangs_up(unit)


async def check_that_stop_hangs_up(unit: Unit) -> None:
    unit.systemctl("restart")
    async with call(unit) as made:
        stopping = unit.machine.begin("systemctl", "stop", unit.name)
        await made.is_hung_up_by_the_relay()
        await until(lambda: stopping.poll() is not None)
    assert [unit.show(name) for name in ("ActiveState", "Result")] == ["inactive", "success"]


async def test_a_second_sigterm_leaves_calls_to_the_next_start(unit: Unit) -> None:
    async with call(unit) as made:
        stopping = unit.machine.begin("systemctl", "stop", unit.name)
        await until_it_drains(unit, made)
        unit.kill("TERM")
        await until(lambda: stopping.poll() is not None)
        assert [unit.show(name) for name in ("ActiveState", "ExecMainStatus")] == ["failed", "1"]
        mark = len(unit.journal())
        unit.systemctl("start")
        assert [event["calls_restored"] for event in unit.events("relay.ready", mark)] == [1]
        assert made.disturbances() == []
        await made.hang_up()


async def test_a_second_sigterm_outside_a_stop_is_a_restart(unit: Unit) -> None:
    async with call(unit) as made:
        pid = unit.show("MainPID")
        unit.kill("TERM")
        await until_it_drains(unit, made)
        unit.kill("TERM")
        await unit.until_another_serves(pid)
        assert made.disturbances() == []
        await made.hang_up()


async def test_an_upgrade_of_the_package_waits_for_the_calls_and_keeps_all(unit: Unit) -> None:
    """With the same package: dpkg runs its scripts as for a later one."""
    if not (unit.machine.root / PACKAGE.lstrip("/")).exists():
        pytest.skip("installed from the tree")
    unit.change("drain_s = 30", "drain_s = 60")
    configuration, pid = unit.config.read_text(), unit.show("MainPID")
    async with call(unit) as made:
        upgrading = unit.machine.begin("dpkg", "--install", PACKAGE)
        await until_it_drains(unit, made)
        await made.hang_up()
        await until(lambda: upgrading.poll() is not None)
        assert upgrading.returncode == 0
        await unit.until_another_serves(pid)
        another = Call(unit, RELAY, made.caller, made.callee)
        await another.answer()
        await another.hang_up()
    assert unit.config.read_text() == configuration
    assert made.x in unit.command("calls", "list")
    assert unit.systemctl("is-enabled").strip() == "enabled"


async def test_an_address_may_come_late(unit: Unit) -> None:
    unit.systemctl("stop")
    unit.change('"udp:127.0.0.1:5060"', f'"udp:{LATE}:5060"')
    unit.systemctl("start", "--no-block")
    await unit.until_shown("NRestarts", lambda times: int(times) > DEFAULT_BURST)
    add_address(LATE)
    await unit.until_shown("ActiveState", lambda state: state == "active")


# --- its sandbox


def test_exposure_is_below_its_bound(machine: Machine) -> None:
    for name in ("relay700", "relay700@a"):
        machine.run("systemd-analyze", "security", "--no-pager", f"--threshold={MOST_EXPOSURE}", name)


async def test_it_makes_no_system_call_that_is_denied(unit: Unit) -> None:
    with changed(unit.machine, unit.name, KILLED_FOR_WHAT_IS_DENIED):
        mark = len(unit.journal())
        unit.systemctl("restart")
        async with call(unit) as made:
            await unit.until_logged("api.listening", mark)
            unit.systemctl("reload")
            await made.hang_up()
        unit.systemctl("stop")
        assert [unit.show(name) for name in ("Result", "NRestarts")] == ["success", "0"]


# --- the template


@pytest.fixture
def nodes(machine: Machine) -> Iterator[list[Unit]]:
    """The manual's two nodes, in one PostgreSQL that is down."""
    ((section),) = re.findall(r"^## Several nodes on one host\n(.*)\Z", MANUAL, re.MULTILINE | re.DOTALL)
    (example,) = re.findall(r"^```toml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    for statement in ("createuser relay700", "createdb --owner relay700 relay700"):
        assert f"`{statement}`" in section
        machine.run("runuser", "-u", "postgres", "--", *statement.split())
    machine.run("systemctl", "stop", "postgresql")
    made = []
    for name, host in NODES.items():
        add_address(host)
        config = f"/etc/relay700/{name}.toml"
        text = example.replace(NODES["a"], host).replace('node = "a"', f'node = "{name}"')
        (machine.root / config.lstrip("/")).write_text(text)
        made.append(Unit(machine, f"relay700@{name}", config, f"/var/lib/relay700/{name}"))
    add_address(EDGE)
    with changed(machine, "relay700@", KILLED_FOR_WHAT_IS_DENIED):
        yield made
        for unit in made:
            unit.systemctl("stop")


async def test_two_nodes_of_the_manual_start_when_postgresql_is_there_and_each_takes_calls(
    machine: Machine, nodes: list[Unit]
) -> None:
    (commands,) = re.findall(r"^```\n(systemctl enable --now relay700@a\n.*?)^```$", MANUAL, re.MULTILINE | re.DOTALL)
    nodes[0].systemctl("start", "--no-block")
    await nodes[0].until_shown("NRestarts", lambda times: int(times) > DEFAULT_BURST)
    machine.run("systemctl", "start", "postgresql")
    await nodes[0].until_shown("ActiveState", lambda state: state == "active")
    machine.run("sh", "-euc", commands)
    for unit, host in zip(nodes, NODES.values(), strict=True):
        async with call(unit, Address(host, 5060), Address(EDGE, 5070), Address(EDGE, 5060)) as made:
            await made.hang_up()
    assert nodes[0].command("calls", "list") == nodes[1].command("calls", "list")


# --- all of the above


def test_nothing_was_denied_and_no_number_is_in_the_journal(machine: Machine) -> None:
    journal = machine.run("journalctl", "--no-pager", "--unit=relay700*")
    assert "relay.ready" in journal
    assert [line for line in journal.splitlines() if any(words in line for words in DENIED)] == []
    assert re.findall(r"13[89]0000\d{4}", journal) == []
