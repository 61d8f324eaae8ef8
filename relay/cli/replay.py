"""`relay700 replay`: play a capture's calls through a running relay."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from relay.cli import config_option
from relay.cli.output import json_line
from relay.cli.stores import opened
from relay.replay import report
from relay.replay.performance import perform
from relay.replay.player import Pace, Verdict
from relay.replay.script import find_calls
from relay.replay.stage import bound, set_stage
from relay.replay.trace import Endpoint, read_trace


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
    help="Local address of the callees, that of a [[peer]]. Default: the peer that is first in all [[route]]s.",
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
    bindings that are made for the replay and ended with it. Exit status 0 if the relayed calls match the capture, but
    for intended differences; 1 if a call differs.
    """
    read = read_trace(trace)
    calls = find_calls(read)
    pace = Pace(speed, longest_pause, patience)
    with opened(config_path, make=True) as store:
        settings = store.config.settings
        stage = set_stage(settings, to, caller_address, callee_address)
        with bound(calls.attempts, settings, stage, store.act, store.rules) as casts:
            played = asyncio.run(perform(calls.attempts, stage, casts, pace))
    if as_json:
        click.echo(json_line(report.report_object(trace, read, calls, played)))
    else:
        for line in report.lines(trace, read, calls, played):
            click.echo(line)
    context.exit(any(one.verdict is Verdict.DIFFERS for one in played))
