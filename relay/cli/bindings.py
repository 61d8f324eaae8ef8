"""`relay700 bind`, `unbind` and `bindings`: make, list, change, end and import bindings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TextIO, get_args

import click

from relay.cli import config_option, say
from relay.cli.options import (
    NONE,
    SINCE,
    Opened,
    audit_reading,
    in_clear,
    json_option,
    limit_option,
    number,
    opened,
    past,
    reason_option,
    required,
    said_in_clear,
    showing_options,
    shown_object_options,
    stacked,
)
from relay.cli.output import (
    BINDING_HEADING,
    binding_object,
    binding_row,
    file_progress,
    first_of,
    json_line,
    masked_binding,
    show_list,
    show_one,
    shower_of_text,
    table,
)
from relay.model.binding import LATE_MODES, MODES, Binding
from relay.model.numbers import is_700, mask_number, normalise_party
from relay.policy.rules import DEFAULT_BUSINESS
from relay.service import bindings as service
from relay.service import fields
from relay.service.fields import DIRECTIONS, LONGEST_ORDER
from relay.service.filings import filing_warning
from relay.service.hand_over import HandedOver, HandOver, hand_over
from relay.service.imports import COLUMNS, import_bindings
from relay.service.placement import AreaMatch, PlacementRequest
from relay.store.bindings import BindingQuery, State, all_bindings, find_binding
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms

# Required options of each mode.
_NEEDED = {
    "AXB": ("a", "b"),
    "AXYB": ("a", "b"),
    "GXB": ("group_id", "b"),
    "GXYB": ("group_id", "b"),
    "AXN": ("a",),
}
_OPTIONS = {"group_id": "--group"}
_SHOWN_EVERY = 500  # lines of an import between two updates of the progress bar

_STEP_COLUMNS = ("at", "action", "by", "changed")
_EXPIRY = "90s, 30m, 2h, 7d, or a time: 2026-01-31T08:00:00Z, or 2026-01-31 for midnight in China."

_restrictions = stacked(
    click.option("--direction", type=click.Choice(DIRECTIONS), help="Who may call; members of a group count as a."),
    click.option("--max-call", "max_call_s", type=int, metavar="SECONDS", help="Maximum length of a call."),
    click.option("--ring-timeout", "ring_timeout_s", type=int, metavar="SECONDS", help="Maximum ringing time."),
    click.option(
        "--idle-ttl",
        "idle_ttl_s",
        type=int,
        metavar="SECONDS",
        help="End so long after the last call; --expires-in is then the latest end.",
    ),
    click.option("--hours", metavar="HH:MM-HH:MM", help="Service hours, China time."),
    click.option("--user-data", metavar="TEXT", help="Text that each event returns."),
    click.option(
        "--industrial-id",
        metavar="ID",
        help="Industrial-internet identifier of the goods or the order, such as 88.101.1/1.",
    ),
)


@click.command()
@click.argument("mode", type=click.Choice(MODES, case_sensitive=False), metavar="|".join(MODES))
@click.option("--a", default="", metavar="NUMBER", help="Real number of party a, of a kind in [numbers] parties.")
@click.option("--b", default="", metavar="NUMBER", help="Real number of party b.")
@click.option(
    "--late",
    is_flag=True,
    help="AXB, AXYB: make the binding without a. Its calls are refused until `bindings change --a` has set it.",
)
@click.option("--group", "group_id", default="", metavar="ID", help="GXB, GXYB: group whose members call b.")
@click.option("--x", default="", metavar="NUMBER", help="700 number that a dials. Default: a free one.")
@click.option("--y", default="", metavar="NUMBER", help="AXYB, GXYB: 700 number that b dials. Default: a free one.")
@click.option("--pool", default="", metavar="ID", help="Pool to take free numbers from.")
@click.option("--area", default="", metavar="TEXT", help="Take free numbers from a pool of this area.")
@click.option(
    "--area-match",
    type=click.Choice(get_args(AreaMatch)),
    default="strict",
    help="loose: from other pools as well, after those of the area.",
)
@click.option(
    "--expires-in",
    "--expires-at",
    "expires_in",
    default="",
    metavar="TIME",
    help=" ".join((_EXPIRY, "Default: no expiry.")),
)
@click.option(
    "--order",
    "order_id",
    default="",
    metavar="TEXT",
    help="Order that this binding serves. Required in the phase pilot, but for `default`.",
)
@click.option("--business", default="", metavar="ID", help="Business user. Default: `default`.")
@click.option("--consent", default="", metavar="TEXT", help="Reference of the parties' consent.")
@click.option("--white-only", is_flag=True, help="Accept callers on the whitelist only.")
@click.option("--record", is_flag=True, help="Record the calls, after an announcement to both sides.")
@_restrictions
@shown_object_options
@config_option
def bind(config_path: Path | None, as_json: bool, reason: str, **asked: Any) -> None:
    """Let parties call each other through a 700 number.

    \b
    AXB   a and b dial x to reach each other
    AXYB  a dials x to reach b, b dials y to reach a
    GXB   members of a group dial x to reach b, b dials x to reach the last caller, else a
    GXYB  the same, but b dials y
    AXN   anybody dials x to reach a, a dials x to reach the last caller, else b
    """
    late = asked.pop("late")
    for needed in _NEEDED[asked["mode"]]:
        if not asked[needed] and not (late and needed == "a"):
            rather = ", unless --late" if needed == "a" and asked["mode"] in LATE_MODES else ""
            raise click.UsageError(
                f"Missing option '{_OPTIONS.get(needed, f'--{needed}')}': {asked['mode']} bindings need it{rather}."
            )
    clear = in_clear(reveal=False, reason=reason, as_json=as_json)
    area, area_match = asked.pop("area").strip(), asked.pop("area_match")

    def make(unit: UnitOfWork) -> Binding:
        wanted = PlacementRequest(fields.binding(asked, store.rules.parties, unit.now_ms), area, area_match, late)
        return service.bind(unit, wanted, store.rules)

    with opened(config_path, make=True) as store:
        binding = _made(store, make, reason, clear=clear)
        _warn(store, binding)
    if as_json:
        _show(binding, as_json=True, clear=clear)
        return
    say(f"binding {binding.binding_id}")
    if binding.expires_at is None:
        say(f"it has no end: end it by `relay700 unbind {binding.binding_id}`, or bind with --expires-in", err=True)
    for line in _who_dials(binding):
        say(line)


def _made(store: Opened, make: Callable[[UnitOfWork], Binding], reason: str, *, clear: bool) -> Binding:
    """Make or change a binding; if it is shown in clear, write the audit line in the same transaction."""

    def make_and_say(unit: UnitOfWork) -> Binding:
        binding = make(unit)
        if clear:
            audit_reading(unit, binding.binding_id, reason)
        return binding

    return store.run(make_and_say)


def _warn(store: Opened, binding: Binding) -> None:
    if warning := filing_warning(store.reader, store.sealer, binding, store.rules, now_ms()):
        say(f"warning: {warning}", err=True)


def _who_dials(binding: Binding) -> list[str]:
    a, b = mask_number(binding.a or ""), mask_number(binding.b or "")
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


@click.command()
@click.argument("binding_id")
@reason_option
@config_option
def unbind(config_path: Path | None, binding_id: str, reason: str) -> None:
    """End a binding. The next call is refused; a live call goes on."""
    with opened(config_path) as store:
        binding = store.run(lambda unit: service.end(unit, binding_id, store.rules, reason))
    say(f"unbound {binding.binding_id}")


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
    """List who made, changed and ended a binding, and when. The numbers in it are left out."""
    with opened(config_path) as store:
        steps = service.steps(store.reader, store.sealer, _found_one(store, binding_id))
    show_list(steps, _STEP_COLUMNS, as_json=as_json)


@bindings.command("change")
@click.argument("binding_id")
@click.option("--a", metavar="NUMBER", help="Real number of party a.")
@click.option("--b", metavar="NUMBER", help="Real number of party b.")
@click.option("--group", "group_id", metavar="ID", help="GXB, GXYB: group whose members call b.")
@click.option(
    "--expires-in", "--expires-at", "expires_in", metavar="TIME|none", help=" ".join((_EXPIRY, "none: no expiry."))
)
@_restrictions
@click.option("--white-only/--all-callers", default=None, help="Accept callers on the whitelist only, or all.")
@click.option("--record/--no-record", default=None, help="Record the calls, after an announcement to both sides.")
@shown_object_options
@config_option
def change(config_path: Path | None, binding_id: str, as_json: bool, reason: str, **asked: Any) -> None:
    """Change a binding, from the next call on. Options not given keep their value; "none" clears an optional one."""
    clear = in_clear(reveal=False, reason=reason, as_json=as_json)
    for name, value in asked.items():
        asked[name] = "" if value == NONE else value

    def make(unit: UnitOfWork) -> Binding:
        wanted = fields.binding_change(asked, store.rules.parties, unit.now_ms)
        return service.change(unit, binding_id, wanted, store.rules)

    with opened(config_path) as store:
        changed = _made(store, make, reason, clear=clear)
        _warn(store, changed)
    _show(changed, as_json=as_json, clear=clear)


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
    results: list[HandedOver] = []
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


@bindings.command("renew")
@click.argument("binding_id")
@click.option("--expires-in", "--expires-at", "expires_in", required=True, metavar="TIME", help=_EXPIRY)
@shown_object_options
@config_option
def renew(config_path: Path | None, binding_id: str, expires_in: str, as_json: bool, reason: str) -> None:
    """Set a new expiry for a binding in force.

    With an idle TTL it is the latest one: without calls the binding ends sooner.
    """
    clear = in_clear(reveal=False, reason=reason, as_json=as_json)

    def make(unit: UnitOfWork) -> Binding:
        return service.renew(unit, binding_id, fields.expiry(expires_in, unit.now_ms), store.rules)

    with opened(config_path) as store:
        changed = _made(store, make, reason, clear=clear)
    if as_json:
        _show(changed, as_json=True, clear=clear)
    else:
        shown = binding_object(changed, now_ms())
        latest = f", at the latest {shown['max_expires_at']}" if shown["max_expires_at"] else ""
        say(f"{changed.binding_id} expires {shown['expires_at']}{latest}")


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
