"""`relay700 recordings`: list and export recordings of calls."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from relay.cli import config_option
from relay.cli.options import SINCE, UNTIL, limit_option, needed_reason
from relay.cli.output import show_list, written
from relay.cli.stores import every, opened, past
from relay.reports.recordings import ask_recording, read_recording
from relay.store.recordings import NEWEST, RecordingQuery, list_recordings
from relay.store.records import LAST_MS

_COLUMNS = ("taken_at", "call_id", "business", "length_ms", "size", "sha256", "purged_at")


@click.group()
def recordings() -> None:
    """Recordings of calls."""


@recordings.command("list")
@click.option("--business", metavar="ID", help="Only recordings of this business user.")
@click.option("--since", type=past, default=None, metavar="TIME", help=SINCE)
@click.option("--until", type=past, default=None, metavar="TIME", help=UNTIL)
@limit_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@config_option
def list_(
    config_path: Path | None,
    business: str | None,
    since: int | None,
    until: int | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List recordings, purged ones included, by the time they were taken over from rtpengine, newest first."""
    query = RecordingQuery(business, since or 0, LAST_MS if until is None else until)
    with opened(config_path) as store:
        found = every(
            partial(list_recordings, store.reader, query),
            NEWEST,
            lambda recording: (recording.taken_at, recording.call_id),
        )
        show_list(found, _COLUMNS, as_json=as_json, limit=limit)


@recordings.command("get")
@click.argument("call_id")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="Capture file to write.",
)
@needed_reason
@config_option
def get(config_path: Path | None, call_id: str, out: Path, reason: str) -> None:
    """Write the recording of a call as a capture (pcap), with the addresses of both sides. The file has mode 0600."""
    with opened(config_path) as store:
        recording = store.act(lambda act: ask_recording(act, call_id, reason))
        parts = read_recording(store.config.recordings.kept_in, store.sealer, recording)
        with written(out) as file:
            file.writelines(parts)
    click.echo(f"{recording.size} bytes, {recording.length_ms / 1000:.1f} s, sha256 {recording.sha256}")
