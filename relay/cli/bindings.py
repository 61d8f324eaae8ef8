"""`relay700 bind`, `unbind` and `bindings`: make, list, change, end and import bindings."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO, get_args

import click

from relay.cli import config_option, say
from relay.cli.operations import Command, command_of
from relay.cli.options import (
    NONE,
    SINCE,
    in_clear,
    json_option,
    limit_option,
    number,
    opened,
    past,
    said_in_clear,
    showing_options,
)
from relay.cli.output import (
    BINDING_HEADING,
    binding_row,
    file_progress,
    first_of,
    json_line,
    masked_binding,
    shower_of_text,
    table,
)
from relay.model.binding import LATE_MODES, MODES
from relay.model.numbers import is_700, normalise_party
from relay.operations import bindings as operations
from relay.operations.bindings import BindingResponse
from relay.policy.rules import DEFAULT_BUSINESS
from relay.service import fields
from relay.service.fields import LONGEST_ORDER
from relay.service.hand_over import HandOver, HandOverResult, hand_over
from relay.service.imports import COLUMNS, import_bindings
from relay.store.bindings import BindingQuery, State, all_bindings
from relay.store.writer import now_ms

# Required options of each mode.
_NEEDED: Final = {
    "AXB": ("a", "b"),
    "AXYB": ("a", "b"),
    "GXB": ("group_id", "b"),
    "GXYB": ("group_id", "b"),
    "AXN": ("a",),
}
_OPTIONS: Final = {"group_id": "--group"}
_STEP_COLUMNS = ("at", "action", "by", "changed")
_SHOWN_EVERY: Final = 500  # lines of an import between two updates of the progress bar
_command = partial(Command, id_as="binding_id", listed_by="bindings list")


def _check_needed(asked: dict[str, Any]) -> None:
    for needed in _NEEDED[asked["mode"]]:
        if not asked[needed] and not (asked["late"] and needed == "a"):
            rather = ", unless --late" if needed == "a" and asked["mode"] in LATE_MODES else ""
            raise click.UsageError(
                f"Missing option '{_OPTIONS.get(needed, f'--{needed}')}': {asked['mode']} bindings need it{rather}."
            )


def _tell_made(made: BindingResponse) -> None:
    say(f"binding {made.id}")
    if made.expires_at is None:
        say(f"it has no end: end it by `relay700 unbind {made.id}`, or bind with --expires-in", err=True)
    for line in _who_dials(made):
        say(line)


def _who_dials(binding: BindingResponse) -> list[str]:
    a, b = binding.a or "", binding.b or ""
    x, y = binding.x, binding.y or binding.x
    if binding.a is None and binding.mode in LATE_MODES:
        return [f"nobody reaches {b} yet: give a by bindings change; a will dial {x}, and {b} dials {y}"]
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


bind = command_of(
    "bind",
    _command(operations.make_binding, told=_tell_made, check=_check_needed, makes=True),
    arguments=["mode"],
    help="""Let parties call each other through a 700 number.

    \b
    AXB   a and b dial x to reach each other
    AXYB  a dials x to reach b, b dials y to reach a
    GXB   members of a group dial x to reach b, b dials x to reach the last caller, else a
    GXYB  the same, but b dials y
    AXN   anybody dials x to reach a, a dials x to reach the last caller, else b
    """,
)
unbind = command_of("unbind", _command(operations.end_binding, says="unbound {binding_id}"))


@click.group()
def bindings() -> None:
    """List, show, change and import bindings."""


@bindings.command("list")
@click.option("--number", type=number, metavar="NUMBER", help="Only bindings of this 700 number or party.")
@click.option("--order", metavar="TEXT", help="Only bindings of this order.")
@click.option("--business", metavar="ID", help="Only bindings of this business user.")
@click.option("--mode", type=click.Choice(MODES), help="Only bindings of this mode.")
@click.option("--group", "group_id", metavar="ID", help="Only bindings of this group.")
@click.option("--state", type=click.Choice(get_args(State)), help="Only bindings in this state.")
@click.option("--live", "state", flag_value="live", help="Same as --state live: bindings in force.")
@click.option("--since", type=past, metavar="TIME", help=SINCE)
@limit_option
@showing_options
@config_option
def list_(config_path: Path | None, limit: int | None, as_json: bool, reveal: bool, reason: str, **asked: Any) -> None:
    """List bindings, ended ones included, newest first."""
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


def _tell_renewed(renewed: BindingResponse) -> None:
    latest = f", at the latest {renewed.max_expires_at}" if renewed.max_expires_at else ""
    say(f"{renewed.id} expires {renewed.expires_at}{latest}")


bindings.add_command(command_of("show", _command(operations.show_binding)))
bindings.add_command(command_of("history", _command(operations.show_history, columns=_STEP_COLUMNS)))
bindings.add_command(command_of("change", _command(operations.change_binding)))
bindings.add_command(command_of("renew", _command(operations.renew_binding, told=_tell_renewed)))


@bindings.command("hand-over")
@click.option("--to", "to_a", required=True, metavar="NUMBER|none", help="The new party a; none: nobody for now.")
@click.option("--from", "from_a", default="", metavar="NUMBER", help="Only bindings whose party a it is.")
@click.option("--order", "order_ids", multiple=True, metavar="TEXT", help="Orders. Default: all bindings of --from.")
@click.option(
    "--orders",
    "file",
    type=click.File(encoding="utf-8-sig", errors="surrogateescape"),
    help="Orders, one a line (- for standard input).",
)
@click.option("--business", default=DEFAULT_BUSINESS, metavar="ID", help="Business user. Default: `default`.")
@json_option
@config_option
def hand_over_(
    config_path: Path | None,
    to_a: str,
    from_a: str,
    order_ids: tuple[str, ...],
    file: TextIO | None,
    business: str,
    as_json: bool,
) -> None:
    """Give many bindings another party a.

    The numbers stay, as with a parcel whose courier changes. Prints what was refused; the exit status is then 1.
    """
    asked = [("order", order) for order in order_ids]
    asked += [(f"line {line}", order) for line, order in enumerate(file or (), 1)]
    written = [fields.text(field, order.strip(), LONGEST_ORDER) for field, order in asked]
    orders = list(dict.fromkeys(order for order in written if order is not None))
    if not orders and not from_a:
        raise click.UsageError("Missing option '--order', '--orders' or '--from': which bindings?")
    results: list[HandOverResult] = []
    with opened(config_path) as store:
        new = "" if to_a == NONE else to_a
        wanted = HandOver(
            business,
            fields.party("to", new, store.rules.parties),
            fields.parsed("from", from_a, normalise_party) if from_a else None,
            orders,
        )
        after: str | None = ""
        while after is not None:
            done, after = store.run(partial(hand_over, asked=wanted, after=after, rules=store.rules))
            results += done
    refused = [result for result in results if result.refused is not None]
    show_text = shower_of_text(reveal=bool(orders))  # orders that were given are printed as given
    for result in results if as_json else refused:
        order = result.order_id and show_text(result.order_id)
        problem = None if result.refused is None else str(result.refused)
        if as_json:
            click.echo(json_line(result._asdict() | {"order_id": order, "refused": problem}))
        else:
            say(f"{order or result.binding_id}: {problem}", err=True)
    if not as_json:
        say(f"{len(results) - len(refused)} handed over, {len(refused)} refused")
    if refused:
        raise click.exceptions.Exit(1)


@bindings.command("import", epilog=f"Columns: {','.join(COLUMNS)}. A header line may give them in another order.")
@click.argument("file", type=click.File(encoding="utf-8-sig", errors="surrogateescape"))
@config_option
def import_(config_path: Path | None, file: TextIO) -> None:
    """Make a binding from each line of a CSV file.

    FILE may be - for standard input. Bad lines are reported and skipped; the exit status is then 1.
    """
    good = bad = 0
    with opened(config_path, make=True) as store, file_progress(file, "bindings") as done:
        for outcome in import_bindings(file, store.run, store.rules):
            if (good + bad) % _SHOWN_EVERY == 0:
                done()
            if outcome.refused is None:
                good += 1
                continue
            bad += 1
            say(f"line {outcome.line}: {outcome.refused}", err=True)
    say(f"{good} imported, {bad} refused")
    if bad:
        raise click.exceptions.Exit(1)
