"""`relay700 replay` against a running relay, with real traces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from relay.service.fields import CHINA
from tests.support.relay_process import RelayProcess, Setup

pytestmark = pytest.mark.outside
TRACES = Path(__file__).parents[1] / "data" / "pcap"


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    relay = RelayProcess(tmp_path, Setup(listen=["udp"]))
    relay.start()
    yield relay
    relay.stop_and_check()


def replay(relay: RelayProcess, trace: str, *options: str, status: int = 0) -> dict[str, Any]:
    setup = relay.setup
    addresses = ["--callee-address", str(setup.callee), "--caller-address", setup.caller.host]
    done = relay.command("replay", str(TRACES / trace), *addresses, "--speed", "100", "--json", *options)
    assert done.returncode == status, f"{done.stdout}\n{done.stderr}\n{relay.log_tail()}"
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def designed(report: dict[str, Any]) -> list[str]:
    return [step["words"] for call in report["calls"] for step in call["steps"] if step["verdict"] == "as designed"]


def test_fax_call_with_re_invites_both_ways_and_options(relay: RelayProcess) -> None:
    report = replay(relay, "t38-fax-call.pcap")
    assert [call["statuses"] for call in report["calls"]] == [[180, 200], [180, 200]]
    assert designed(report) == ["its body is not allowed: 488"] * 2  # the re-INVITEs for T.38: the calls go on
    assert [call["outcome"] for call in relay.calls()] == ["answered", "answered"]


def test_call_of_ipv6_fragments_with_prack_and_update(relay: RelayProcess) -> None:
    report = replay(relay, "ipv6-fragments.pcap")
    (call,) = report["calls"]
    assert call["statuses"] == [183, 183, 200]
    assert {step["step"] for step in call["steps"]} >= {"caller's PRACK", "caller's UPDATE", "callee's 200 to UPDATE"}
    assert designed(report) == ["option precondition is not supported: 420"]


def test_cancelled_challenged_and_refused_calls_among_registrations(relay: RelayProcess) -> None:
    report = replay(relay, "wireshark-sip-sample.pcap")
    assert report["passed_over"] == {"REGISTER": 18}
    assert [call["statuses"][-1] for call in report["calls"]] == [487, 480, 480, 480, 480, 480, 480]
    assert sorted(set(designed(report))) == [
        "403 is shown as 480",
        "407 is shown as 480",
        "408 after CANCEL is shown as 487",
    ]


def test_invite_in_compact_form_without_an_answer(relay: RelayProcess) -> None:
    report = replay(relay, "compact-form.pcap")
    assert [call["statuses"] for call in report["calls"]] == [[487]]


def test_trace_without_calls(relay: RelayProcess) -> None:
    report = replay(relay, "sip-over-tcp.pcap")
    assert (report["calls"], report["passed_over"]) == ([], {"REGISTER": 1})


def test_an_unreachable_relay_is_a_difference(relay: RelayProcess) -> None:
    report = replay(relay, "compact-form.pcap", "--to", "127.0.0.9:9", "--patience", "1", status=1)
    assert report["differing"] == 1


def test_callers_of_a_peer_with_numbers_and_caps_on_calls(tmp_path: Path) -> None:
    """As the configuration that is shipped: the peer may claim 138*, and three calls in five minutes are allowed."""
    setup = Setup(listen=["udp"], policy={})
    relay = RelayProcess(tmp_path, setup)
    relay.config.write_text(relay.config.read_text().replace('numbers = "any"', 'numbers = ["138*"]', 1))
    relay.start()
    done = relay.command("replay", str(TRACES / "wireshark-sip-sample.pcap"), "--speed", "100")
    assert "7 of 7 attempts alike" in done.stdout, done.stdout + done.stderr
    relay.stop_and_check()


def test_an_attempt_that_differs_has_its_outcome(tmp_path: Path) -> None:
    hours = "22:00-23:00" if 6 <= datetime.now(CHINA).hour < 18 else "12:00-13:00"
    relay = RelayProcess(tmp_path, Setup(listen=["udp"], policy={"hours": hours}))
    relay.start()
    report = replay(relay, "compact-form.pcap", status=1)
    (call,) = report["calls"]
    assert call["steps"][-1]["words"] == "the call record has the outcome outside_hours, end reason outside_hours"
    relay.stop_and_check()


def test_bindings_are_ended_and_no_number_is_printed(relay: RelayProcess) -> None:
    setup = relay.setup
    addresses = ["--callee-address", str(setup.callee), "--caller-address", setup.caller.host]
    done = relay.command("replay", str(TRACES / "wireshark-sip-sample.pcap"), *addresses, "--speed", "100")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 of 7 attempts alike" in done.stdout
    assert "97239287044" not in done.stdout
    listed = relay.command("bindings", "list", "--json").stdout.splitlines()
    assert {json.loads(line)["state"] for line in listed} == {"ended"}


def test_a_missing_peer_is_reported(relay: RelayProcess) -> None:
    done = relay.command("replay", str(TRACES / "compact-form.pcap"), "--callee-address", "127.0.0.99:5060")
    assert done.returncode == 1
    assert 'none with the uri "sip:127.0.0.99:5060;transport=udp"' in done.stderr
