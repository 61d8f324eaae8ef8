"""`relay700 demo`, as it is typed; with a peer in between that leaks; ended early."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from relay.cli import main
from relay.events.probe_call import ProbeCall, Result, call
from tests.cli.test_probe import leak
from tests.support.addresses import Address, free
from tests.support.middle_peer import MiddlePeer, serving
from tests.support.product import RELAY700

pytestmark = pytest.mark.outside

README = Path("README.md").read_text()
ARROWS = re.compile(r"[│●] *[◀─]+ (.+?) [─▶]")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of temporary files, empty at the end; no process has a file of it then."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield folder
    assert list(folder.iterdir()) == []
    assert [line for line in command_lines() if str(folder) in line] == []


def command_lines() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:  # it has ended meanwhile
            continue


def start(folder: Path, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    command = [*before, *RELAY700, "demo"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder
    )


def labels(picture: str) -> set[str]:
    """Of arrows, without numbers of retransmissions, and of targets, without their ports."""
    return {re.sub(r" ×\d+$|:\d+$", "", label) for label in ARROWS.findall(picture)}


def test_the_demo_proves_that_nothing_crossed_and_prints_the_picture_of_the_readme(tmp_path: Path) -> None:
    demo = start(tmp_path)
    out, errors = demo.communicate(timeout=60)
    assert (demo.returncode, errors) == (0, "")
    for said in (
        "Proven: neither phone got anything of the other.",
        "\ncaller         138****0001\n",
        "\n  the callee got INVITE, ",
    ):
        assert said in out
    picture = README.split("\n## ", 1)[0].split("```")[3]
    assert labels(picture) == labels(out) != set()
    for left_out in ("13800000001", "13900000002", "Withheld: "):  # the marks make that list four screens long
        assert left_out not in out
    assert os.listdir(tmp_path) == ["temporary"]


def test_a_leak_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    async def through_a_leaking_peer(probe: ProbeCall) -> Result:
        behind = free("127.0.0.72")
        async with serving(MiddlePeer(Address(*probe.callee_at), behind, to_caller=leak)):
            return await call(probe._replace(callee_at=behind, is_direct=False))

    monkeypatch.setattr("relay.cli.demo.call", through_a_leaking_peer)
    done = CliRunner().invoke(main, ["demo"])
    assert (done.exit_code, done.stderr) == (1, ""), done.output
    assert (
        "LEAK: the callee's private address in o= of the body of 200 to INVITE, got by the caller\n" in done.stdout
    ), done.stdout
    assert "Proven" not in done.stdout


def test_a_call_that_fails_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> Result:
        return Result("phone-b", "failed", "the callee's 180 did not come")

    monkeypatch.setattr("relay.cli.demo._perform", fails)
    done = CliRunner().invoke(main, ["demo"])
    assert done.exit_code == 1
    assert "NOT PROVEN, the call did not get through: the callee's 180 did not come." in done.stdout


@pytest.mark.parametrize("before", [[], ["sh", "-c", "trap '' INT; exec \"$@\"", "-"]], ids=["shell", "background"])
def test_ended_early_it_ends_the_relay_as_well(tmp_path: Path, before: list[str]) -> None:
    """Also as a background job of a shell, for which SIGINT is ignored."""
    demo = start(tmp_path, before)
    assert demo.stdout is not None
    assert "dials" in demo.stdout.readline()
    while not Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text():  # the relay
        assert demo.poll() is None
    demo.send_signal(signal.SIGTERM)
    _, errors = demo.communicate(timeout=60)
    assert (demo.returncode, errors.strip()) == (1, "Aborted!")


def test_a_relay_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    done = CliRunner().invoke(main, ["demo"])
    assert (done.exit_code, done.stderr) == (1, "the relay has ended: \n")
