from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli import main
from tests.replay.packets import pcap

CONFIG = """
[sip]
listen = ["udp:127.0.0.10:5060"]
[store]
url = "sqlite:{folder}/relay.db"
key_file = "{folder}/relay.key"
[numbers]
prefixes = ["70010000001"]
[[peer]]
name = "callers"
uri = "sip:127.0.0.11:5060;transport=udp"
sources = ["127.0.0.11/32"]
[[peer]]
name = "callees"
uri = "sip:127.0.0.22:5070;transport=udp"
sources = ["127.0.0.22/32"]
[[route]]
prefix = ""
peers = ["callees"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "relay.toml").write_text(CONFIG.format(folder=tmp_path))
    (tmp_path / "trace.pcap").write_bytes(pcap([]))
    return tmp_path


def replay(folder: Path, *options: str, trace: str = "trace.pcap") -> Result:
    return CliRunner().invoke(main, ["replay", str(folder / trace), "-c", str(folder / "relay.toml"), *options])


def test_a_trace_without_calls_is_status_0(folder: Path) -> None:
    done = replay(folder)
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "No call to replay.")


@pytest.mark.parametrize(
    "options",
    [
        ["--to", "udp:[::1]:5060"],
        ["--to", "127.0.0.1:5060"],
        ["--callee", "127.0.0.22:5070"],
        ["--caller-address", "127.0.0.11"],
        ["--caller-address", "127.0.0.11:5080"],
    ],
)
def test_addresses_are_parsed(folder: Path, options: list[str]) -> None:
    done = replay(folder, *options)
    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--to", "tcp:127.0.0.1:5060"], "the replay speaks UDP"),
        (["--to", "127.0.0.1"], "is not HOST:PORT"),
        (["--callee", "127.0.0.22:x"], "is not HOST:PORT"),
        (["--speed", "0"], "0 is not in the range"),
    ],
)
def test_wrong_usage_is_status_2(folder: Path, options: list[str], problem: str) -> None:
    done = replay(folder, *options)
    assert done.exit_code == 2
    assert problem in done.stderr


def test_an_address_of_no_peer_is_refused(folder: Path) -> None:
    done = replay(folder, "--caller-address", "127.0.0.99")
    assert done.exit_code == 1
    assert "none has 127.0.0.99 among its sources" in done.stderr


def test_a_file_that_is_not_a_trace_is_refused_in_one_line(folder: Path) -> None:
    done = replay(folder, trace="relay.toml")
    assert (done.exit_code, done.stderr) == (1, "relay.toml is neither a pcap nor a pcapng file\n")
