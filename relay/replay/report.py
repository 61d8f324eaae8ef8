"""The report of a replay, as text and as JSON. Real numbers and names of the trace are masked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from relay.model.numbers import mask_number
from relay.replay.player import Finding, Played, Verdict
from relay.replay.script import Calls
from relay.replay.trace import Trace


def masked(user: str) -> str:
    """A masked number; of other users only the first letter."""
    digits = user.lstrip("+")
    if digits.isascii() and digits.isdigit():
        return mask_number(digits)
    return f"{user[:1]}****" if user else "-"


def lines(path: Path, trace: Trace, calls: Calls, played: Sequence[Played]) -> Iterator[str]:
    """The file's contents, one line per attempt followed by its differences, and a summary."""
    yield f"{path.name}: {_contents(trace, calls)}"
    for one in played:
        attempt = one.attempt
        who = f"{masked(attempt.caller)} -> {masked(attempt.callee)}"
        hops = f", {attempt.hops} hops" if attempt.hops > 1 else ""
        statuses = " ".join(map(str, one.statuses)) or "no answer"
        yield f"{attempt.number:4}  {who:28} {statuses:16} {len(attempt.steps)} messages{hops}: {one.verdict.value}"
        for finding in _remarkable(one):
            yield f"        {_words(finding)}"
    yield _summary(played)


def report_object(path: Path, trace: Trace, calls: Calls, played: Sequence[Played]) -> dict[str, Any]:
    """The same for `--json`."""
    return {
        "trace": path.name,
        "packets": trace.packets,
        "messages": len(trace.events),
        "unreadable": trace.unreadable,
        "passed_over": calls.passed_over,
        "calls_without_invite": calls.without_invite,
        "calls": [_attempt_object(one) for one in played],
        "differing": sum(one.verdict is Verdict.DIFFERS for one in played),
    }


def _attempt_object(one: Played) -> dict[str, Any]:
    attempt = one.attempt
    return {
        "number": attempt.number,
        "caller": masked(attempt.caller),
        "callee": masked(attempt.callee),
        "hops": attempt.hops,
        "statuses": one.statuses,
        "verdict": one.verdict.value,
        "steps": [
            {"step": finding.step, "verdict": finding.verdict.value, "words": finding.words} for finding in one.findings
        ],
    }


def _contents(trace: Trace, calls: Calls) -> str:
    parts = [f"{trace.packets} packets", f"{len(trace.events)} SIP messages", f"{len(calls.attempts)} INVITE attempts"]
    if calls.passed_over:
        methods = ", ".join(f"{count} {method}" for method, count in sorted(calls.passed_over.items()))
        parts.append(f"passed over: {methods}")
    if calls.without_invite:
        parts.append(f"{calls.without_invite} calls without their INVITE")
    if trace.unreadable:
        parts.append(f"{trace.unreadable} unreadable")
    return "; ".join(parts)


def _remarkable(one: Played) -> list[Finding]:
    return [finding for finding in one.findings if finding.verdict is not Verdict.ALIKE]


def _words(finding: Finding) -> str:
    what = f"{finding.step}: {finding.words}" if finding.step else finding.words
    return f"as designed: {what}" if finding.verdict is Verdict.DESIGNED else what


def _summary(played: Sequence[Played]) -> str:
    if not played:
        return "No call to replay."
    count = Counter(one.verdict for one in played)
    designed = f", {count[Verdict.DESIGNED]} except for changes by design" if count[Verdict.DESIGNED] else ""
    alike = count[Verdict.ALIKE] + count[Verdict.DESIGNED]
    return f"{alike} of {len(played)} attempts alike{designed}; {count[Verdict.DIFFERS]} differ."
