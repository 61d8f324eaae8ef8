"""`relay700 calls`, `trace` and `verify`: what was called, who was behind a number, whether the records are whole."""

from __future__ import annotations

from pathlib import Path

import click

from relay.call.binding import Binding
from relay.call.numbers import mask_number
from relay.call.record import CallRecord
from relay.cli import config_option
from relay.cli.bindings import json_option, reveal_option
from relay.cli.output import (
    RECORD_HEADING,
    binding_object,
    json_line,
    record_object,
    record_row,
    shower,
    table,
)
from relay.cli.stores import moment, now_ms, number, opened, past
from relay.errors import StoreError
from relay.service.times import format_moment


@click.group()
def calls() -> None:
    """List call records."""


@calls.command("list")
@click.option("--number", type=number, metavar="NUMBER", help="Only those of this 700 number or party, in any role.")
@click.option(
    "--since", type=past, metavar="TIME", help="From this time on: 2026-01-31T08:00:00Z, or 2h for the last two hours."
)
@click.option("--live", is_flag=True, help="Only calls that are up.")
@json_option
@reveal_option
@config_option
def list_(
    config_path: Path | None, number: str | None, since: int | None, live: bool, as_json: bool, reveal: bool
) -> None:
    """List all attempts: ended, refused and up.

    A call is here once it is answered or has ended, not while it rings.
    """
    with opened(config_path) as store:
        found = store.records.find(number, since, live=live)
        if as_json:
            for record in found:
                click.echo(json_line(record_object(record)))
            return
        show = shower(reveal=reveal)
        for line in table(RECORD_HEADING, (record_row(record, show) for record in found)):
            click.echo(line)


@click.command()
@click.argument("number", type=number)
@click.option("--at", "at_ms", type=moment, required=True, metavar="TIME", help="As 2026-01-31T16:00:00+08:00.")
@json_option
@config_option
def trace(config_path: Path | None, number: str, at_ms: int, as_json: bool) -> None:
    """Tell who was behind a number at a time.

    The order, the business user, the parties and the calls going on. Real numbers are in clear.
    """
    with opened(config_path) as store:
        bindings = list(store.bindings.of_number(number, at_ms))
        going_on = list(store.records.up_at(number, at_ms))
    if not bindings and not going_on:
        raise StoreError(f"{mask_number(number)} was not bound and in no call at {format_moment(at_ms)}")
    now = now_ms()
    if as_json:
        objects = {
            "bindings": [binding_object(binding, now) for binding in bindings],
            "calls": [record_object(record) for record in going_on],
        }
        click.echo(json_line({"number": number, "at": format_moment(at_ms), **objects}))
        return
    click.echo(f"{number} at {format_moment(at_ms)}")
    for binding in bindings:
        _print_binding(binding, now)
    for record in going_on:
        _print_call(record)


def _print_binding(binding: Binding, now: int) -> None:
    values = binding_object(binding, now)
    click.echo(f"binding {binding.binding_id}: {binding.mode}, {values['state']}")
    click.echo(f"  business {binding.business}, order {binding.order_id or '-'}")
    click.echo(f"  x {binding.x}" + (f", y {binding.y}" if binding.y else ""))
    click.echo(f"  a {binding.a}, b {binding.b}")
    ends = values["ended_at"] or values["expires_at"] or "open"
    click.echo(f"  from {values['created_at']} to {ends}")


def _print_call(record: CallRecord) -> None:
    values = record_object(record)
    click.echo(f"call {record.call_id}: {record.outcome or 'live'}, binding {record.binding_id or '-'}")
    click.echo(f"  {record.caller or 'anonymous'} dialled {record.number_dialled}, reached {record.callee or 'nobody'}")
    click.echo(f"  from {values['received_at']} to {values['ended_at'] or 'now'}")


@click.command()
@config_option
def verify(config_path: Path | None) -> None:
    """Check the chain of call records.

    Keep what it prints in another place: fewer records at a later time, or another head for as many, show that an older
    copy of the database was put back.
    """
    with opened(config_path) as store:
        verdict = store.records.verify()
    if verdict.broken is not None:
        raise StoreError(f"broken after {verdict.intact} intact records: {verdict.broken}")
    click.echo(f"{verdict.intact} records intact, {verdict.live} live, head {verdict.head.hash.hex() or '-'}")
