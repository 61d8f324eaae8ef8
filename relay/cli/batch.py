"""`relay700 report batch`: a day's call records and recordings for the authority."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import click
import msgspec

from relay.cli import config_option
from relay.cli.options import needed_reason
from relay.cli.output import json_line
from relay.cli.stores import day as day_type
from relay.cli.stores import opened
from relay.errors import StoreError
from relay.reports.batch import ask_batch, make_batch
from relay.reports.batch_check import Checked
from relay.reports.signed import load_batch_key


@click.command()
@click.argument("day", type=day_type)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Output folder. Default: a folder named after the day, in [report] batches.",
)
@needed_reason
@click.option("--json", "as_json", is_flag=True, help="The manifest as one JSON object.")
@config_option
def batch(config_path: Path | None, day: date, out: Path | None, reason: str, as_json: bool) -> None:
    """Write a signed folder for the authority: a day's call records in clear, its recordings in SM4.

    DAY is a past day in China, such as 2026-01-31. The same command resumes an interrupted run and leaves a finished
    batch as it is.
    """
    with opened(config_path) as store:
        asked = store.act(lambda act: ask_batch(act, day, reason))
        config = store.config
        is_new = not config.report.key_file.exists()
        key = load_batch_key(config.report.key_file)
        if is_new:
            click.echo(f"made the key {config.report.key_file}: give it to the authority out of band", err=True)
        folder = out or config.report.batches / day.isoformat()
        made = make_batch(config.store.path, store.sealer, config.recordings.kept_in, key, folder, asked)
    for call_id, why in made.missing:
        click.echo(f"no recording of {call_id}: {why}", err=True)
    if as_json:
        click.echo(json_line(msgspec.to_builtins(made.manifest)))
        return
    manifest = made.manifest
    records = manifest.files["records.jsonl"].lines
    counts = f"{records} records, {manifest.recordings} recordings in {manifest.segments} segments"
    click.echo(f"{folder}: {counts}" + ("" if made.is_new else "; finished before"))
    click.echo(f"signed by the key {manifest.public_key}")


def show_checked(checked: Checked) -> None:
    """Print the verdict of `evidence check` on a batch. Raises StoreError if it has faults."""
    manifest, problems = checked
    if problems or manifest is None:
        raise StoreError("\n".join(problems))
    click.echo(f"good: the batch of {manifest.day}, {manifest.recordings} recordings, {manifest.missing} missing")
    click.echo(f"made at {manifest.made_at} by {manifest.made_by}, for: {manifest.reason}")
