"""`scripts/bench` and `scripts/instructions`: how they say their figures, and parts that the figures depend on."""

from __future__ import annotations

import importlib
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from relay.store.database import connect_reader, open_store
from relay.store.records import RecordFilter, is_indexed, read_all, verify_records

SCRIPTS = Path("scripts/bench.d").resolve()
BY = {"machine": "x86_64", "Python": "3.13.5"}


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("report")


@pytest.fixture
def instructions(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("instructions")


def measured(report: ModuleType, first_us: list[float], others_us: list[float], failed: int = 0) -> Any:
    load = importlib.import_module("load")
    outcomes = [load.Outcome(100 - failed, failed, 1.0, [1.0], [2.0], 0) for _ in first_us]
    return report.Measured(first_us, others_us, [50.0] * len(first_us), outcomes)


def rows(report: ModuleType, ours: Any, kamailio: Any) -> list[list[str]]:
    """The lines about CPU time of a run of relay700 and Kamailio."""
    address = ("127.0.0.1", 5060)
    servers = [report.Server(name, address, None) for name in ("relay700", "kamailio")]
    found = {"relay700": ours, "kamailio": kamailio, report.DIRECT: measured(report, [], [])}
    part = report.Part(1_000, {(name, 300): each for name, each in found.items()}, {})
    return [line.split() for line in report.report([part], servers, report.Plan([300], 10, 3, 5.0)).splitlines()[4:7]]


def test_a_ratio_is_that_of_a_turn(report: ModuleType) -> None:
    """In the second turn something else had the machine: both took twice as long."""
    ours = measured(report, [200.0, 400.0, 230.0], [50.0, 100.0, 70.0])
    assert rows(report, ours, measured(report, [0.0] * 3, [500.0, 1000.0, 400.0])) == [
        ["CPU", "a", "call,", "us", "300", "500", "0.50"],
        ["of", "all", "turns", "250..500", "400..1000", "0.50..0.75"],
        ["of", "the", "backend", "70"],
    ]


def test_a_server_that_did_not_hold_the_rate_has_no_cost(report: ModuleType) -> None:
    ours = measured(report, [200.0] * 3, [50.0] * 3)
    beaten = measured(report, [0.0], [500.0], failed=2)
    assert [row[-3:] for row in rows(report, ours, beaten)] == [
        ["250", "-", "-"],
        ["250..250", "-", "-"],
        ["the", "backend", "50"],
    ]


@pytest.mark.parametrize(
    ("control_ms", "delay_ms", "failed", "is_good"),
    [(5.0, 49.0, 0, True), (5.0, 51.0, 0, False), (60.0, 80.0, 0, True), (5.0, 20.0, 1, False)],
    ids=["fast", "slow", "slow by the machine", "failed calls"],
)
def test_a_flood_may_neither_slow_nor_fail_others_calls_where_the_machine_alone_does_not(
    monkeypatch: pytest.MonkeyPatch, control_ms: float, delay_ms: float, failed: int, is_good: bool
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    fairness, load = importlib.import_module("fairness"), importlib.import_module("load")

    def figures(delay_ms: float, failed: int) -> Any:
        outcome = load.Outcome(100 - failed, failed, 1.0, [1.0] * 90 + [delay_ms] * 10, [9.0], 0)
        return fairness.Figures(outcome, sent=6_000, answered=4_000, shed=2_000)

    flood = fairness.Flood("wrong", 6_000, figures(control_ms, 0), figures(delay_ms, failed))
    assert flood.is_good is is_good
    text = fairness.table([flood])
    assert text.endswith("none" if is_good else "wrong at 6000/s")
    assert ["wrong", "6000", "4000", "2000", str(100 - failed), str(failed)] == text.splitlines()[1].split()[:6]


@pytest.mark.parametrize(
    ("relay", "backend", "expected"),
    [
        (1_000_000, 200_000, []),
        (1_029_000, 209_000, []),
        (1_031_000, 100_000, ["relay"]),
        (1_000_000, 211_000, ["backend"]),
        (1_031_000, 211_000, ["relay", "backend"]),
    ],
)
def test_the_relay_may_not_take_three_percent_more_and_the_backend_not_five(
    instructions: ModuleType, relay: int, backend: int, expected: list[str]
) -> None:
    recorded = instructions.Counts({"relay": 1_000_000, "backend": 200_000}, BY)
    said, is_good = instructions.compared(instructions.Counts({"relay": relay, "backend": backend}, BY), recorded)
    assert is_good is not bool(expected)
    assert [name for name in ("relay", "backend") if f"var/instructions/{name}" in said] == expected


def test_other_versions_are_compared_and_said(instructions: ModuleType) -> None:
    recorded = instructions.Counts({"relay": 1_000, "backend": 200}, BY)
    found = instructions.Counts({"relay": 1_100, "backend": 200}, {**BY, "Python": "3.14.0"})
    said, is_good = instructions.compared(found, recorded)
    assert not is_good
    assert "recorded with Python 3.13.5" in said


def test_another_instruction_set_is_not_compared(instructions: ModuleType) -> None:
    recorded = instructions.Counts({"relay": 1_000, "backend": 200}, BY)
    found = instructions.Counts({"relay": 2_000, "backend": 200}, {**BY, "machine": "aarch64"})
    said, is_good = instructions.compared(found, recorded)
    assert is_good
    assert "not compared" in said


def test_a_gain_is_to_be_recorded(instructions: ModuleType) -> None:
    recorded = instructions.Counts({"relay": 1_000, "backend": 200}, BY)
    said, is_good = instructions.compared(instructions.Counts({"relay": 960, "backend": 200}, BY), recorded)
    assert is_good
    assert "scripts/instructions --record" in said


# -- The API under load


@pytest.fixture
def far_echo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The address of the slow network, with a round trip of 50 ms, before a server that echoes until a full stop."""
    monkeypatch.syspath_prepend(SCRIPTS)
    near = importlib.import_module("load").free("127.0.0.1")
    with echo_server(tmp_path / "server") as server:
        command = [sys.executable, str(SCRIPTS / "slow_network.py"), near.host, str(near.port), server, "50"]
        process = subprocess.Popen(command)
        try:
            importlib.import_module("processes").wait_until_bound(process, *near, tmp_path / "log", "tcp")
            yield near
        finally:
            process.kill()
            process.wait()


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data = b""
        while not data.endswith(b"."):
            data = self.request.recv(65_536)
            self.request.sendall(data)


@contextmanager
def echo_server(path: Path) -> Iterator[str]:
    with socketserver.ThreadingUnixStreamServer(str(path), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield str(path)
        server.shutdown()
        thread.join()


def test_the_slow_network_takes_its_round_trip(far_echo: tuple[str, int]) -> None:
    with socket.create_connection(far_echo) as connection:
        began = time.monotonic()
        connection.sendall(b".")
        assert connection.recv(1) == b"."
        assert time.monotonic() - began >= 0.05


def test_the_slow_network_passes_on_each_byte_in_order_and_the_end(far_echo: tuple[str, int]) -> None:
    sent = b"".join(b"%d," % n for n in range(300_000)) + b"."
    with socket.create_connection(far_echo) as connection:
        sending = threading.Thread(target=connection.sendall, args=(sent,))
        sending.start()
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
        sending.join()
    assert received == sent


def test_a_pair_is_two_requests_and_ends_no_binding_that_was_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    requests = importlib.import_module("http_load")._pairs("127.0.0.1:8700", "key")
    assert next(requests).startswith(b"POST /v1/bindings ")
    assert requests.send(b'{"id": "b1"}').startswith(b"DELETE /v1/bindings/b1 ")
    assert requests.send(b'{"id": "b1"}').startswith(b"POST ")
    assert requests.send(b"").startswith(b"POST ")


# -- Large stores


def test_a_made_past_is_intact_and_wholly_indexed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    past, stores = importlib.import_module("past"), importlib.import_module("stores")
    folder = past.made_store(2_500, tmp_path / "kept")
    assert past.made_store(2_500, tmp_path / "kept") == folder
    bindings = stores.Bindings(250, folder)
    path = folder / "relay.db"
    sealer = open_store(path, folder / "relay.key")
    with closing(connect_reader(path)) as connection:
        verdict = verify_records(connection, sealer)
        assert (verdict.intact, verdict.broken) == (2_500, None)
        assert is_indexed(connection)
        of_all = {
            record.call_id
            for _, number, _ in bindings
            for record in read_all(connection, sealer, RecordFilter(number=number))
        }
        assert len(of_all) == 2_500
        (counted,) = connection.execute(
            "SELECT sum(count) FROM call_count WHERE owner = '' AND span = 3600 AND name IN ('answered', 'busy')"
        ).fetchone()
        assert counted == 2_500
