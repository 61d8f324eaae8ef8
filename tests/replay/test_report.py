from __future__ import annotations

import json
from pathlib import Path

from relay.replay import report
from relay.replay.player import Finding, Played, Verdict
from relay.replay.script import Calls, find_calls
from relay.replay.trace import Trace
from tests.replay.messages import event, trace_of

FILE = Path("somewhere/trace.pcap")


def played(*findings: Finding) -> tuple[Trace, Calls, list[Played]]:
    trace = trace_of("> INVITE 1 new sdp", "< 486 1 INVITE", "> ACK 1")
    trace.events.append(event("> REGISTER 1 new", call_id="other"))
    calls = find_calls(trace)
    return trace, calls, [Played(calls.attempts[0], list(findings), [180, 486])]


ALIKE = Finding("caller's INVITE", Verdict.ALIKE)
DESIGNED = Finding("callee's 407 to INVITE", Verdict.DESIGNED, "407 is shown as 480")
DIFFERS = Finding("", Verdict.DIFFERS, "LEAK to the callee: the caller's number in INVITE")


def test_each_attempt_has_a_line_followed_by_a_summary() -> None:
    assert list(report.lines(FILE, *played(ALIKE))) == [
        "trace.pcap: 0 packets; 4 SIP messages; 1 INVITE attempts; passed over: 1 REGISTER",
        "   1  138****5678 -> 139****4321   180 486          3 messages: alike",
        "1 of 1 attempts alike; 0 differ.",
    ]


def test_differences_are_listed_below_their_attempt() -> None:
    lines = list(report.lines(FILE, *played(ALIKE, DESIGNED)))
    assert lines[2:] == [
        "        as designed: callee's 407 to INVITE: 407 is shown as 480",
        "1 of 1 attempts alike, 1 except for changes by design; 0 differ.",
    ]
    lines = list(report.lines(FILE, *played(DESIGNED, DIFFERS)))
    assert lines[1].endswith(": differs")
    assert lines[3] == "        LEAK to the callee: the caller's number in INVITE"
    assert lines[4] == "0 of 1 attempts alike; 1 differ."


def test_the_report_as_json() -> None:
    found = report.report_object(FILE, *played(ALIKE, DIFFERS))
    assert found["differing"] == 1
    assert found["calls"][0]["statuses"] == [180, 486]
    assert found["calls"][0]["steps"][1] == {"step": "", "verdict": "differs", "words": DIFFERS.words}


def test_the_report_has_no_real_number() -> None:
    told = "\n".join(report.lines(FILE, *played(ALIKE))) + json.dumps(report.report_object(FILE, *played(ALIKE)))
    assert "13812345678" not in told
    assert "13987654321" not in told


def test_names_and_numbers_are_masked() -> None:
    assert [report.masked(user) for user in ("+8613812345678", "alice", "")] == ["138****5678", "a****", "-"]


def test_trace_without_calls() -> None:
    assert list(report.lines(FILE, Trace(), Calls([], {}, 0), []))[-1] == "No call to replay."
