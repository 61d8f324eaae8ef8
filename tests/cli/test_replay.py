from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli import main
from relay.cli.replay import lines, masked, report_object
from relay.replay.player import Finding, PlayResult, ReplayResult
from relay.replay.script import TraceCalls, find_calls
from relay.replay.trace import Trace
from tests.replay.messages import event, trace_of
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


# -- Report

FILE = Path("somewhere/trace.pcap")


def played(*findings: Finding) -> tuple[Trace, TraceCalls, list[PlayResult]]:
    trace = trace_of("> INVITE 1 new sdp", "< 486 1 INVITE", "> ACK 1")
    trace.events.append(event("> REGISTER 1 new", call_id="other"))
    calls = find_calls(trace)
    return trace, calls, [PlayResult(calls.attempts[0], list(findings), [180, 486])]


ALIKE = Finding("caller's INVITE", ReplayResult.ALIKE)
DESIGNED = Finding("callee's 407 to INVITE", ReplayResult.DESIGNED, "407 is shown as 480")
DIFFERS = Finding("", ReplayResult.DIFFERS, "LEAK to the callee: the caller's number in INVITE")


def test_each_attempt_has_a_line_followed_by_a_summary() -> None:
    assert list(lines(FILE, *played(ALIKE))) == [
        "trace.pcap: 0 packets; 4 SIP messages; 1 INVITE attempts; passed over: 1 REGISTER",
        "   1  138****5678 -> 139****4321   180 486          3 messages: alike",
        "1 of 1 attempts alike; 0 differ.",
    ]


def test_differences_are_listed_below_their_attempt() -> None:
    shown = list(lines(FILE, *played(ALIKE, DESIGNED)))
    assert shown[2:] == [
        "        as designed: callee's 407 to INVITE: 407 is shown as 480",
        "1 of 1 attempts alike, 1 except for changes by design; 0 differ.",
    ]
    shown = list(lines(FILE, *played(DESIGNED, DIFFERS)))
    assert shown[1].endswith(": differs")
    assert shown[3] == "        LEAK to the callee: the caller's number in INVITE"
    assert shown[4] == "0 of 1 attempts alike; 1 differ."


def test_the_report_as_json() -> None:
    found = report_object(FILE, *played(ALIKE, DIFFERS))
    assert found["differing"] == 1
    assert found["calls"][0]["statuses"] == [180, 486]
    assert found["calls"][0]["steps"][1] == {"step": "", "verdict": "differs", "words": DIFFERS.words}


def test_the_report_has_no_real_number() -> None:
    told = "\n".join(lines(FILE, *played(ALIKE))) + json.dumps(report_object(FILE, *played(ALIKE)))
    assert "13812345678" not in told
    assert "13987654321" not in told


def test_names_and_numbers_are_masked() -> None:
    assert [masked(user) for user in ("+8613812345678", "alice", "")] == ["138****5678", "a****", "-"]


def test_trace_without_calls() -> None:
    assert list(lines(FILE, Trace(), TraceCalls([], {}, 0), []))[-1] == "No call to replay."
