"""`relay700 audit`, `purge` and `verify`: audit log, end of retention, proof of the store."""

from __future__ import annotations

import asyncio
import syslog
from collections.abc import Iterator
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from relay.cli import config_option, listed, say
from relay.cli.options import (
    SINCE,
    UNTIL,
    Opened,
    every,
    in_clear,
    json_option,
    limit_option,
    opened,
    past,
    reason_option,
    reveal_option,
    said_in_clear,
    stacked,
)
from relay.cli.output import FILE_OR_DASH, appended, json_line, plain, progress, show_list, show_one, written
from relay.errors import ParseError, StoreError
from relay.reports.disclosure import details_form, reason_form
from relay.reports.recordings import RecordingsCheck, verify_recordings
from relay.service import fields
from relay.service.fields import format_moment
from relay.service.retention import captures_due, due, purge_captures
from relay.service.retention import purge as purge_store
from relay.store.allocation import rest_all
from relay.store.audit import (
    AuditCheck,
    AuditQuery,
    LoggedEntry,
    all_entries,
    count_entries,
    newest_entries,
    verify_audit,
)
from relay.store.captures import Captures
from relay.store.chain import Anchor, AnchorFile, growth_faults, parse_anchor, present_anchor, read_anchor
from relay.store.keys import name_of_actor
from relay.store.ledger import sign_all
from relay.store.records import RecordsCheck
from relay.store.rights_check import check_rights
from relay.store.unit_of_work import UnitOfWork, operator_cli
from relay.store.writer import now_ms

_ENTRY_COLUMNS = ("at", "actor", "actor_name", "action", "object", "business", "reason")

_query = stacked(
    click.option("--actor", metavar="NAME", help='Only entries of this actor: "cli:USER", "key:ID" or "relay".'),
    click.option("--action", metavar="NAME", help="Only this action, such as business.suspend, read or traceback."),
    click.option(
        "--object",
        "object_",
        metavar="ID",
        help='Only entries about this ID or 700 number; it also finds "call ID" and "ladder ID".',
    ),
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
def list_log(
    config_path: Path | None, limit: int | None, as_json: bool, reveal: bool, reason: str, **query: Any
) -> None:
    """List entries, newest first."""
    in_clear(reveal=reveal, reason=reason)
    with opened(config_path) as store:
        if reveal:
            said_in_clear(store, "audit", reason, query)
        asked = AuditQuery(**query)
        found = every(partial(newest_entries, store.reader, store.sealer, asked), None, lambda entry: entry.seq)
        name_of = cache(partial(name_of_actor, store.reader, store.sealer))
        show_list(
            (_plain(entry, name_of(entry.entry.actor), reveal=reveal) for entry in found),
            _ENTRY_COLUMNS,
            as_json=as_json,
            limit=limit,
        )


@audit.command("export")
@click.argument("file", type=FILE_OR_DASH)
@_query
@reveal_option
@reason_option
@config_option
def export_entries(config_path: Path | None, file: Path, reveal: bool, reason: str, **query: Any) -> None:
    """Write entries to FILE as lines of JSON, oldest first. FILE may be - for standard output."""
    in_clear(reveal=reveal, reason=reason)
    asked = AuditQuery(**query)
    with opened(config_path) as store:
        if reveal:
            said_in_clear(store, "audit", reason, query)
        with written(file, private=reveal) as out, progress(count_entries(store.reader, asked), "entries") as done:
            name_of = cache(partial(name_of_actor, store.reader, store.sealer))
            for entry in all_entries(store.reader, store.sealer, asked):
                out.write(f"{json_line(_plain(entry, name_of(entry.entry.actor), reveal=reveal))}\n".encode())
                done(1)


@audit.command("verify")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@config_option
def verify_chain(config_path: Path | None, as_json: bool) -> None:
    """Verify the hash chain of the log. Keep the printed head in another place."""
    with opened(config_path) as store:
        verdict = verify_audit(store.reader, store.sealer)
    if verdict.broken is not None:
        raise StoreError(f"broken after {verdict.intact} intact entries: {verdict.broken}")
    if as_json:
        click.echo(json_line({"intact": verdict.intact, "head": verdict.head.hash.hex() or None}))
    else:
        say(f"{verdict.intact} entries intact, head {verdict.head.hash.hex() or '-'}")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only count what is due for deletion.")
@json_option
@config_option
def purge(config_path: Path | None, dry_run: bool, as_json: bool) -> None:
    """Delete what has reached its retention time.

    That is [retention], and `keep_for` of [capture]. The relay does this by itself every night, and for captures every
    ten seconds.
    """
    with (
        opened(config_path) as store,
        closing(Captures(store.config.store.path, store.sealer)) as kept,
    ):
        config, now = store.config, now_ms()
        of_captures = (kept, config.capture, config.retention, now)
        if dry_run:
            purged, captures = due(store.reader, config.retention, now), captures_due(*of_captures)
        else:
            captures = purge_captures(*of_captures)
            purged = purge_store(store.writer, config.retention, config.recordings.kept_in, now, operator_cli())
    show_one(plain(purged) | {"captures": captures}, as_json=as_json)


def _plain(logged: LoggedEntry, actor_name: str | None, *, reveal: bool) -> dict[str, Any]:
    shown = {
        "actor_name": actor_name,
        "reason": reason_form(logged.entry.reason, reveal=reveal),
        "details": details_form(logged.entry, reveal=reveal),
    }
    entry = plain(logged.entry) | shown
    return {"seq": logged.seq} | {"object" if name == "object_" else name: value for name, value in entry.items()}


# -- `relay700 verify`

MOST_NAMED = 1_000  # faults printed, or written to the audit log
PUBLISH_S = 10.0  # timeout of the POST to an endpoint


class _Found(NamedTuple):
    """Results of the checks, and all faults."""

    records: RecordsCheck
    audit: AuditCheck
    recordings: RecordingsCheck
    captures: int  # that open
    problems: list[str]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--since",
    metavar="HEAD",
    help="Prove also that the store has only grown since HEAD, or since the last head in a FILE written by --publish.",
)
@click.option(
    "--publish", multiple=True, metavar="TARGET", help="Publish the head to log (syslog), a FILE or an https:// URL."
)
@click.option(
    "--accept", is_flag=True, help="Sign the rows as they are, such as after restoring a backup; needs --reason."
)
@click.option(
    "--rest/--no-rest",
    default=None,
    help="With --accept: whether all free numbers rest for their cool-down, as bindings made later may be lost."
    " Default: only if the anchor file or --since proves a loss.",
)
@reason_option
@config_option
def verify(
    config_path: Path | None,
    as_json: bool,
    since: str | None,
    publish: tuple[str, ...],
    accept: bool,
    rest: bool | None,
    reason: str,
) -> None:
    """Check that the store is as relay700 wrote it.

    Every row, record, audit line and recording is checked against the key, and every capture opened. Anything changed,
    added, removed or put back by someone else is reported. The printed head says where the store ends: keep it in
    another place, by hand or with --publish, and give it to --since later.
    """
    anchor = _anchor(since)
    if accept and not fields.says_something(reason):
        raise click.UsageError("--accept needs --reason TEXT, for the audit log")
    with opened(config_path, earlier=True, as_is=not accept) as store:
        rested = _accept(store, reason, anchor, rest) if accept else None
        if rested:
            say(
                f"later bindings may be lost: {rested} free numbers rest for their cool-down. Until then new bindings"
                " share numbers that their business user has in use, or are refused. If that cannot wait, add a prefix"
                " that was never in use, or end the rest: relay700 numbers end-rest --reason TEXT",
                err=True,
            )
        found = _check(store, anchor)
        if found.problems:
            lost = ["the rows were accepted as they are; what is lost stays lost:"] if accept else []
            raise StoreError("\n".join(lost + found.problems))
        if accept and rested is None:
            say(
                "nothing to accept: the store is intact and complete. If you restored an older copy, look at its path:"
                " `[store] url` names the store",
                err=True,
            )
        head = read_anchor(store.reader, store.sealer)
        for target in publish:
            _publish(store, target, head)
    click.echo(json_line(_object(found, head)) if as_json else _line(found, head))


def _anchor(since: str | None) -> Anchor | None:
    if since is None:
        return None
    try:
        return parse_anchor(_published(Path(since)) if Path(since).is_file() else since)
    except ParseError as error:
        raise click.BadParameter(error.reason, param_hint="--since") from None


def _published(file: Path) -> str:
    """The last head published to a file."""
    try:
        *_, last = file.read_text().splitlines()
        return str(msgspec.json.decode(last)["head"])
    except (OSError, ValueError, KeyError, TypeError, msgspec.DecodeError):
        raise ParseError(f"{file} holds no head written by `relay700 verify --publish`") from None


def _check(store: Opened, since: Anchor | None) -> _Found:
    reader, sealer = store.reader, store.sealer
    rights = check_rights(reader, sealer, now_ms)
    records = rights.records
    audit = verify_audit(reader, sealer)
    kept_in = store.config.recordings.kept_in
    recordings = verify_recordings(reader, sealer, kept_in, records.recorded, now_ms())
    problems = [] if records.broken is None else [f"broken after {records.intact} intact records: {records.broken}"]
    problems += [] if audit.broken is None else [f"broken after {audit.intact} intact audit lines: {audit.broken}"]
    problems += recordings.broken
    with closing(Captures(store.config.store.path, sealer)) as captures:
        captured, broken = captures.verify()
    problems += _some(broken)
    problems += _some(rights.named())
    return _Found(records, audit, recordings, captured, problems + list(_not_grown(store, since)))


def _not_grown(store: Opened, since: Anchor | None) -> Iterator[str]:
    if since is not None:
        yield from growth_faults(store.reader, since, "when the given head was written")
    try:
        AnchorFile(store.config.store.local, store.sealer).check(store.reader)
    except StoreError as error:
        yield str(error)


def _some(faults: list[str]) -> list[str]:
    return faults if len(faults) <= MOST_NAMED else [*faults[:MOST_NAMED], f"and {len(faults) - MOST_NAMED} more"]


def _accept(store: Opened, reason: str, since: Anchor | None, rest: bool | None) -> int | None:
    """Sign all rows as they are, and list their faults in the audit log. Return how many numbers were put to rest; None
    if nothing was at fault, which the audit log has too: the entry ends an alert.

    A store that lacks bindings would give out their numbers first. `rest`: whether free numbers rest; None: if an
    anchor proves a loss. Raises UsageError for None if there is no good anchor file.
    """
    file = AnchorFile(store.config.store.local, store.sealer)
    known, faults = None, []
    try:
        known = file.read()
    except StoreError as error:
        faults.append(str(error))
    lost = any(anchor is not None and growth_faults(store.reader, anchor, "") for anchor in (known, since))
    if rest is None:
        rest = lost
        if known is None and not rest:
            raise click.UsageError(
                f"without a good {file.path} it is not known whether the store lacks bindings: give --rest if it is an"
                " older copy, so that no free number is given out before its cool-down, or --no-rest if it lacks none"
            )
    rights = check_rights(store.reader, store.sealer, now_ms)
    faults += _some(rights.named())

    def do(unit: UnitOfWork) -> int:
        rested = rest_all(unit, store.rules.cool_down_ms) if rest else 0
        sign_all(unit.connection, unit.sealer, beyond=0 if known is None else known.revision)
        ended = [[fault.table, fault.row_key] for fault in rights.ended]  # the history of these begins anew
        details: dict[str, object] = {"faults": faults, "rested": rested, "rights": ended}
        unit.audit("ledger.accept", "store", reason=fields.reason(reason), details=details)
        return rested

    rested = store.run(do)
    file.write(present_anchor(store.reader, store.sealer))
    for fault in rights.ended[:MOST_NAMED]:
        named = f"{fault.table} {fault.row_key}"
        say(f"{named} is in force again, as it was accepted: end it once more if that is not meant", err=True)
    return rested if faults or lost or rest or known is None else None


def _publish(store: Opened, target: str, head: Anchor) -> None:
    """Write the head to one target. Raises StoreError on failure."""
    now = format_moment(now_ms())
    if target == "log":
        syslog.syslog(syslog.LOG_NOTICE, f"relay700 head {head}")
        return
    text = msgspec.json.encode({"head": str(head), "at": now})
    signed = {"signature": store.sealer.sign(text).hex(), "public_key": store.sealer.public_key().hex()}
    line = json_line({"head": str(head), "at": now, "signed": text.decode(), **signed})
    if target.startswith("https://"):
        asyncio.run(_post(target, line))
        return
    with appended(Path(target)) as file:
        file.write(f"{line}\n".encode())


async def _post(url: str, line: str) -> None:
    import aiohttp  # only for an endpoint

    headers = {"Content-Type": "application/json"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PUBLISH_S)) as session,
            session.post(url, data=line.encode(), headers=headers, allow_redirects=False) as answer,
        ):
            if answer.status // 100 != 2:
                raise StoreError(f"{url} did not accept the head: status {answer.status}")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise StoreError(f"{url} did not accept the head: {error or 'no answer in time'}") from None


def _object(found: _Found, head: Anchor) -> dict[str, object]:
    records, recordings = found.records, found.recordings
    counts = {"intact": records.intact, "live": records.live, "purged": records.purged, "audit": found.audit.intact}
    counts |= {"recordings": recordings.intact, "recordings_missing": len(recordings.missing)}
    return counts | {"captures": found.captures, "head": str(head)}


def _line(found: _Found, head: Anchor) -> str:
    records, recordings = found.records, found.recordings
    parts = [f"{records.intact} records intact", f"{records.live} live"]
    parts += [f"{records.purged} purged before"] * bool(records.purged)
    parts += [f"{recordings.intact} recordings intact"] * bool(records.recorded)
    parts += [f"{len(recordings.missing)} missing"] * bool(recordings.missing)
    parts += [f"{found.captures} captures intact"] * bool(found.captures)
    parts += [f"{found.audit.intact} audit lines intact", f"head {head}"]
    return listed(parts)
