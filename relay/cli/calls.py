"""`relay700 calls` and `recordings`: list, show, export, hang up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

import click

from relay.cli import config_option, say
from relay.cli.ladders import ladder
from relay.cli.options import (
    SINCE,
    UNTIL,
    Opened,
    duration,
    every,
    in_clear,
    json_option,
    limit_option,
    needed_reason,
    number,
    opened,
    past,
    reason_option,
    required,
    reveal_option,
    said_in_clear,
    showing_options,
)
from relay.cli.output import (
    FILE_OR_DASH,
    RECORD_HEADING,
    first_of,
    json_line,
    progress,
    record_object,
    record_row,
    show_list,
    show_one,
    shower,
    table,
    written,
)
from relay.cli.serve import ask, ask_audited
from relay.errors import Refused
from relay.model.call import CallRecord, Kind
from relay.model.numbers import is_700
from relay.privacy.records import mask_texts
from relay.reports.disclosure import state_of, with_moments
from relay.reports.export import Format, check_format, export_parts
from relay.reports.recordings import CallQuery, find_call, of_call, read_recording, read_wav
from relay.service import fields
from relay.service.fields import format_moment
from relay.service.recordings import ask_recording, delete_marked, delete_recording, make_link
from relay.store.bindings import find_binding
from relay.store.recordings import NEWEST, Channels, RecordingQuery, find_recording, list_recordings
from relay.store.records import LAST_MS, RecordFilter, count_ended, live_calls, read_all
from relay.store.writer import now_ms

MOST_LIVE = 10_000
_LIVE_COLUMNS = ("received_at", "state", "number_dialled", "caller", "callee", "business", "call_id")
_since = click.option("--since", type=past, metavar="TIME", help=SINCE)
_until = click.option("--until", type=past, metavar="TIME", help=UNTIL)
_business = click.option("--business", metavar="ID", help="Only calls of this business user.")
_ARRIVAL = attrgetter("received_at")


@click.group()
def calls() -> None:
    """Call records and live calls."""


def _outcome(text: str) -> str:
    """A click type: an outcome of call records."""
    from relay.model.outcomes import OUTCOMES

    if text not in OUTCOMES:
        words = f"there is no outcome {text}. These are the outcomes:"
        raise click.BadParameter("\n".join([words, ", ".join(OUTCOMES)]))
    return text


@calls.command("list")
@click.option(
    "--number",
    type=number,
    metavar="NUMBER",
    help='Only calls with this 700 number or party, in any role; a foreign one with "+".',
)
@click.option("--order", metavar="TEXT", help="Only calls of this order.")
@_business
@click.option("--binding", metavar="ID", help="Only calls of this binding.")
@click.option("--kind", type=click.Choice(get_args(Kind)), help="Only calls, or only text messages.")
@click.option("--outcome", type=_outcome, metavar="NAME", help="Only calls with this outcome, such as no_binding.")
@_since
@_until
@click.option("--live", is_flag=True, help="Only live calls.")
@limit_option
@showing_options
@config_option
def list_calls(
    config_path: Path | None,
    number: str | None,
    order: str | None,
    business: str | None,
    binding: str | None,
    kind: Kind | None,
    outcome: str | None,
    since: int | None,
    until: int | None,
    live: bool,
    limit: int | None,
    as_json: bool,
    reveal: bool,
    reason: str,
) -> None:
    """List call records, newest first. Live calls come before ended and refused ones.

    A call has a record once it is answered or has ended; `calls live` shows ringing calls too.
    """
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    with opened(config_path) as store:
        numbers = None
        if binding is not None:
            numbers = required(find_binding(store.reader, store.sealer, binding), "binding", "bindings list").numbers
        wanted = RecordFilter(
            number=number,
            numbers=numbers,
            order_id=order,
            business=business,
            since_ms=since or 0,
            until_ms=LAST_MS if until is None else until,
        )
        asked = CallQuery(wanted, outcome, kind, binding)
        if clear:
            query = {"number": number, "order": order, "business": business, "since": since, "until": until}
            query |= {"binding": binding, "kind": kind, "outcome": outcome, "live": live}
            said_in_clear(store, number if number and is_700(number) else "calls", reason, query)
        found: Iterable[CallRecord] = _found(store, wanted, live=live)
        found = first_of(filter(asked.fits, found), limit)
        if as_json:
            for record in found:
                click.echo(json_line(record_object(record, clear=clear)))
            return
        show = shower(reveal=clear)
        for line in table(RECORD_HEADING, (record_row(record, show) for record in found)):
            click.echo(line)


def _found(store: Opened, wanted: RecordFilter, *, live: bool) -> Iterator[CallRecord]:
    up = sorted(filter(wanted.fits, live_calls(store.reader, store.sealer)), key=_ARRIVAL, reverse=True)
    yield from up
    if not live:
        seen = {record.call_id for record in up}  # a live call may end before the next read
        ended = read_all(store.reader, store.sealer, wanted, newest_first=True)
        yield from (record for record in ended if record.call_id not in seen)


@calls.command("show")
@click.argument("call_id", metavar="ID")
@showing_options
@config_option
def show_(config_path: Path | None, call_id: str, as_json: bool, reveal: bool, reason: str) -> None:
    """Show one call: ended, live or ringing."""
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    with opened(config_path) as store:
        found = _one(store, call_id) or _one(store, call_id)  # a call may end between the store and the relay
        shown = required(found, "call", "calls list")
        if clear:
            said_in_clear(store, f"call {call_id}", reason)
            shown = _one(store, call_id, reveal=True) or shown
        recording = of_call(store.reader, store.sealer, call_id)
    show_one(shown | recording | {"state": state_of(shown)}, as_json=as_json)


def _one(store: Opened, call_id: str, *, reveal: bool = False) -> dict[str, Any] | None:
    """Return a call from the store, else from the running relay."""
    record = find_call(store.reader, store.sealer, call_id)
    if record is not None:
        return record_object(record, clear=reveal)
    try:
        live = ask(store.config, "call", call_id=call_id, reveal=reveal)
    except Refused:
        return None
    return with_moments(dict.fromkeys(CallRecord._fields) | (live if reveal else mask_texts(live)))


@calls.command("live")
@_business
@limit_option
@showing_options
@config_option
def live_(
    config_path: Path | None, business: str | None, limit: int | None, as_json: bool, reveal: bool, reason: str
) -> None:
    """List ringing and live calls of the running relay, newest first."""
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    with opened(config_path) as store:
        if clear:
            said_in_clear(store, "calls live", reason, {"business": business})
        answer = ask(store.config, "live", business=business, most=MOST_LIVE, reveal=clear)
    shown = (_live_call(call if clear else mask_texts(call)) for call in answer["calls"])
    show_list(shown, _LIVE_COLUMNS, as_json=as_json, limit=limit)
    read, total = len(answer["calls"]), answer["total"]
    if total > read and (limit is None or limit > read):
        say(f"only the newest {read} of {total} calls were read", err=True)


def _live_call(call: dict[str, Any]) -> dict[str, Any]:
    state = "up" if call["answered_at"] else "ringing" if call["ringing_at"] else "setting up"
    moments = {name: format_moment(value) for name, value in call.items() if name.endswith("_at") and value is not None}
    return call | moments | {"state": state}


@calls.command("hang-up")
@click.argument("call_id")
@needed_reason
@config_option
def hang_up(config_path: Path | None, call_id: str, reason: str) -> None:
    """Hang up a call on both sides."""
    with opened(config_path) as store:
        why = fields.reason(reason, required=True)
        ask_audited(store, "hang_up", {"call_id": call_id}, "call.hang_up", call_id, why)
    say(f"hung up {call_id}")


@calls.command("export")
@click.argument("file", type=FILE_OR_DASH)
@click.option(
    "--format", "format_", type=click.Choice(get_args(Format)), default="csv", show_default=True, help="File format."
)
@_business
@_since
@_until
@reveal_option
@reason_option
@config_option
def export(
    config_path: Path | None,
    file: Path,
    format_: Format,
    business: str | None,
    since: int | None,
    until: int | None,
    reveal: bool,
    reason: str,
) -> None:
    """Write the records of ended calls to FILE (- for standard output). Real numbers are masked without --reveal."""
    wanted = RecordFilter(business=business, since_ms=since or 0, until_ms=now_ms() if until is None else until)
    in_clear(reveal=reveal, reason=reason)
    check_format(format_)
    with opened(config_path) as store:
        if reveal:
            said_in_clear(store, "calls export", reason, wanted._asdict())
        count = count_ended(store.reader, wanted.since_ms, wanted.until_ms)
        with written(file, private=reveal) as out, progress(count, "records") as done:
            records = _counted(read_all(store.reader, store.sealer, wanted), done)
            for part in export_parts(records, format_, reveal=reveal):
                out.write(part)


def _counted(records: Iterator[CallRecord], done: Any) -> Iterator[CallRecord]:
    for record in records:
        done(1)
        yield record


calls.add_command(ladder)

# -- `relay700 recordings`

_FILE = click.Path(path_type=Path, dir_okay=False)
_RECORDING_COLUMNS = ("taken_at", "call_id", "business", "length_ms", "size", "sha256", "purged_at")


@click.group()
def recordings() -> None:
    """Recordings of calls."""


@recordings.command("list")
@click.option("--business", metavar="ID", help="Only recordings of this business user.")
@_since
@_until
@limit_option
@json_option
@config_option
def list_recorded(
    config_path: Path | None,
    business: str | None,
    since: int | None,
    until: int | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List recordings, purged ones included, newest first. Their time is when they were taken over from rtpengine."""
    query = RecordingQuery(business, since or 0, LAST_MS if until is None else until)
    with opened(config_path) as store:
        found = every(
            partial(list_recordings, store.reader, query),
            NEWEST,
            lambda recording: (recording.taken_at, recording.call_id),
        )
        show_list(found, _RECORDING_COLUMNS, as_json=as_json, limit=limit)


_channels = click.option(
    "--channels",
    type=click.Choice(get_args(Channels)),
    default="mono",
    show_default=True,
    help="Of the WAV file; stereo: the caller left, the callee right.",
)


@recordings.command("get")
@click.argument("call_id")
@click.option("--wav", type=_FILE, metavar="FILE", help="WAV file to write.")
@click.option("-o", "--out", type=_FILE, metavar="FILE", help="Capture file (pcap) to write.")
@_channels
@needed_reason
@config_option
def get_recording(
    config_path: Path | None, call_id: str, wav: Path | None, out: Path | None, channels: Channels, reason: str
) -> None:
    """Write the recording of a call to a file.

    It is sound, or the capture that sound is made from; the file has mode 0600. The capture has the media addresses of
    both sides, the WAV file no address, number or text.
    """
    file_path = wav or out
    if file_path is None or (wav and out):
        raise click.UsageError("Write either --wav FILE or --out FILE.")
    with opened(config_path) as store:
        details: dict[str, object] = {"format": "wav" if wav else "pcap"}
        recording = store.run(lambda unit: ask_recording(unit, call_id, reason, details))
        place = store.config.recordings.kept_in, store.sealer, recording
        parts = read_wav(*place, channels)[1] if wav else read_recording(*place)
        with written(file_path, private=True) as file:
            file.writelines(parts)
    words = f"{recording.size} bytes, {recording.length_ms / 1000:.1f} s, sha256 {recording.sha256}"
    say(words, err=str(file_path) == "-")  # standard output is the recording then


@recordings.command("url")
@click.argument("call_id")
@click.option(
    "--key", "key_id", required=True, metavar="ID", help="API key that the link ends with; has recordings:read."
)
@_channels
@click.option("--expires-in", type=duration, default="10m", show_default=True, help="Life of the link, at most 7d.")
@needed_reason
@json_option
@config_option
def make_url(
    config_path: Path | None,
    call_id: str,
    key_id: str,
    channels: Channels,
    expires_in: int,
    reason: str,
    as_json: bool,
) -> None:
    """Make a link to the WAV file of a recording.

    It gives access without a key, until its time is over or its key ends.
    """
    with opened(config_path) as store:
        life_s = expires_in // 1000
        link = store.run(lambda unit: make_link(unit, call_id, key_id, channels=channels, life_s=life_s, reason=reason))
        recording = required(find_recording(store.reader, store.sealer, call_id), "recording", "recordings list")
        read_wav(store.config.recordings.kept_in, store.sealer, recording, channels)  # or say why it cannot be made
        url = store.config.api.public_url + link.path(store.sealer)
    show_one({"url": url, "expires_at": format_moment(1000 * link.expires_s)}, as_json=as_json)


@recordings.command("delete")
@click.argument("call_id")
@needed_reason
@config_option
def delete(config_path: Path | None, call_id: str, reason: str) -> None:
    """Delete a recording before the end of its retention.

    For example on a person's demand. Its length and hash stay with the call, and the reason in the audit log. Copies in
    backups and batches stay, too.
    """
    with opened(config_path) as store:
        kept_in = store.config.recordings.kept_in
        store.run(lambda unit: delete_recording(unit, kept_in, call_id, reason))
        delete_marked(kept_in, call_id)
    say(f"the recording of the call {call_id} is deleted")
