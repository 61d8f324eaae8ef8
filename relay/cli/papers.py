"""`relay700 papers`: what the platform, the carriers and the business users present, and the review's answers."""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option, say
from relay.cli.operations import Command, asker_of, command_of
from relay.cli.options import needed_reason, opened, said_in_clear
from relay.cli.output import written
from relay.operations import papers as operations
from relay.service.papers import LARGEST_FILE

_COLUMNS = ("id", "owner", "kind", "version", "state", "reference", "valid_from", "valid_until", "due")


@click.group()
def papers() -> None:
    """Papers of the platform and the business users."""


def _read_file(given: dict[str, Any]) -> None:
    """Replace the file's name by what it holds."""
    try:
        with Path(given["file"]).open("rb") as file:
            given["file"] = b64encode(file.read(LARGEST_FILE + 1)).decode()
    except OSError as error:
        raise click.UsageError(f"--file: cannot be read: {error.strerror}") from None


for made in (
    command_of("add", Command(operations.submit_paper, makes=True, check=_read_file)),
    command_of("list", Command(operations.list_papers, columns=_COLUMNS)),
    command_of("show", Command(operations.show_paper, listed_by="papers list")),
    command_of("accept", Command(operations.accept_paper, says="{kind}, version {version}: accepted")),
    command_of("supplement", Command(operations.ask_supplement, says="{kind}, version {version}: due on {due}")),
    command_of("reject", Command(operations.reject_paper, says="{kind}, version {version}: rejected")),
    command_of("withdraw", Command(operations.withdraw_paper, says="{kind}, version {version}: withdrawn")),
):
    papers.add_command(made)


@papers.command("file")
@click.argument("paper_id")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="File to write.")
@needed_reason
@config_option
def write_file(config_path: Path | None, paper_id: str, out: Path, reason: str) -> None:
    """Write the file of a paper, with mode 0600. It may show people and numbers: the audit log has the reason."""
    with opened(config_path) as store:
        asker = asker_of(store, clear=True)
        operations.show_paper.do(store.reader, asker, paper_id)  # raises Refused before the audit line
        said_in_clear(store, f"file of paper {paper_id}", reason)
        shown = operations.read_paper.do(store.reader, asker, paper_id)
        with written(out, private=True) as file:
            file.write(b64decode(shown.file))
    say(f"{shown.size} bytes, {shown.media_type}, sha256 {shown.sha256}", err=str(out) == "-")
