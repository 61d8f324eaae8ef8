"""What befalls processes of `relay700 serve --workers 2`: killed, stopped, told by signals, without their files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.support.addresses import CALLER, free
from tests.support.live_call import Call
from tests.support.phone import Phone
from tests.support.relay_process import RelayProcess, Setup
from tests.support.workers import NUMBERS, A, StartWorkers, kill, wait_for_successor

pytestmark = pytest.mark.outside


def peers(relay: RelayProcess) -> list[str]:
    return [json.loads(line)["peer"] for line in relay.command("peers", "list", "--json").stdout.splitlines()]


async def test_a_reload_holds_also_for_a_worker_that_is_being_replaced(start_workers: StartWorkers) -> None:
    relay = start_workers(Setup(sip={"t1_ms": 200}))
    mark = kill(relay, 0)
    text = relay.config.read_text()
    relay.config.write_text(text.replace('"callee_side_1"', '"another_name"'))
    os.kill(relay.pid, signal.SIGHUP)
    relay.wait_for_event("relay.reloaded", after=mark)
    wait_for_successor(relay, 0, mark)
    assert peers(relay) == ["caller_side", "another_name"]
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        for number in NUMBERS:
            call = Call(relay, caller, callee, A, number)
            await call.answer()
            await call.hang_up()
    assert {record["peer_out"] for record in relay.calls()} == {"another_name"}


async def test_a_worker_that_hangs_does_not_keep_the_others_from_a_reload(start_workers: StartWorkers) -> None:
    relay = start_workers(Setup())
    mark = len(relay.log().splitlines())
    os.kill(relay.worker_pids()[0], signal.SIGSTOP)
    relay.config.write_text(relay.config.read_text().replace('"callee_side_1"', '"another_name"'))
    os.kill(relay.pid, signal.SIGHUP)
    relay.wait_for_event("relay.reloaded", after=mark)
    wait_for_successor(relay, 0, mark)
    assert peers(relay) == ["caller_side", "another_name"]


async def test_what_is_asked_for_while_a_worker_is_replaced_is_answered_of_the_other(
    start_workers: StartWorkers,
) -> None:
    relay = start_workers(Setup(sip={"t1_ms": 200}))
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        call = Call(relay, caller, callee, A, NUMBERS[1])
        await call.answer()
        kill(relay, 0)
        assert relay.statistics()["calls_up"] == 1
        (live,) = [json.loads(line) for line in relay.command("calls", "live", "--json").stdout.splitlines()]
        done = relay.command("calls", "hang-up", live["call_id"], "--reason", "a test")
        assert done.returncode == 0, done.stderr
        for phone in (caller, callee):
            await phone.expect("BYE")


async def test_what_is_told_without_a_worker_says_so(start_workers: StartWorkers) -> None:
    relay = start_workers(Setup())
    assert relay.statistics()["workers_absent"] == 0
    assert not relay.command("calls", "live").stderr
    os.kill(relay.worker_pids()[0], signal.SIGSTOP)
    assert relay.statistics()["workers_absent"] == 1
    assert "not all: 1 of the relay's workers did not answer" in relay.command("calls", "live").stderr
    os.kill(relay.worker_pids()[0], signal.SIGCONT)


async def test_statistics_of_nobody_are_not_told(start_workers: StartWorkers) -> None:
    relay = start_workers(Setup())
    mark = len(relay.log().splitlines())
    for pid in relay.worker_pids():
        os.kill(pid, signal.SIGKILL)
    for worker in (0, 1):
        relay.wait_for_event("worker.ended", after=mark, matching=lambda event, it=worker: event["worker"] == it)
    os.kill(relay.pid, signal.SIGUSR1)
    relay.wait_for_event("relay.no_statistics", after=mark)
    for worker in (0, 1):
        wait_for_successor(relay, worker, mark)
    assert relay.statistics()["calls_up"] == 0


def test_signals_that_are_for_the_parent_end_no_worker(start_workers: StartWorkers) -> None:
    relay = start_workers(Setup())
    for pid in relay.worker_pids():
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            os.kill(pid, each)
    assert relay.statistics()["calls_up"] == 0
    assert not [event for event in relay.events() if event["event"] == "worker.ended"]
    relay.stop_and_check()


async def test_a_relay_starts_where_one_was_killed_whose_worker_is_stopped(start_workers: StartWorkers) -> None:
    relay = start_workers(Setup())
    for pid in relay.worker_pids():
        os.kill(pid, signal.SIGSTOP)
    relay.kill()
    relay.start()
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        for number in NUMBERS:
            call = Call(relay, caller, callee, A, number)
            await call.answer()
            await call.hang_up()
    relay.stop_and_check()


async def test_the_second_signal_ends_at_once_also_without_the_worker_that_has_a_call(
    start_workers: StartWorkers,
) -> None:
    relay = start_workers(Setup(sip={"drain_s": 600}))
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        await Call(relay, caller, callee, A, NUMBERS[0]).answer()
        mark = kill(relay, 0)
        os.kill(relay.pid, signal.SIGTERM)
        relay.wait_for_event("relay.draining", after=mark)
        os.kill(relay.pid, signal.SIGTERM)
        assert relay.wait_for_event("relay.stopped", after=mark)["clean"] is False


async def test_the_second_signal_ends_at_once_also_where_a_worker_hangs(start_workers: StartWorkers) -> None:
    relay = start_workers(Setup(sip={"drain_s": 600}))
    mark = len(relay.log().splitlines())
    os.kill(relay.worker_pids()[0], signal.SIGSTOP)
    os.kill(relay.pid, signal.SIGTERM)
    relay.wait_for_event("relay.draining", after=mark)
    os.kill(relay.pid, signal.SIGTERM)
    assert relay.wait_for_event("relay.stopped", after=mark)["clean"] is False
    assert not [event for event in relay.events() if event["event"] == "worker.silent"]


async def test_a_worker_starts_once_what_it_cannot_do_without_is_back(
    start_workers: StartWorkers, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("secret of a peer\n")
    password.chmod(0o600)
    peer = f'\n[[peer]]\nname = "branch"\nlogin = {{username = "1001", password_file = "{password}"}}\n'
    relay = start_workers(Setup(more=peer))
    password.rename(tmp_path / "away")
    mark = kill(relay, 1)
    why = relay.wait_for_event("worker.not_started", after=mark)
    assert "password" in why["reason"]
    (tmp_path / "away").rename(password)
    wait_for_successor(relay, 1, mark)
    assert "secret of a peer" not in relay.log()


async def test_a_connection_brings_no_more_than_its_worker_takes(start_workers: StartWorkers) -> None:
    relay = start_workers(Setup(transport="tcp", caller=free(CALLER)))
    mark = len(relay.log().splitlines())
    reader, writer = await asyncio.open_connection(*relay.setup.relay, local_addr=(relay.setup.caller.host, 0))
    os.kill(relay.worker_pids()[0], signal.SIGSTOP)
    writing = asyncio.create_task(_write_much(writer))
    await asyncio.to_thread(relay.wait_for_event, "worker.silent", after=mark)
    assert not writing.done()
    await asyncio.to_thread(wait_for_successor, relay, 0, mark)
    answered = asyncio.create_task(reader.read(-1))
    await asyncio.wait_for(writing, 60)
    writer.write_eof()
    assert b"SIP/2.0 " in await answered


async def _write_much(writer: asyncio.StreamWriter) -> None:
    """More than what the system and the relay have room for."""
    writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    serial = 0
    for _ in range(1024):
        messages = []
        for _ in range(16):
            serial += 1
            messages.append(_options(serial))
        writer.write(b"".join(messages))
        await writer.drain()


def _options(serial: int) -> bytes:
    return (
        "OPTIONS sip:relay SIP/2.0\r\n"
        f"Via: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK-much-{serial}\r\n"
        "From: <sip:x@127.0.0.1>;tag=1\r\nTo: <sip:relay>\r\n"
        f"Call-ID: much-{serial}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n"
        f"Content-Length: 2000\r\n\r\n{'x' * 2000}"
    ).encode()
