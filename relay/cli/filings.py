"""`relay700 filings`: A numbers filed with the carriers, and the carriers' answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TextIO

import click

from relay.cli import config_option, say
from relay.cli.options import (
    audit_reading,
    business_option,
    every,
    in_clear,
    limit_option,
    needed_reason,
    opened,
    said_in_clear,
    showing_options,
    shown_object_options,
)
from relay.cli.output import file_progress, newest, show_list, show_one
from relay.model.numbers import normalise_party
from relay.service import fields
from relay.service.fields import format_moment
from relay.service.filings import (
    DOCUMENT_TYPES,
    EXPIRING_MS,
    AnswerWords,
    FilingWords,
    Given,
    add_filing,
    filing_form,
    forget_filing,
    remove_filing,
)
from relay.service.imports import ImportResult, import_answers, import_filings
from relay.store.filings import FIRST, STATES, FilingQuery, FilingRow, State, filings_of, find_filings
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms

_FILING_COLUMNS = ("business", "number", "state", "reference", "holder", "filed_at", "expires_at", "code")
_expires_option = click.option(
    "--expires-at", default="", metavar="TIME", help="End of the approval: a day in China, or a time."
)
_submitted_option = click.option(
    "--submitted", "state", flag_value="submitted", help="It waits for the carrier's answer. Default: it is approved."
)


@click.group()
def filings() -> None:
    """A numbers filed with the carriers."""


@filings.command("add")
@click.argument("number")
@click.option("--reference", default="", metavar="TEXT", help="The carrier's reference of the filing.")
@click.option("--holder", default="", metavar="NAME", help="Name of the number's holder.")
@click.option("--document-type", default="id_card", type=click.Choice(DOCUMENT_TYPES), show_default=True)
@click.option("--document", default="", metavar="TEXT", help="Number of the holder's identity document.")
@click.option(
    "--photo", default="", metavar="TEXT", help="Reference of the holder's photo: the photo is not kept here."
)
@_submitted_option
@_expires_option
@business_option
@shown_object_options
@config_option
def add_number(
    config_path: Path | None, business: str, as_json: bool, reason: str, state: Given | None, **words: str
) -> None:
    """File an A number, or change its filing. Holds from the next call on."""
    clear = in_clear(reveal=False, reason=reason, as_json=as_json)
    with opened(config_path, make=True) as store:

        def add_and_say(unit: UnitOfWork) -> FilingRow:
            filing = add_filing(unit, business, FilingWords(**words), store.rules.parties, state)
            if clear:
                audit_reading(unit, "filings", reason, {"number": filing.number})
            return filing

        filing = store.run(add_and_say)
    show_one(_filing(filing, clear=clear), as_json=as_json)


@filings.command("list")
@click.option("--business", metavar="ID", help="Only filings of this business user.")
@click.option("--state", type=click.Choice(STATES), help="Only filings in this state.")
@click.option("--expiring", is_flag=True, help="Only filings that expire within 30 days.")
@click.option("--all", "all_", is_flag=True, help="Include withdrawn filings.")
@limit_option
@showing_options
@config_option
def list_filings(
    config_path: Path | None,
    business: str | None,
    state: State | None,
    expiring: bool,
    all_: bool,
    limit: int | None,
    as_json: bool,
    reveal: bool,
    reason: str,
) -> None:
    """List filings, newest first."""
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    at_ms = now_ms()
    query = FilingQuery(business, state, at_ms + EXPIRING_MS if expiring else None, all_)
    with opened(config_path) as store:
        if clear:
            asked = {"business": business, "state": state, "expiring": expiring, "all": all_}
            said_in_clear(store, "filings", reason, asked)
        find = partial(find_filings, store.reader, store.sealer, query, at_ms)
        found = newest(every(find, FIRST, _filing_place), attrgetter("filed_at"))
        show_list((_filing(each, clear=clear) for each in found), _FILING_COLUMNS, as_json=as_json, limit=limit)


@filings.command("show")
@click.argument("number")
@click.option("--business", metavar="ID", help="Only filings of this business user.")
@showing_options
@config_option
def show_filing(
    config_path: Path | None, number: str, business: str | None, as_json: bool, reveal: bool, reason: str
) -> None:
    """Show the filings of a number, with their earlier states."""
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    party = fields.parsed("number", number, normalise_party)
    with opened(config_path) as store:
        if clear:
            said_in_clear(store, "filings", reason, {"number": party, "business": business})
        found = filings_of(store.reader, store.sealer, party, business)
    forms = (
        {"until": each.until and format_moment(each.until)} | _filing(each.filing, clear=clear, at_ms=each.until)
        for each in found
    )
    show_list(forms, ("until", *_FILING_COLUMNS), as_json=as_json)


@filings.command("remove")
@click.argument("number")
@business_option
@config_option
def withdraw(config_path: Path | None, number: str, business: str) -> None:
    """Withdraw a filing. From the next call on the number counts as not filed."""
    with opened(config_path) as store:
        store.run(lambda unit: remove_filing(unit, business, number))
    say(f"withdrawn from the filings of {business}")


@filings.command("forget")
@click.argument("number")
@business_option
@needed_reason
@config_option
def forget(config_path: Path | None, number: str, business: str, reason: str) -> None:
    """Withdraw a filing and remove its holder's documents.

    Name, document and the photo's reference are removed, on the holder's demand. Number, reference and states remain:
    the law has calls kept with their numbers.
    """
    with opened(config_path) as store:
        store.run(lambda unit: forget_filing(unit, business, number, reason))
    say("documents removed")


@filings.command(
    "import", epilog=f"Columns: {','.join(FilingWords._fields)}. A header line is optional, and may name some of them."
)
@click.argument("file", type=click.File(encoding="utf-8-sig", errors="surrogateescape"))
@_submitted_option
@business_option
@config_option
def import_numbers(config_path: Path | None, file: TextIO, business: str, state: Given | None) -> None:
    """File the A number on each line of a CSV file.

    FILE may be - for standard input. Bad lines are reported and skipped; the exit status is then 1.
    """
    with opened(config_path, make=True) as store, file_progress(file, "filings") as done:
        _report(import_filings(file, business, store.run, store.rules.parties, state), done, "filed")


@filings.command("answers", epilog=f"Columns: {','.join(AnswerWords._fields)}. A header line may name some of them.")
@click.argument("file", type=click.File(encoding="utf-8-sig", errors="surrogateescape"))
@business_option
@config_option
def answers(config_path: Path | None, file: TextIO, business: str) -> None:
    """Enter the carriers' answers on the lines of a CSV file.

    FILE may be - for standard input. A line has the number or the reference, and the state: approved, rejected, expired
    or revoked. Bad lines are reported and skipped; the exit status is then 1.
    """
    with opened(config_path) as store, file_progress(file, "answers") as done:
        _report(import_answers(file, business, store.run), done, "entered")


def _report(outcomes: Iterable[ImportResult], done: Callable[[], None], said: str) -> None:
    good = bad = 0
    for outcome in outcomes:
        if outcome.refused is None:
            good += 1
            done()
            continue
        bad += 1
        say(f"line {outcome.line}: {outcome.refused}", err=True)
    say(f"{good} {said}, {bad} refused")
    if bad:
        raise click.exceptions.Exit(1)


def _filing_place(filing: FilingRow) -> tuple[str, str]:
    return filing.position


def _filing(filing: FilingRow, *, clear: bool, at_ms: int | None = None) -> dict[str, Any]:
    form = filing_form(filing, at_ms or now_ms(), clear=clear)
    return {name: format_moment(each) if name.endswith("_at") and each else each for name, each in form.items()}
