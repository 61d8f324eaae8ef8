"""`relay700 import` and `compare`: what moves from another provider, and whether it is the same here.

And `migrate`, which moves a store to another database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from relay.cli import config_option, listed, localised, say
from relay.cli.options import Opened, duration, json_option, opened
from relay.cli.output import json_line, shower, shower_of_text
from relay.compat.comparison import Comparison, Difference, Tolerance, duration_s_of, outcome_of
from relay.compat.providers import PROVIDERS, Provider, ProviderBinding, ProviderCall, read_bindings, read_calls, shown
from relay.config import SERVER_URL_HELP, load_config
from relay.errors import Refused
from relay.model.call import CallRecord
from relay.reports.disclosure import printable
from relay.service.fields import format_moment
from relay.service.imports import ImportResult, import_once
from relay.store.connection import PostgresServer, is_server_url
from relay.store.records import read_received

LONGEST_NUMBER = 15  # digits, E.164 and 700 numbers alike
_mask, _mask_text = shower(reveal=False), shower_of_text(reveal=False)


def _id(text: str) -> str:
    """An id of the provider, which is no phone number if it has more digits than one."""
    return text if text.isdecimal() and len(text) > LONGEST_NUMBER else _mask_text(printable(text))


_file = click.argument("file", type=click.File(encoding="utf-8-sig", errors="surrogateescape"))


@click.command("import")
@click.argument("provider", type=click.Choice(PROVIDERS))
@_file
@click.option("--business", default="default", metavar="ID", show_default=True, help="Business user that gets them.")
@click.option("--pool", default="", metavar="ID", help="Pool of numbers that replace the provider's. Default: any.")
@click.option("--apply", "make", is_flag=True, help="Make the bindings. Without it the command shows what it would do.")
@json_option
@config_option
def import_(
    config_path: Path | None, provider: Provider, file: TextIO, business: str, pool: str, make: bool, as_json: bool
) -> None:
    """Make the bindings of another provider's export.

    FILE has CSV or JSON (- for standard input). A 700 number stays, another number is replaced. Each line is reported;
    it may be imported again, and makes one binding. The exit status is 1 if a line is refused.
    """
    totals: Counter[str] = Counter()
    with opened(config_path, make=True) as store:
        for there, outcome in _imported(store, read_bindings(provider, file, business, pool), make=make):
            state = _state(outcome, make=make)
            totals[state] += 1
            _show_line(there, outcome, state, as_json=as_json)
    counts = listed(f"{count} {localised(state)}" for state, count in sorted(totals.items()))
    say(counts or "no binding", err=as_json)
    if totals["refused"]:
        raise click.exceptions.Exit(1)


def _imported(
    store: Opened, bindings: Iterable[ProviderBinding], *, make: bool
) -> Iterator[tuple[ProviderBinding, ImportResult]]:
    """Each binding of the export with its outcome. A chunk of them is in memory."""
    waiting: list[ProviderBinding] = []

    def lines() -> Iterator[tuple[int, dict[str, Any] | Refused]]:
        for one in bindings:
            waiting.append(one)
            yield one.line, one.written

    for outcome in import_once(lines(), store.run, store.rules, rehearse=not make):
        yield waiting.pop(0), outcome


_STATE_NAMES = ("refused", "made", "there already", "to be made")


def _state(outcome: ImportResult, *, make: bool) -> str:
    if outcome.refused is not None:
        return "refused"
    if outcome.was_there:
        return "there already"
    return "made" if make else "to be made"


def _show_line(there: ProviderBinding, outcome: ImportResult, state: str, *, as_json: bool) -> None:
    binding, refused = outcome.binding, outcome.refused
    if as_json:
        line = {
            "line": there.line,
            "provider_id": _id(there.provider_id),
            "provider_x": shown(there.x),
            "state": state.replace(" ", "_"),
            "binding_id": binding and binding.binding_id if state != "to be made" else None,
            "mode": binding and binding.mode,
            "x": binding and binding.x,
            "field": refused and refused.field,
            "problem": refused and refused.problem,
        }
        click.echo(json_line(line))
    elif refused is not None:
        say(f"line {there.line}: refused: {refused}", err=True)
    elif binding is not None:
        say(f"line {there.line}: {localised(state)}: {_id(there.provider_id)} {shown(there.x)} -> {binding.x}")


# -- Comparison of call records


@click.command()
@_file
@click.option("--provider", type=click.Choice(PROVIDERS), required=True, help="Whose records they are.")
@click.option("--business", metavar="ID", help="Only our calls of this business user.")
@click.option(
    "--began-within",
    type=duration,
    default="30s",
    metavar="DURATION",
    show_default=True,
    help="Largest difference between the start times of one call.",
)
@click.option(
    "--duration-within",
    type=duration,
    default="2s",
    metavar="DURATION",
    show_default=True,
    help="Largest difference between its durations.",
)
@json_option
@config_option
def compare(
    config_path: Path | None,
    file: TextIO,
    provider: Provider,
    business: str | None,
    began_within: int,
    duration_within: int,
    as_json: bool,
) -> None:
    """Set a provider's call records beside ours.

    FILE has SecretReport or feeLst (- for standard input). Shows calls missing on one side, and those with another
    outcome or duration, with masked numbers. The exit status is 1 if there is one, or a record that cannot be read.
    """
    there: list[ProviderCall] = []
    skipped: Counter[str] = Counter({"messages": 0, "unreadable": 0})
    for call in read_calls(provider, file):
        if isinstance(call, ProviderCall):
            there.append(call)
        elif call is None:
            skipped["messages"] += 1
        else:
            skipped["unreadable"] += 1
            say(str(call), err=True)
    comparison = Comparison(there, Tolerance(began_within, duration_within / 1000))
    with opened(config_path) as store:
        for difference in _differences(store, there, comparison, business, began_within):
            _show_difference(difference, as_json=as_json)
    totals = dict(comparison.totals) | skipped
    words = listed(f"{count} {localised(name.replace('_', ' '))}" for name, count in totals.items())
    click.echo(json_line(totals) if as_json else words)
    if comparison.differs or skipped["unreadable"]:
        raise click.exceptions.Exit(1)


def _differences(
    store: Opened, there: list[ProviderCall], comparison: Comparison, business: str | None, began_ms: int
) -> Iterator[Difference]:
    if not there:
        return
    first, last = min(call.at_ms for call in there), max(call.at_ms for call in there)
    for page in read_received(store.reader, store.sealer, first - began_ms, last + began_ms + 1):
        for record in page:
            if record.kind == "call" and business in (None, record.business):
                yield from comparison.see(record)
    yield from comparison.rest()


def _show_difference(difference: Difference, *, as_json: bool) -> None:
    kind, there, here = difference
    values = {"difference": kind, **_call(there, here), "there": _there(there), "here": _here(here)}
    if as_json:
        click.echo(json_line(values))
        return
    call = f"{values['at']} {values['caller'] or '-'} -> {values['callee'] or '-'}"
    sides = localised(f"there {_words(values['there'])}, here {_words(values['here'])}")
    click.echo(f"{localised(kind.replace('_', ' '))}: {call}: {sides}")


def _call(there: ProviderCall | None, here: CallRecord | None) -> dict[str, Any]:
    if here is not None:
        return {
            "at": format_moment(here.received_at),
            "caller": _mask(here.caller),
            "callee": here.callee and _mask(here.callee),
        }
    assert there is not None
    return {"at": format_moment(there.at_ms), "caller": _mask(there.caller), "callee": _mask(there.callee) or None}


def _there(call: ProviderCall | None) -> dict[str, Any] | None:
    return call and {
        "line": call.line,
        "id": _id(call.provider_id),
        "outcome": call.outcome,
        "duration_s": call.duration_s,
        "cause": _mask_text(printable(call.cause)),
    }


def _here(record: CallRecord | None) -> dict[str, Any] | None:
    return record and {
        "id": record.call_id,
        "outcome": outcome_of(record),
        "duration_s": duration_s_of(record),
        "cause": record.outcome,
    }


_COUNT_NAMES = ("same", "missing_here", "missing_there", "outcome", "duration", "messages", "unreadable", "nothing")


def _words(side: dict[str, Any] | None) -> str:
    if side is None:
        return localised("nothing")
    return f"{side['outcome']} {side['duration_s']:g}s ({side['cause'] or '-'}, {side['id']})"


# -- `relay700 migrate`


@click.command()
@click.argument("source", metavar="sqlite:PATH")
@click.argument("target", metavar="postgresql://…")
@config_option
def migrate(config_path: Path | None, source: str, target: str) -> None:
    """Copy a store from SQLite to PostgreSQL.

    The database must be empty, the relay stopped, and no call live. The key file stays the configured one, and the
    SQLite file is left as it is. Afterwards set `url` and `node` under [store] and start the relay.
    """
    from relay.store.migrate import migrate as move

    if not source.startswith("sqlite:"):
        raise click.BadParameter('write it as "sqlite:PATH"', param_hint="SOURCE")
    if not target.startswith("postgresql://"):
        raise click.BadParameter('write it as "postgresql://USER@HOST/DATABASE"', param_hint="TARGET")
    if not is_server_url(target):
        raise click.BadParameter(SERVER_URL_HELP, param_hint="TARGET")
    key_file = load_config(config_path).store.key_file
    server = PostgresServer(target, "", key_file.with_name("migrate"))
    moved = move(Path(source.removeprefix("sqlite:")), server, key_file)
    say(f"{sum(moved.rows.values())} rows copied to {server}, among them {moved.records} call records, all intact")
