"""`relay700 bind`, `unbind` and `bindings`: the numbers that are bound, made and ended by hand or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from relay.call.binding import Binding
from relay.call.numbers import mask_number
from relay.cli import config_option
from relay.cli.output import BINDING_HEADING, binding_object, binding_row, json_line, shower, table
from relay.cli.stores import now_ms, number, opened
from relay.errors import StoreError
from relay.service.bindings import BindingRequest
from relay.service.bindings import bind as make_binding
from relay.service.changes import end
from relay.service.imports import COLUMNS, import_bindings

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, real numbers in clear.")
reveal_option = click.option("--reveal", is_flag=True, help="Show real numbers in full.")


@click.command()
@click.argument("mode", metavar="AXB|AXYB")
@click.option("--a", required=True, metavar="NUMBER", help="One party's real number, or an extension.")
@click.option("--b", required=True, metavar="NUMBER", help="The other party's.")
@click.option("--x", default="", metavar="NUMBER", help="The 700 number that a dials; a free one is chosen otherwise.")
@click.option("--y", default="", metavar="NUMBER", help="AXYB: the 700 number that b dials; likewise.")
@click.option(
    "--expires-in",
    "--expires-at",
    "expires_in",
    default="",
    metavar="TIME",
    help="90s, 30m, 2h, 7d, or a time as 2026-01-31T08:00:00Z. Without it: until it is unbound.",
)
@click.option("--order", default="", metavar="TEXT", help="The order that this binding serves.")
@click.option("--business", default="", metavar="ID", help="The business user; `default` otherwise.")
@json_option
@config_option
def bind(  # one parameter an option
    config_path: Path | None,
    mode: str,
    a: str,
    b: str,
    x: str,
    y: str,
    expires_in: str,
    order: str,
    business: str,
    as_json: bool,
) -> None:
    """Let two parties call each other through a 700 number."""
    request = BindingRequest(mode, a, b, x, y, expires_in, order, business)
    with opened(config_path, make=True) as store:
        binding = store.act(lambda act: make_binding(act, request, store.rules))
    if as_json:
        click.echo(json_line(binding_object(binding, now_ms())))
        return
    click.echo(f"binding {binding.binding_id}")
    for line in _who_dials(binding):
        click.echo(line)


def _who_dials(binding: Binding) -> list[str]:
    a, b = mask_number(binding.a or ""), mask_number(binding.b or "")
    if binding.y is None:
        return [f"{a} and {b} dial {binding.x} to reach each other"]
    return [f"{a} dials {binding.x} to reach {b}", f"{b} dials {binding.y} to reach {a}"]


@click.command()
@click.argument("binding_id")
@config_option
def unbind(config_path: Path | None, binding_id: str) -> None:
    """End a binding: the next call is refused."""
    with opened(config_path) as store:
        binding = store.act(lambda act: end(act, binding_id, store.rules))
    click.echo(f"unbound {binding.binding_id}")


@click.group()
def bindings() -> None:
    """List, show or import bindings."""


@bindings.command("list")
@click.option("--number", type=number, metavar="NUMBER", help="Only those of this 700 number or party.")
@click.option("--live", is_flag=True, help="Only those in force now.")
@json_option
@reveal_option
@config_option
def list_(config_path: Path | None, number: str | None, live: bool, as_json: bool, reveal: bool) -> None:
    """List bindings, also those that have ended."""
    with opened(config_path) as store:
        now = now_ms()
        at = now if live else None
        found = store.bindings.all(at) if number is None else store.bindings.of_number(number, at)
        if as_json:
            for binding in found:
                click.echo(json_line(binding_object(binding, now)))
            return
        show = shower(reveal=reveal)
        for line in table(BINDING_HEADING, (binding_row(binding, now, show) for binding in found)):
            click.echo(line)


@bindings.command("show")
@click.argument("binding_id")
@json_option
@reveal_option
@config_option
def show_(config_path: Path | None, binding_id: str, as_json: bool, reveal: bool) -> None:
    """Show one binding."""
    with opened(config_path) as store:
        binding = store.bindings.get(binding_id)
    if binding is None:
        raise StoreError("there is no such binding: `relay700 bindings list` shows them")
    values = binding_object(binding, now_ms())
    if as_json:
        click.echo(json_line(values))
        return
    show = shower(reveal=reveal)
    values |= {"a": show(binding.a or "") or None, "b": show(binding.b or "") or None}
    for name, value in values.items():
        click.echo(f"{name:<11} {'-' if value is None else value}")


@bindings.command("import", epilog=f"Columns: {','.join(COLUMNS)}. A first line may name them in another order.")
@click.argument("file", type=click.File(encoding="utf-8-sig", errors="surrogateescape"))
@config_option
def import_(config_path: Path | None, file: TextIO) -> None:
    """Make a binding of each line of a CSV file (- for standard input).

    Bad lines are named and left out; the exit status is 1 then.
    """
    good = bad = 0
    with opened(config_path, make=True) as store:
        for outcome in import_bindings(file, store.act, store.rules):
            if outcome.refused is None:
                good += 1
                continue
            bad += 1
            click.echo(f"line {outcome.line}: {outcome.refused}", err=True)
    click.echo(f"{good} imported, {bad} refused")
    if bad:
        raise click.exceptions.Exit(1)
