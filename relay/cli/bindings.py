"""`relay700 bind`, `unbind` and `bindings`: the numbers that are bound, changed and ended by hand or from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, get_args

import click

from relay.call.binding import MODES, Binding
from relay.call.numbers import is_700, mask_number
from relay.cli import config_option
from relay.cli.options import (
    NONE,
    in_clear,
    json_option,
    limit_option,
    reason_option,
    showing_options,
    shown_object_options,
    stacked,
)
from relay.cli.output import (
    BINDING_HEADING,
    binding_object,
    binding_row,
    first_of,
    json_line,
    masked_binding,
    show_list,
    show_one,
    table,
)
from relay.cli.progress import file_progress
from relay.cli.stores import Opened, audit_reading, number, opened, past, required, said_in_clear
from relay.service import changes
from relay.service.bindings import BindingRequest
from relay.service.bindings import bind as make_binding
from relay.service.changes import BindingChange
from relay.service.fields import DIRECTIONS
from relay.service.filings import filing_warning
from relay.service.imports import COLUMNS, import_bindings
from relay.store.act import Act
from relay.store.bindings import BindingQuery, State, all_bindings, find_binding
from relay.store.writer import now_ms

# What a mode cannot do without.
_NEEDED = {
    "AXB": ("a", "b"),
    "AXYB": ("a", "b"),
    "GXB": ("group_id", "b"),
    "GXYB": ("group_id", "b"),
    "AXN": ("a",),
}
_OPTIONS = {"group_id": "--group"}
_SHOWN_EVERY = 500  # lines of an import: how far it has come

_restrictions = stacked(
    click.option("--direction", type=click.Choice(DIRECTIONS), help="Who may call whom; members of a group are a."),
    click.option("--max-call", "max_call_s", type=int, metavar="SECONDS", help="How long a call may last."),
    click.option("--ring-timeout", "ring_timeout_s", type=int, metavar="SECONDS", help="How long it may ring."),
    click.option("--hours", metavar="HH:MM-HH:MM", help="Of service, in China time."),
    click.option("--user-data", metavar="TEXT", help="Comes back with each event."),
    click.option(
        "--industrial-id", metavar="ID", help="Of the goods or the order in the industrial internet: 88.101.1/1."
    ),
)


@click.command()
@click.argument("mode", type=click.Choice(MODES, case_sensitive=False), metavar="|".join(MODES))
@click.option("--a", default="", metavar="NUMBER", help="One party's real number, of an allowed kind.")
@click.option("--b", default="", metavar="NUMBER", help="The other party's.")
@click.option("--group", "group_id", default="", metavar="ID", help="GXB, GXYB: whose members call b.")
@click.option("--x", default="", metavar="NUMBER", help="The 700 number that a dials; if not given, a free one.")
@click.option("--y", default="", metavar="NUMBER", help="AXYB, GXYB: the 700 number that b dials; likewise.")
@click.option("--pool", default="", metavar="ID", help="The pool to choose from.")
@click.option("--area", default="", metavar="TEXT", help="Choose from a pool of this area.")
@click.option(
    "--expires-in",
    "--expires-at",
    "expires_in",
    default="",
    metavar="TIME",
    help="90s, 30m, 2h, 7d, or a time as 2026-01-31T08:00:00Z. Without it: until it is unbound.",
)
@click.option("--order", "order_id", default="", metavar="TEXT", help="The order that this binding serves.")
@click.option("--business", default="", metavar="ID", help="The business user; if not given, `default`.")
@click.option("--consent", default="", metavar="TEXT", help="Reference of the parties' consent.")
@click.option("--white-only", is_flag=True, help="Let only callers on the whitelist in.")
@click.option("--record", is_flag=True, help="Record its calls; both sides are told so first.")
@_restrictions
@shown_object_options
@config_option
def bind(config_path: Path | None, as_json: bool, reason: str, **asked: Any) -> None:
    """Let parties call each other through a 700 number."""
    for needed in _NEEDED[asked["mode"]]:
        if not asked[needed]:
            raise click.UsageError(
                f"Missing option '{_OPTIONS.get(needed, f'--{needed}')}': {asked['mode']} bindings have it."
            )
    clear = in_clear(reveal=False, reason=reason, as_json=as_json)
    request = BindingRequest(**{name: value for name, value in asked.items() if value is not None})
    with opened(config_path, make=True) as store:
        binding = _made(store, lambda act: make_binding(act, request, store.rules), reason, clear=clear)
        _warn(store, binding)
    if as_json:
        _show(binding, as_json=True, clear=clear)
        return
    click.echo(f"binding {binding.binding_id}")
    for line in _who_dials(binding):
        click.echo(line)


def _made(store: Opened, make: Callable[[Act], Binding], reason: str, *, clear: bool) -> Binding:
    """Makes or changes a binding. Where it is shown in clear, the audit log says so, or nothing is done."""

    def make_and_say(act: Act) -> Binding:
        binding = make(act)
        if clear:
            audit_reading(act, binding.binding_id, reason)
        return binding

    return store.act(make_and_say)


def _warn(store: Opened, binding: Binding) -> None:
    if warning := filing_warning(store.reader, store.sealer, binding, store.rules):
        click.echo(f"warning: {warning}", err=True)


def _who_dials(binding: Binding) -> list[str]:
    a, b = mask_number(binding.a or ""), mask_number(binding.b or "")
    x, y = binding.x, binding.y or binding.x
    match binding.mode:
        case "AXB":
            return [f"{a} and {b} dial {x} to reach each other"]
        case "AXYB":
            return [f"{a} dials {x} to reach {b}", f"{b} dials {y} to reach {a}"]
        case "AXN":
            back = f"who called last{f', else {b}' * bool(b)}"
            return [f"anybody dials {x} to reach {a}", f"{a} dials {x} to reach {back}"]
        case "GXB" | "GXYB":
            back = f"the member who called last{f', else {a}' * bool(a)}"
            members = f"members of {binding.group_id}"
            return [f"{members} dial {x} to reach {b}", f"{b} dials {y} to reach {back}"]


@click.command()
@click.argument("binding_id")
@reason_option
@config_option
def unbind(config_path: Path | None, binding_id: str, reason: str) -> None:
    """End a binding: the next call is refused."""
    with opened(config_path) as store:
        binding = store.act(lambda act: changes.end(act, binding_id, store.rules, reason))
    click.echo(f"unbound {binding.binding_id}")


@click.group()
def bindings() -> None:
    """List, show, change or import bindings."""


@bindings.command("list")
@click.option("--number", type=number, metavar="NUMBER", help="Only those of this 700 number or party.")
@click.option("--order", metavar="TEXT", help="Only those of this order.")
@click.option("--business", metavar="ID", help="Only those of this business user.")
@click.option("--mode", type=click.Choice(MODES), help="Only those of this mode.")
@click.option("--group", "group_id", metavar="ID", help="Only those of this group.")
@click.option("--state", type=click.Choice(get_args(State)), help="Only those in this state.")
@click.option("--live", "state", flag_value="live", help="Only those in force now: --state live.")
@click.option("--since", type=past, metavar="TIME", help="Only those made since: 2026-01-31T08:00:00Z, or 2h (ago).")
@limit_option
@showing_options
@config_option
def list_(config_path: Path | None, limit: int | None, as_json: bool, reveal: bool, reason: str, **asked: Any) -> None:
    """List bindings, also those that have ended, the newest first."""
    number, order, since = (asked.pop(name) for name in ("number", "order", "since"))
    query = BindingQuery(either=number, order_id=order, since_ms=since, **asked)
    with opened(config_path) as store:
        now, clear = now_ms(), in_clear(reveal=reveal, reason=reason, as_json=as_json)
        if clear:
            details = asked | {"number": number, "order": order, "since": since}
            said_in_clear(store, number if number and is_700(number) else "bindings", reason, details)
        found = first_of(all_bindings(store.reader, store.sealer, query, now, newest_first=True), limit)
        if as_json:
            for binding in found:
                click.echo(json_line(masked_binding(binding, now, clear=clear)))
            return
        for line in table(BINDING_HEADING, (binding_row(binding, now, reveal=clear) for binding in found)):
            click.echo(line)


@bindings.command("show")
@click.argument("binding_id")
@showing_options
@config_option
def show_(config_path: Path | None, binding_id: str, as_json: bool, reveal: bool, reason: str) -> None:
    """Show one binding."""
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    with opened(config_path) as store:
        binding = _found_one(store, binding_id)
        if clear:
            said_in_clear(store, binding_id, reason)
    _show(binding, as_json=as_json, clear=clear)


def _found_one(store: Opened, binding_id: str) -> Binding:
    return required(find_binding(store.reader, store.sealer, binding_id), "binding", "bindings list")


def _show(binding: Binding, *, as_json: bool, clear: bool = False) -> None:
    show_one(masked_binding(binding, now_ms(), clear=clear), as_json=as_json)


@bindings.command("history")
@click.argument("binding_id")
@json_option
@config_option
def history(config_path: Path | None, binding_id: str, as_json: bool) -> None:
    """List who made, changed and unbound a binding, and when; never what was in it."""
    with opened(config_path) as store:
        steps = changes.steps(store.reader, store.sealer, _found_one(store, binding_id))
    show_list(steps, ("at", "action", "by", "changed"), as_json=as_json)


@bindings.command("change")
@click.argument("binding_id")
@click.option("--a", metavar="NUMBER")
@click.option("--b", metavar="NUMBER")
@click.option("--group", "group_id", metavar="ID")
@click.option("--expires-in", "--expires-at", "expires_in", metavar="TIME|none", help="none: until it is unbound.")
@_restrictions
@click.option("--white-only/--all-callers", default=None, help="Let only callers on the whitelist in.")
@click.option("--record/--no-record", default=None, help="Record its calls; both sides are told so first.")
@shown_object_options
@config_option
def change(config_path: Path | None, binding_id: str, as_json: bool, reason: str, **asked: Any) -> None:
    """Change a binding from the next call on. What is not named stays; "none" takes away what need not be there."""
    clear = in_clear(reveal=False, reason=reason, as_json=as_json)
    for name, value in asked.items():
        asked[name] = "" if value == NONE else value
    with opened(config_path) as store:
        wanted = BindingChange(**asked)
        changed = _made(store, lambda act: changes.change(act, binding_id, wanted, store.rules), reason, clear=clear)
        _warn(store, changed)
    _show(changed, as_json=as_json, clear=clear)


@bindings.command("renew")
@click.argument("binding_id")
@click.option("--expires-in", "--expires-at", "expires_in", required=True, metavar="TIME")
@shown_object_options
@config_option
def renew(config_path: Path | None, binding_id: str, expires_in: str, as_json: bool, reason: str) -> None:
    """Set another expiry for a binding that is in force."""
    clear = in_clear(reveal=False, reason=reason, as_json=as_json)
    with opened(config_path) as store:
        changed = _made(store, lambda act: changes.renew(act, binding_id, expires_in, store.rules), reason, clear=clear)
    if as_json:
        _show(changed, as_json=True, clear=clear)
    else:
        click.echo(f"{changed.binding_id} expires {binding_object(changed, now_ms())['expires_at']}")


@bindings.command("import", epilog=f"Columns: {','.join(COLUMNS)}. A first line may name them in another order.")
@click.argument("file", type=click.File(encoding="utf-8-sig", errors="surrogateescape"))
@config_option
def import_(config_path: Path | None, file: TextIO) -> None:
    """Make a binding of each line of a CSV file (- for standard input).

    Bad lines are named and left out; the exit status is 1 then.
    """
    good = bad = 0
    with opened(config_path, make=True) as store, file_progress(file, "bindings") as done:
        for outcome in import_bindings(file, store.act, store.rules):
            if (good + bad) % _SHOWN_EVERY == 0:
                done()
            if outcome.refused is None:
                good += 1
                continue
            bad += 1
            click.echo(f"line {outcome.line}: {outcome.refused}", err=True)
    click.echo(f"{good} imported, {bad} refused")
    if bad:
        raise click.exceptions.Exit(1)
