"""`relay700 audit` and `purge`: who did what, whether the log is whole, and deleting what need not be kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option
from relay.cli.options import in_clear, json_option, limit_option, reason_option, reveal_option, stacked
from relay.cli.output import json_line, plain, show_list, show_one
from relay.cli.private_file import FILE_OR_DASH, written
from relay.cli.progress import progress
from relay.cli.stores import every, opened, past, said_in_clear
from relay.errors import StoreError
from relay.reports.audit_form import details_form
from relay.service.retention import due
from relay.service.retention import purge as purge_store
from relay.store.act import operator_cli
from relay.store.audit_log import AuditQuery, Logged, all_entries, count_entries, newest_entries, verify_audit
from relay.store.writer import now_ms

_COLUMNS = ("at", "actor", "action", "object", "business", "reason")

_query = stacked(
    click.option("--actor", metavar="NAME", help='Who did it: "cli:USER", "key:ID" or "relay".'),
    click.option("--action", metavar="NAME", help="Such as business.suspend, read, traceback."),
    click.option("--object", "object_", metavar="ID", help="What it was done to: an id or a 700 number."),
    click.option("--business", metavar="ID"),
    click.option("--since", "since_ms", type=past, metavar="TIME", help="As 2026-01-31T08:00:00Z, or 2h (ago)."),
    click.option("--until", "until_ms", type=past, metavar="TIME", help="Likewise."),
)


@click.group()
def audit() -> None:
    """Who did what, and who read real numbers."""


@audit.command("list")
@_query
@limit_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with the details.")
@reveal_option
@reason_option
@config_option
def list_(config_path: Path | None, limit: int | None, as_json: bool, reveal: bool, reason: str, **query: Any) -> None:
    """List entries, the newest first."""
    in_clear(reveal=reveal, reason=reason)
    with opened(config_path) as store:
        if reveal:
            said_in_clear(store, "audit", reason, query)
        asked = AuditQuery(**query)
        found = every(partial(newest_entries, store.reader, store.sealer, asked), None, lambda entry: entry.seq)
        show_list((_plain(entry, reveal=reveal) for entry in found), _COLUMNS, as_json=as_json, limit=limit)


@audit.command("export")
@click.argument("file", type=FILE_OR_DASH)
@_query
@reveal_option
@reason_option
@config_option
def export(config_path: Path | None, file: Path, reveal: bool, reason: str, **query: Any) -> None:
    """Write entries to FILE (- for standard output), the oldest first, one JSON object a line."""
    in_clear(reveal=reveal, reason=reason)
    asked = AuditQuery(**query)
    with opened(config_path) as store:
        if reveal:
            said_in_clear(store, "audit", reason, query)
        with written(file) as out, progress(count_entries(store.reader, asked), "entries") as done:
            for entry in all_entries(store.reader, store.sealer, asked):
                out.write(f"{json_line(_plain(entry, reveal=reveal))}\n".encode())
                done(1)


@audit.command("verify")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
def verify(config_path: Path | None, as_json: bool) -> None:
    """Check the chain of the log. Keep what it prints in another place."""
    with opened(config_path) as store:
        verdict = verify_audit(store.reader, store.sealer)
    if verdict.broken is not None:
        raise StoreError(f"broken after {verdict.intact} intact entries: {verdict.broken}")
    if as_json:
        click.echo(json_line({"intact": verdict.intact, "head": verdict.head.hash.hex() or None}))
    else:
        click.echo(f"{verdict.intact} entries intact, head {verdict.head.hash.hex() or '-'}")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only count what would be deleted.")
@json_option
@config_option
def purge(config_path: Path | None, dry_run: bool, as_json: bool) -> None:
    """Delete what was kept for as long as [retention] says. The relay does it by itself each night."""
    with opened(config_path) as store:
        if dry_run:
            purged = due(store.reader, store.config.retention, now_ms())
        else:
            purged = purge_store(
                store.writer, store.config.retention, store.config.recordings.kept_in, now_ms(), operator_cli()
            )
    show_one(purged, as_json=as_json)


def _plain(logged: Logged, *, reveal: bool) -> dict[str, Any]:
    entry = plain(logged.entry) | {"details": details_form(logged.entry, reveal=reveal)}
    return {"seq": logged.seq} | {"object" if name == "object_" else name: value for name, value in entry.items()}
