"""`relay700 traceback`: who was behind a number. The police wait for it, so it imports little beside what it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from relay.cli import config_option, localised, say
from relay.cli.options import json_option, moment, needed_reason, number, opened
from relay.cli.output import binding_object, json_line, record_object
from relay.errors import StoreError
from relay.model.binding import Binding
from relay.model.call import CallRecord
from relay.model.numbers import mask_number
from relay.reports.disclosure import Traceback, ask_trace, span_of, trace
from relay.service.fields import format_moment
from relay.store.writer import now_ms


@click.command()
@click.argument("number", type=number)
@click.option(
    "--at",
    "at_ms",
    type=moment,
    metavar="TIME",
    help="Time, such as 2026-01-31T16:00+08:00: a minute stands for its sixty seconds, a second for that second.",
)
@click.option("--from", "since_ms", type=moment, metavar="TIME", help="Instead of --at: beginning of a span of time.")
@click.option(
    "--to", "until_ms", type=moment, metavar="TIME", help="End of that span, not included; at most 31 days later."
)
@needed_reason
@json_option
@config_option
def traceback(
    config_path: Path | None,
    number: str,
    at_ms: int | None,
    since_ms: int | None,
    until_ms: int | None,
    reason: str,
    as_json: bool,
) -> None:
    """Show who was behind a number at a time.

    NUMBER is a 700 number or a party, a foreign one with "+". Shows order, business user, parties and calls of that
    time, numbers in clear.
    """
    span = _span(at_ms, since_ms, until_ms)
    with opened(config_path) as store:
        asked = store.run(lambda unit: ask_trace(unit, number, *span, reason))
        found = trace(store.config.store.path, store.sealer, asked)
    since, until = map(format_moment, span)
    if not found.bindings and not found.calls:
        raise StoreError(f"{mask_number(number)} was neither bound nor in a call from {since} to {until}")
    if as_json:
        click.echo(json_line(_trace_object(found)))
        return
    say(f"{number} from {since} to {until}")
    for binding in found.bindings:
        _print_binding(binding, found.members)
    for record in found.calls:
        _print_call(record)


def _span(at_ms: int | None, since_ms: int | None, until_ms: int | None) -> tuple[int, int]:
    """The span of time that the options name. Raises UsageError."""
    if at_ms is not None and since_ms is until_ms is None:
        return span_of(at_ms)
    if at_ms is not None or since_ms is None or until_ms is None:
        raise click.UsageError("write either --at TIME, or --from TIME and --to TIME")
    return since_ms, until_ms


def _trace_object(found: Traceback) -> dict[str, Any]:
    now = now_ms()
    bindings = [
        binding_object(binding, now) | ({"members": found.members[binding.group_id]} if binding.group_id else {})
        for binding in found.bindings
    ]
    calls = [record_object(record) for record in found.calls]
    return {
        "number": found.number,
        "at": format_moment(found.since_ms),
        "until": format_moment(found.until_ms),
        "bindings": bindings,
        "calls": calls,
    }


def _print_binding(binding: Binding, members: dict[str, list[str]]) -> None:
    values = binding_object(binding, now_ms())
    say(f"binding {binding.binding_id}: {binding.mode}, {values['state']}")
    say(f"  business {binding.business}, order {binding.order_id or '-'}")
    if binding.industrial_id:
        say(f"  industrial id {binding.industrial_id}")
    click.echo(f"  x {binding.x}" + (f", y {binding.y}" if binding.y else ""))
    click.echo(f"  a {binding.a or '-'}, b {binding.b or '-'}")
    if binding.group_id:
        say(f"  group {binding.group_id}: {' '.join(members[binding.group_id]) or 'nobody'}")
    ends = values["ended_at"] or values["expires_at"] or "open"
    say(f"  from {values['created_at']} to {ends}")


def _print_call(record: CallRecord) -> None:
    values = record_object(record)
    say(f"{record.kind} {record.call_id}: {record.outcome or 'live'}, binding {record.binding_id or '-'}")
    who, whom = record.caller or "anonymous", record.callee or localised("nobody")
    did = f"dialled {record.number_dialled}" if record.kind == "call" else f"texted {record.number_dialled}"
    say(f"  {who} {did}, reached {whom}")
    say(f"  from {values['received_at']} to {values['ended_at'] or 'now'}")
