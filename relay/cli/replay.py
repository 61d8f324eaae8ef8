"""`relay700 replay`: play a capture's calls through a running relay; the report as text and as JSON."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option, localised
from relay.cli.options import Opened, opened
from relay.cli.output import json_line
from relay.model.numbers import mask_number
from relay.replay.player import Finding, Pace, PlayResult, ReplayResult
from relay.replay.script import TraceCalls, find_calls
from relay.replay.stage import Cast, bind_attempts, play_attempts, set_stage
from relay.replay.trace import Endpoint, Trace, read_trace
from relay.store.records import RecordFilter, read_all


def _address(text: str) -> Endpoint:
    """A click type: HOST:PORT, IPv6 in brackets, with or without `udp:` in front."""
    host, colon, port = text.removeprefix("udp:").rpartition(":")
    if text.startswith(("tcp:", "tls:")):
        raise click.BadParameter("the replay speaks UDP: write udp:HOST:PORT")
    if not (host and colon and port.isdecimal() and int(port) < 65_536):
        raise click.BadParameter(f"{text!r} is not HOST:PORT")
    return Endpoint(host.strip("[]"), int(port))


def _local_address(text: str) -> Endpoint:
    """A click type: as `_address`; without a port a free one is used."""
    has_port = ":" in text and not text.endswith("]") and (text.count(":") == 1 or "]" in text)
    return _address(text if has_port else f"{text}:0")


@click.command()
@click.argument("trace", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--to", type=_address, metavar="udp:HOST:PORT", help="Address of the relay. Default: as configured.")
@click.option(
    "--caller-address",
    type=_local_address,
    metavar="HOST[:PORT]",
    help="Local address of the callers. Default: the first [[peer]] that is not the callees'.",
)
@click.option(
    "--callee-address",
    "--callee",
    type=_address,
    metavar="HOST:PORT",
    help="Local address of the callees, that of a [[peer]]. Default: the first [[peer]] that is first in a [[route]].",
)
@click.option("--speed", type=click.FloatRange(min=0.01), default=10.0, show_default=True, help="Times the capture's.")
@click.option(
    "--longest-pause",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Maximum pause between two messages, in seconds.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    help="Seconds to wait for a message to come through the relay.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
@click.pass_context
def replay(
    context: click.Context,
    trace: Path,
    to: Endpoint | None,
    caller_address: Endpoint | None,
    callee_address: Endpoint | None,
    speed: float,
    longest_pause: float,
    patience: float,
    as_json: bool,
    config_path: Path | None,
) -> None:
    """Play a capture's calls through a running relay and compare.

    TRACE is a pcap or pcapng file.

    Both sides of each call are played from local addresses of configured peers. The captured numbers are mapped to
    bindings that are made for the replay and ended with it. Their parties are random numbers, so a store in which
    other bindings are in force is refused: replay with a relay and a store of its own. Exit status 0 if the relayed
    calls match the capture, but for intended differences; 1 if a call differs.
    """
    read = read_trace(trace)
    calls = find_calls(read)
    pace = Pace(speed, longest_pause, patience)
    with opened(config_path, make=True) as store:
        settings = store.config.settings
        stage = set_stage(settings, to, caller_address, callee_address)
        with bind_attempts(calls.attempts, settings, stage, store.run, store.rules) as casts:
            played = asyncio.run(play_attempts(calls.attempts, stage, casts, pace))
        _add_outcomes(store, played, casts)
    if as_json:
        click.echo(json_line(report_object(trace, read, calls, played)))
    else:
        for line in lines(trace, read, calls, played):
            click.echo(line)
    context.exit(any(one.verdict is ReplayResult.DIFFERS for one in played))


def _add_outcomes(store: Opened, played: Sequence[PlayResult], casts: Mapping[int, Cast]) -> None:
    """Add to each attempt that differs what its call record says."""
    for one in played:
        if one.verdict is ReplayResult.DIFFERS:
            cast = casts[one.attempt.number]
            for record in read_all(store.reader, store.sealer, RecordFilter(number=cast.x, party=cast.a)):
                words = f"the call record has the outcome {record.outcome}, end reason {record.end_reason}"
                one.findings.append(Finding("", ReplayResult.DIFFERS, words))


# -- The report. Real numbers and names of the trace are masked


def masked(user: str) -> str:
    """A masked number; of other users only the first letter."""
    digits = user.lstrip("+")
    if digits.isascii() and digits.isdigit():
        return mask_number(digits)
    return f"{user[:1]}****" if user else "-"


def lines(path: Path, trace: Trace, calls: TraceCalls, played: Sequence[PlayResult]) -> Iterator[str]:
    """The file's contents, one line per attempt followed by its differences, and a summary."""
    yield f"{path.name}: {_contents(trace, calls)}"
    for one in played:
        attempt = one.attempt
        who = f"{masked(attempt.caller)} -> {masked(attempt.callee)}"
        hops = f", {attempt.hops} hops" if attempt.hops > 1 else ""
        statuses = " ".join(map(str, one.statuses)) or localised("no answer")
        counts = localised(f"{len(attempt.steps)} messages{hops}: {localised(one.verdict.value)}")
        yield f"{attempt.number:4}  {who:28} {statuses:16} {counts}"
        for finding in _remarkable(one):
            yield localised(f"        {_words(finding)}")
    yield localised(_summary(played))


def report_object(path: Path, trace: Trace, calls: TraceCalls, played: Sequence[PlayResult]) -> dict[str, Any]:
    """The same for `--json`."""
    return {
        "trace": path.name,
        "packets": trace.packets,
        "messages": len(trace.events),
        "unreadable": trace.unreadable,
        "passed_over": calls.passed_over,
        "calls_without_invite": calls.without_invite,
        "calls": [_attempt_object(one) for one in played],
        "differing": sum(one.verdict is ReplayResult.DIFFERS for one in played),
    }


def _attempt_object(one: PlayResult) -> dict[str, Any]:
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


def _contents(trace: Trace, calls: TraceCalls) -> str:
    parts = [f"{trace.packets} packets", f"{len(trace.events)} SIP messages", f"{len(calls.attempts)} INVITE attempts"]
    if calls.passed_over:
        methods = ", ".join(f"{count} {method}" for method, count in sorted(calls.passed_over.items()))
        parts.append(f"passed over: {methods}")
    if calls.without_invite:
        parts.append(f"{calls.without_invite} calls without their INVITE")
    if trace.unreadable:
        parts.append(f"{trace.unreadable} unreadable")
    return "; ".join(map(localised, parts))


def _remarkable(one: PlayResult) -> list[Finding]:
    return [finding for finding in one.findings if finding.verdict is not ReplayResult.ALIKE]


def _words(finding: Finding) -> str:
    what = f"{finding.step}: {finding.words}" if finding.step else finding.words
    return f"as designed: {what}" if finding.verdict is ReplayResult.DESIGNED else what


def _summary(played: Sequence[PlayResult]) -> str:
    if not played:
        return "No call to replay."
    count = Counter(one.verdict for one in played)
    designed = f", {count[ReplayResult.DESIGNED]} except for changes by design" if count[ReplayResult.DESIGNED] else ""
    alike = count[ReplayResult.ALIKE] + count[ReplayResult.DESIGNED]
    return f"{alike} of {len(played)} attempts alike{designed}; {count[ReplayResult.DIFFERS]} differ."
