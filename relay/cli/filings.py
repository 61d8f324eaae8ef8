"""`relay700 filings`: A numbers that business users have filed with the carriers."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TextIO

import click

from relay.cli import config_option
from relay.cli.options import business_option, in_clear, limit_option, showing_options, shown_object_options
from relay.cli.output import Show, file_progress, newest, plain, show_list, show_one, shower
from relay.cli.stores import audit_reading, every, opened, said_in_clear
from relay.service.filings import add_filing, import_filings, remove_filing
from relay.store.filings import FIRST, Filing, find_filings
from relay.store.unit_of_work import UnitOfWork

_COLUMNS = ("business", "number", "reference", "filed_at", "filed_by", "withdrawn_at")


@click.group()
def filings() -> None:
    """A numbers filed with the carriers."""


@filings.command("add")
@click.argument("number")
@click.option("--reference", required=True, metavar="TEXT", help="The carrier's reference of the filing.")
@business_option
@shown_object_options
@config_option
def add(config_path: Path | None, number: str, reference: str, business: str, as_json: bool, reason: str) -> None:
    """File an A number, or change the reference of its filing. Holds from the next call on."""
    clear = in_clear(reveal=False, reason=reason, as_json=as_json)
    with opened(config_path, make=True) as store:

        def add_and_say(act: UnitOfWork) -> Filing:
            filing = add_filing(act, business, number, reference, store.rules.parties)
            if clear:
                audit_reading(act, "filings", reason)
            return filing

        filing = store.act(add_and_say)
    show_one(_form(filing, shower(reveal=clear)), as_json=as_json)


@filings.command("list")
@click.option("--business", metavar="ID", help="Only filings of this business user.")
@click.option("--all", "all_", is_flag=True, help="Include withdrawn filings.")
@limit_option
@showing_options
@config_option
def list_(
    config_path: Path | None,
    business: str | None,
    all_: bool,
    limit: int | None,
    as_json: bool,
    reveal: bool,
    reason: str,
) -> None:
    """List filings, newest first."""
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    with opened(config_path) as store:
        if clear:
            said_in_clear(store, "filings", reason, {"business": business, "all": all_})
        show = shower(reveal=clear)
        find = partial(find_filings, store.reader, store.sealer, business, all_=all_)
        found = newest(every(find, FIRST, _place), attrgetter("filed_at"))
        show_list((_form(filing, show) for filing in found), _COLUMNS, as_json=as_json, limit=limit)


@filings.command("remove")
@click.argument("number")
@business_option
@config_option
def remove(config_path: Path | None, number: str, business: str) -> None:
    """Withdraw a filing. From the next call on the number counts as not filed."""
    with opened(config_path) as store:
        store.act(lambda act: remove_filing(act, business, number))
    click.echo(f"withdrawn from the filings of {business}")


@filings.command("import", epilog="Columns: number,reference. A header line is optional.")
@click.argument("file", type=click.File(encoding="utf-8-sig", errors="surrogateescape"))
@business_option
@config_option
def import_(config_path: Path | None, file: TextIO, business: str) -> None:
    """File the A number on each line of a CSV file (- for standard input).

    Bad lines are reported and skipped; the exit status is then 1.
    """
    good = bad = 0
    with opened(config_path, make=True) as store, file_progress(file, "filings") as done:
        for line, refused in import_filings(file, business, store.act, store.rules.parties):
            if refused is None:
                good += 1
                done()
                continue
            bad += 1
            click.echo(f"line {line}: {refused}", err=True)
    click.echo(f"{good} filed, {bad} refused")
    if bad:
        raise click.exceptions.Exit(1)


def _place(filing: Filing) -> tuple[str, str]:
    return filing.place


def _form(filing: Filing, show: Show) -> dict[str, Any]:
    return plain(filing) | {"number": show(filing.number)}
