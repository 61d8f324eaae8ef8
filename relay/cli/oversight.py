"""`relay700 evidence` and `report`: signed evidence, daily reports."""

from __future__ import annotations

import shlex
from datetime import date
from pathlib import Path
from typing import Any

import click
import msgspec

from relay.cli import config_option, localised, say
from relay.cli.options import day as day_type
from relay.cli.options import json_option, moment, needed_reason, number, opened
from relay.cli.output import FILE_OR_DASH, json_line, plain, show_list, written
from relay.errors import StoreError
from relay.reports.batch import ask_batch, make_batch
from relay.reports.batch_check import BatchCheck, check_batch
from relay.reports.daily import DailyLine, daily, daily_csv
from relay.reports.evidence import ask_evidence, bundle, check
from relay.reports.signed import load_batch_key
from relay.service.complaints import complaint_rates, set_complaints
from relay.store.writer import now_ms
from relay.trace.ladder_text import shown

_COLUMNS = ("business", "prefix", "attempts", "answered", "unanswered", "refused", "minutes", "parties", "complaints")


# -- evidence


@click.group()
def evidence() -> None:
    """Signed bundles of the records and bindings of a number."""


@evidence.command("make")
@click.argument("number", type=number)
@click.option(
    "--from", "since_ms", type=moment, required=True, metavar="TIME", help="Such as 2026-01-31T16:00:00+08:00."
)
@click.option("--to", "until_ms", type=moment, required=True, metavar="TIME", help="End of the time, not included.")
@click.option("--out", type=FILE_OR_DASH, required=True, metavar="FILE", help="ZIP file to write.")
@needed_reason
@click.option("--json", "as_json", is_flag=True, help="The manifest as one JSON object.")
@config_option
def make(
    config_path: Path | None, number: str, since_ms: int, until_ms: int, out: Path, reason: str, as_json: bool
) -> None:
    """Write a signed bundle of a number's calls and bindings. Its numbers are in clear.

    FILE must not exist yet: it may be evidence.
    """
    if out.is_file() and not out.is_symlink():
        raise StoreError(f"{out} exists already: name another file, or delete it")
    with opened(config_path) as store:
        asked = store.run(lambda unit: ask_evidence(unit, number, since_ms, until_ms, reason))
        with written(out) as file:
            manifest = bundle(store.config.store.path, store.sealer, asked, file)
    if until_ms > now_ms():
        say(f"the time until {manifest.until} is not over: what comes later is not in the bundle", err=True)
    err = str(out) == "-"  # standard output is the bundle then
    if as_json:
        click.echo(json_line(msgspec.to_builtins(manifest)), err=err)
        return
    for name, each in manifest.files.items():
        say(f"{name}: {each.lines} lines, sha256 {each.sha256}", err=err)
    say(f"signed by the key {manifest.public_key}", err=err)


@evidence.command("check")
@click.argument("file", type=click.Path(path_type=Path, exists=True), metavar="FILE|FOLDER")
@click.option("--public-key", metavar="HEX", help="Required signer. Default: the keys of this store.")
@config_option
def check_(config_path: Path | None, file: Path, public_key: str | None) -> None:
    """Check the signature and contents of a bundle or daily batch. A bundle is a FILE, a batch a FOLDER."""
    try:
        keys = [bytes.fromhex(public_key)] if public_key else []
    except ValueError:
        raise click.BadParameter("the key is 64 hexadecimal digits", param_hint="--public-key") from None
    if not keys:
        with opened(config_path) as store:
            keys = [store.sealer.public_key(key_id) for key_id in store.sealer.key_ids]
    if file.is_dir():
        show_checked(check_batch(file, *keys))
        return
    manifest, problems = check(file, *keys)
    if problems or manifest is None:
        raise StoreError("\n".join(map(_foreign, problems)))
    say(_foreign(f"good: {manifest.number} from {manifest.since} to {manifest.until}"))
    say(_foreign(f"made at {manifest.made_at} by {manifest.made_by}, for: {manifest.reason}"))


def _foreign(text: str) -> str:
    """A line with names and texts of a file's sender: what could steer the terminal, or begin a line, is escaped."""
    return shown(text).replace("\n", "\\x0a")


# -- reports


@click.group()
def report() -> None:
    """Daily figures, complaints, and batches for the authority."""


@report.command("daily")
@click.argument("day", type=day_type)
@click.option("--business", metavar="ID", help="Only lines of this business user.")
@click.option("--out", type=FILE_OR_DASH, metavar="FILE", help="CSV file to write.")
@json_option
@config_option
def daily_(config_path: Path | None, day: date, business: str | None, out: Path | None, as_json: bool) -> None:
    """Report the calls of a day by business user and prefix. DAY is a day in China: 2026-01-31, or today."""
    with opened(config_path) as store:
        lines = daily(store.reader, store.sealer, day, business)
    if out is not None:
        with written(out) as file:
            file.write(daily_csv(lines).encode())
        return
    show_list((_line(line, as_json=as_json) for line in lines), _COLUMNS, as_json=as_json)


def _line(line: DailyLine, *, as_json: bool) -> dict[str, Any]:
    values = plain(line) | {"day": line.day.isoformat(), "minutes": line.minutes}
    del values["talk_ms"]
    if not as_json:
        values["refused"] = " ".join(f"{outcome}={count}" for outcome, count in line.refused.items())
    return values


_RATE_COLUMNS = ("business", "prefix", "complaints", "answered", "percent", "few", "high")


@report.command("complaints")
@click.argument("day", type=day_type, required=False)
@click.argument("business", metavar="BUSINESS", required=False)
@click.argument("prefix", required=False)
@click.argument("count", type=int, required=False)
@click.option("--list", "list_", is_flag=True, help="Show the rates of thirty days instead, of all or of --business.")
@click.option("--business", "whose", metavar="ID", help="With --list: only this business user.")
@json_option
@config_option
def complaints(
    config_path: Path | None,
    day: date | None,
    business: str | None,
    prefix: str | None,
    count: int | None,
    list_: bool,
    whose: str | None,
    as_json: bool,
) -> None:
    """Enter complaints about a business user, or show the rates.

    COUNT replaces the number of the DAY about a business user and prefix. With --list nothing is entered.
    """
    if list_ == (day is not None):
        raise click.UsageError("Write DAY BUSINESS PREFIX COUNT, or --list.")
    with opened(config_path) as store:
        limit_ppm = store.config.complaint_ppm
        if list_:
            rates = complaint_rates(store.reader, whose, now_ms(), limit_ppm)
            show_list((rate.form() for rate in rates), _RATE_COLUMNS, as_json=as_json)
            return
        if day is None or business is None or prefix is None or count is None:
            raise click.UsageError("Missing argument: write DAY BUSINESS PREFIX COUNT.")
        rate = store.run(lambda unit: set_complaints(unit, day, business, prefix, count, limit_ppm))
    say(f"{count} entered")
    if rate.is_high:
        say(
            f"warning: {rate.suspend_reason}. Nothing is suspended until you say so:"
            f" relay700 business suspend {business} --reason {shlex.quote(rate.suspend_reason)}",
            err=True,
        )


# -- `relay700 report batch`


@report.command()
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
    """Write the signed folder of a day for the authority.

    It has the call records in clear, and the recordings in SM4. DAY is a past day in China, such as 2026-01-31. The
    same command resumes an interrupted run and leaves a finished batch as it is.
    """
    with opened(config_path) as store:
        asked = store.run(lambda unit: ask_batch(unit, day, reason))
        config = store.config
        is_new = not config.report.key_file.exists()
        key = load_batch_key(config.report.key_file)
        if is_new:
            say(f"made the key {config.report.key_file}: give it to the authority out of band", err=True)
        folder = out or config.report.batches / day.isoformat()
        made = make_batch(config.store.path, store.sealer, config.recordings.kept_in, key, folder, asked)
    for call_id, why in made.missing:
        say(f"no recording of {call_id}: {why}", err=True)
    if as_json:
        click.echo(json_line(msgspec.to_builtins(made.manifest)))
        return
    manifest = made.manifest
    records = manifest.files["records.jsonl"].lines
    counts = localised(f"{records} records, {manifest.recordings} recordings in {manifest.segments} segments")
    click.echo(f"{folder}: {counts}" + ("" if made.is_new else localised("; finished before")))
    say(f"signed by the key {manifest.public_key}")


def show_checked(checked: BatchCheck) -> None:
    """Print the verdict of `evidence check` on a batch. Raises StoreError if it has faults."""
    manifest, problems = checked
    if problems or manifest is None:
        raise StoreError("\n".join(map(_foreign, problems)))
    good = f"good: the batch of {manifest.day}, {manifest.recordings} recordings, {manifest.missing} missing"
    say(_foreign(good))
    say(_foreign(f"made at {manifest.made_at} by {manifest.made_by}, for: {manifest.reason}"))
