"""`relay700 serve` as a process: start, signals, drain, restart."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.store.configurations import find_configuration
from relay.store.database import connect_reader
from relay.store.sealing.sealer import load_key
from relay.store.writer import now_ms
from tests.support.addresses import RELAY, free
from tests.support.huge_pages import huge_kib, needs_huge_pages
from tests.support.limits import soft_limit
from tests.support.live_call import Call, call
from tests.support.product import RELAY700
from tests.support.relay_process import RelayProcess, Setup, X

pytestmark = pytest.mark.outside


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    process = RelayProcess(tmp_path, Setup(sip={"drain_s": 60}))
    process.start()
    process.bind()
    yield process
    process.stop()


def event_names(relay: RelayProcess) -> list[str]:
    return [event["event"] for event in relay.events()]


def test_the_first_start_creates_the_store_and_its_key(relay: RelayProcess) -> None:
    assert (relay.folder / "relay.db").exists()
    assert (relay.folder / "relay.key").stat().st_mode & 0o777 == 0o600


def test_the_descriptor_limit_is_raised_and_core_dumps_are_disabled(tmp_path: Path) -> None:
    """The shell sets the soft limit."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    relay = RelayProcess(tmp_path, Setup(more=f"\n[streams]\nmax_connections = {most}\n"))
    with soft_limit(resource.RLIMIT_NOFILE, 300), soft_limit(resource.RLIMIT_CORE, None):
        relay.start()
    assert resource.prlimit(relay.pid, resource.RLIMIT_NOFILE) == (most, most)
    assert resource.prlimit(relay.pid, resource.RLIMIT_CORE)[0] == 1  # 0 would not prevent pipes to a crash handler
    assert relay.wait_for_event("relay.few_descriptors")["limit"] == most
    relay.stop()


def test_the_relay_process_uses_huge_pages(relay: RelayProcess) -> None:
    needs_huge_pages()
    assert huge_kib(relay.pid) > 0


def test_the_ready_event_lists_listeners_peers_and_pid(relay: RelayProcess) -> None:
    ready = relay.wait_for_event("relay.ready")
    assert ready["listen"] == [f"udp:{relay.setup.relay}", f"tcp:{relay.setup.relay}"]
    assert ready["peers"] == ["caller_side", "callee_side_1"]
    assert ready["pid"] == relay.pid


def test_each_configuration_in_force_is_kept_once(relay: RelayProcess) -> None:
    assert relay.stop() == 0
    relay.start()
    file = relay.folder / "relay.toml"
    file.write_text(file.read_text().replace("drain_s = 60", "drain_s = 61"))
    assert relay.command("reload").returncode == 0
    place, sealer = relay.folder / "relay.db", load_key(relay.folder / "relay.key")
    with closing(connect_reader(place)) as reader:
        assert reader.execute("SELECT count(*) FROM configuration").fetchone() == (2,)
        kept = find_configuration(reader, sealer, "", now_ms())
    assert kept is not None and kept.text == file.read_text()


def test_an_idle_relay_stops_at_once_with_status_0(relay: RelayProcess) -> None:
    os.kill(relay.pid, signal.SIGTERM)
    assert relay.ended() == 0
    assert relay.wait_for_event("relay.stopped")["clean"] is True


def test_a_clean_stop_leaves_the_store_in_one_file(tmp_path: Path) -> None:
    """A backup put in its place must not meet a write-ahead log of the other."""
    relay = RelayProcess(tmp_path, Setup(api=free(RELAY)))
    relay.start()
    relay.wait_for_event("api.listening")
    relay.bind()
    assert relay.stop() == 0
    left = [name for name in ("relay.db-wal", "relay.db-shm") if (relay.folder / name).exists()]
    assert left == []


def test_an_address_in_use_is_reported_with_its_setting(relay: RelayProcess, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    second = RelayProcess(folder, Setup(relay=relay.setup.relay))
    done = second.command("serve")
    assert done.returncode == 1
    first_line, second_line = done.stderr.splitlines()
    place = relay.setup.relay
    assert first_line == f"sip.listen[0]: udp:{place} is in use: stop the other program, or choose another port"
    assert second_line == f"sip.listen[1]: tcp:{place} is in use: stop the other program, or choose another port"
    assert "Traceback" not in done.stdout + done.stderr


def test_a_second_relay_on_one_store_is_refused(relay: RelayProcess) -> None:
    done = relay.command("serve")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "another relay700 serves" in line


def test_the_console_log_shows_the_first_steps(tmp_path: Path) -> None:
    config = RelayProcess(tmp_path, Setup()).config
    config.write_text(config.read_text().replace('format = "json"', 'format = "console"'))
    command = [*RELAY700, "serve", "-c", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(6)]
        process.terminate()
        process.communicate()
    assert process.returncode == 0
    assert "relay.ready" in lines[0]
    assert any(f"bind -c {config} AXB --a 13800000001 --b 13900000002" in line for line in lines)


def test_sigusr1_logs_the_statistics(relay: RelayProcess) -> None:
    statistics = relay.statistics()
    assert {"calls_up", "transactions", "timers", "streams", "journal_backlog", "bugs"} <= set(statistics)
    assert statistics["rss_bytes"] > 1_000_000


async def test_an_ended_call_is_one_log_line(relay: RelayProcess) -> None:
    async with call(relay) as up:
        await up.hang_up()
        event = relay.wait_for_event("call.ended")
    assert (event["outcome"], event["ended_by"], event["sip_status"]) == ("answered", "caller", 200)
    assert (event["caller"], event["callee"], event["number_dialled"]) == ("138****0001", "139****0002", X)
    names = [name for name in event_names(relay) if name != "relay.statistics"]
    assert names == ["relay.ready", "call.ended"]


async def test_a_draining_relay_refuses_new_calls_and_waits_for_live_ones(relay: RelayProcess) -> None:
    async with call(relay) as up:
        os.kill(relay.pid, signal.SIGTERM)
        relay.wait_for_event("relay.draining")
        assert (await up.refused())["retry-after"]
        await up.hang_up()
        assert relay.ended() == 0
    assert relay.verify()
    assert [record["outcome"] for record in relay.calls()].count("answered") == 1


async def test_calls_that_outlast_the_drain_limit_are_hung_up(tmp_path: Path) -> None:
    process = RelayProcess(tmp_path, Setup(sip={"drain_s": 0}))
    process.start()
    process.bind()
    async with call(process) as up:
        os.kill(process.pid, signal.SIGTERM)
        await up.called.answer(await up.callee.expect("BYE"), 200)
        await up.leg.answer(await up.caller.expect("BYE"), 200)
        assert process.ended() == 0
    (record,) = process.calls()
    assert (record["outcome"], record["ended_by"]) == ("answered", "relay")


async def test_a_bye_lost_at_the_end_of_the_drain_is_retransmitted(tmp_path: Path) -> None:
    process = RelayProcess(tmp_path, Setup(sip={"drain_s": 0, "t1_ms": 100}))
    process.start()
    process.bind()
    async with call(process) as up:
        os.kill(process.pid, signal.SIGTERM)
        await up.leg.answer(await up.caller.expect("BYE"), 200)
        bye = await up.callee.expect("BYE")
        before = up.callee.raw_received.count(b"BYE sip:")
        async with asyncio.timeout(10):
            while up.callee.raw_received.count(b"BYE sip:") == before:  # noqa: ASYNC110 (no event to wait for)
                await asyncio.sleep(0.01)
        await up.called.answer(bye, 200)
        assert process.ended() == 0


async def test_a_second_signal_stops_at_once_and_the_restart_resumes_live_calls(relay: RelayProcess) -> None:
    async with call(relay) as up:
        os.kill(relay.pid, signal.SIGTERM)
        relay.wait_for_event("relay.draining")
        os.kill(relay.pid, signal.SIGTERM)
        assert relay.ended() == 1
        assert [record["ended_at"] for record in relay.calls()] == [None]
        mark = len(relay._lines)
        relay.start()
        assert relay.wait_for_event("relay.ready", after=mark)["calls_restored"] == 1
        await up.hang_up()
    (record,) = relay.calls()
    assert (record["outcome"], record["ended_by"]) == ("answered", "caller")


async def test_sigint_drains(relay: RelayProcess) -> None:
    os.kill(relay.pid, signal.SIGINT)
    assert relay.ended() == 0
    assert "relay.draining" in event_names(relay)


async def test_a_relay_without_peers_logs_a_warning(tmp_path: Path) -> None:
    process = RelayProcess(tmp_path, Setup())
    text = process.config.read_text()
    process.config.write_text(text[: text.index("\n[[peer]]")])
    process.start()
    assert process.wait_for_event("config.warning")
    assert process.stop() == 0


@pytest.mark.parametrize("managed", [False, True])
def test_first_steps_are_printed_unless_a_service_manager_started_the_relay(tmp_path: Path, managed: bool) -> None:
    (tmp_path / "relay.toml").write_text(
        f'[sip]\nlisten = ["udp:{free(RELAY)}"]\n[api]\nenabled = false\n[log]\nformat = "console"\n'
    )
    environment = {**os.environ, **({"NOTIFY_SOCKET": str(tmp_path / "notify")} if managed else {})}
    command = [*RELAY700, "serve", "-c", "relay.toml"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path, env=environment, text=True) as relay:
        assert relay.stdout is not None
        said = ""
        for line in relay.stdout:
            said += line
            if "config.warning" in line:  # the last log line before it serves
                relay.send_signal(signal.SIGTERM)
    assert ("bind -c relay.toml AXB" in said) is not managed


async def test_calls_go_on_while_nobody_reads_the_log(relay: RelayProcess) -> None:
    """The pipe's reader stands still, as a stuck journald or a pager does, and goes on later."""
    assert relay._process is not None
    assert relay._process.stdout is not None
    fcntl.fcntl(relay._process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    with relay._grown:  # its reader waits for this
        async with call(relay) as up:
            await up.hang_up()
            for _ in range(60):  # each has a line of some 500 bytes
                another = Call(relay, up.caller, up.callee)
                await another.answer()
                await another.hang_up()
    assert relay.wait_for_event("log.lines_lost")["lines"] > 10
    assert relay.stop() == 0


async def test_calls_go_on_while_the_configuration_is_read(relay: RelayProcess) -> None:
    """The file is a pipe here: reading it takes as long as the test writes."""
    text = relay.config.read_text()
    relay.config.unlink()
    os.mkfifo(relay.config)
    os.kill(relay.pid, signal.SIGHUP)
    with await asyncio.to_thread(relay.config.open, "w") as pipe:  # the relay has opened it, too
        async with call(relay) as up:
            await up.hang_up()
        pipe.write(text)
        relay.config.unlink()
        relay.config.write_text(text)  # for the backend
    relay.wait_for_event("relay.reloaded")
