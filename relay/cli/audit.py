"""`relay700 audit` and `purge`: the audit log and its chain, and deletion at the end of retention times."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option
from relay.cli.options import SINCE, UNTIL, in_clear, json_option, limit_option, reason_option, reveal_option, stacked
from relay.cli.output import FILE_OR_DASH, json_line, plain, progress, show_list, show_one, written
from relay.cli.stores import every, opened, past, said_in_clear
from relay.errors import StoreError
from relay.reports.audit_entries import details_form
from relay.service.retention import due
from relay.service.retention import purge as purge_store
from relay.store.audit import AuditQuery, Logged, all_entries, count_entries, newest_entries, verify_audit
from relay.store.unit_of_work import operator_cli
from relay.store.writer import now_ms

_COLUMNS = ("at", "actor", "action", "object", "business", "reason")

_query = stacked(
    click.option("--actor", metavar="NAME", help='Only entries of this actor: "cli:USER", "key:ID" or "relay".'),
    click.option("--action", metavar="NAME", help="Only this action, such as business.suspend, read or traceback."),
    click.option("--object", "object_", metavar="ID", help="Only entries about this ID or 700 number."),
    click.option("--business", metavar="ID", help="Only entries about this business user."),
    click.option("--since", "since_ms", type=past, metavar="TIME", help=SINCE),
    click.option("--until", "until_ms", type=past, metavar="TIME", help=UNTIL),
)


@click.group()
def audit() -> None:
    """The audit log: who changed what, and who read real numbers."""


@audit.command("list")
@_query
@limit_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, with the details.")
@reveal_option
@reason_option
@config_option
def list_(config_path: Path | None, limit: int | None, as_json: bool, reveal: bool, reason: str, **query: Any) -> None:
    """List entries, newest first."""
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
    """Write entries to FILE (- for standard output), oldest first, one JSON object per line."""
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
    """Verify the hash chain of the log. Keep the printed head in another place."""
    with opened(config_path) as store:
        verdict = verify_audit(store.reader, store.sealer)
    if verdict.broken is not None:
        raise StoreError(f"broken after {verdict.intact} intact entries: {verdict.broken}")
    if as_json:
        click.echo(json_line({"intact": verdict.intact, "head": verdict.head.hash.hex() or None}))
    else:
        click.echo(f"{verdict.intact} entries intact, head {verdict.head.hash.hex() or '-'}")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only count what is due for deletion.")
@json_option
@config_option
def purge(config_path: Path | None, dry_run: bool, as_json: bool) -> None:
    """Delete what has been kept for its [retention] time. The relay does this by itself every night."""
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
