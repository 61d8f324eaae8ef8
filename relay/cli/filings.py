"""`relay700 filings`: A numbers filed with the carriers, and the carriers' answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

import click

from relay.cli import config_option, say
from relay.cli.operations import Command, command_of
from relay.cli.options import business_option, opened
from relay.cli.output import file_progress
from relay.operations import filings as operations
from relay.service.filings import AnswerWords, FilingWords, Given
from relay.service.imports import ImportResult, import_answers, import_filings

_FILING_COLUMNS = ("business", "number", "state", "reference", "holder", "filed_at", "expires_at", "code")
_VERSION_COLUMNS = ("until", *_FILING_COLUMNS)


@click.group()
def filings() -> None:
    """A numbers filed with the carriers."""


for made in (
    command_of("add", Command(operations.add_filing, makes=True), arguments=["number"]),
    command_of("list", Command(operations.list_filings, columns=_FILING_COLUMNS, newest="filed_at")),
    command_of("show", Command(operations.search_filings, columns=_VERSION_COLUMNS), arguments=["party"]),
    command_of(
        "remove",
        Command(operations.withdraw_filing, says="withdrawn from the filings of {business}"),
        arguments=["number"],
    ),
    command_of("forget", Command(operations.forget_holder, says="documents removed"), arguments=["number"]),
):
    filings.add_command(made)


@filings.command(
    "import", epilog=f"Columns: {','.join(FilingWords._fields)}. A header line is optional, and may name some of them."
)
@click.argument("file", type=click.File(encoding="utf-8-sig", errors="surrogateescape"))
@click.option(
    "--submitted",
    "state",
    flag_value="submitted",
    help="It waits for the carrier's answer. Default: it is approved.",
)
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
