"""`relay700 calls ladder`: the messages of a captured call."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay.cli import config_option, localised
from relay.cli.options import Opened, in_clear, opened, reason_option, required, reveal_option, said_in_clear
from relay.cli.output import FILE_OR_DASH, json_line, written
from relay.cli.serve import ask
from relay.errors import Refused
from relay.model.call import CallRecord
from relay.model.capture import REGISTRATIONS
from relay.reports.recordings import find_call
from relay.store.captures import Captures
from relay.store.writer import now_ms

if TYPE_CHECKING:
    from relay.trace.ladder import Ladder
    from relay.trace.ladder_text import Style

_STYLES: dict[Style, dict[str, Any]] = {
    "head": {"bold": True},
    "time": {"dim": True},
    "request": {"bold": True},
    "progress": {"fg": "cyan"},
    "success": {"fg": "green"},
    "failure": {"fg": "red"},
    "mark": {"fg": "blue"},
    "withheld": {"fg": "yellow"},
}


@click.command()
@click.argument("call_id", metavar="ID")
@click.option("--messages", is_flag=True, help="Also the text of each message.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; in clear with --reason.")
@click.option("--html", type=FILE_OR_DASH, metavar="FILE", help="Write one self-contained HTML file.")
@click.option("--pcap", type=FILE_OR_DASH, metavar="FILE", help="Write a capture for Wireshark or sngrep.")
@reveal_option
@reason_option
@config_option
def ladder(
    config_path: Path | None,
    call_id: str,
    messages: bool,
    as_json: bool,
    html: Path | None,
    pcap: Path | None,
    reveal: bool,
    reason: str,
) -> None:
    """Show the SIP messages of a call, and what did not cross.

    ID is a call id, or register:PEER for the registrations of a peer. Numbers, addresses of parties and bodies are
    masked without --reveal. Which calls are kept: [capture] in the configuration.
    """
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    with opened(config_path) as store:
        shown = read_ladder(store, call_id, clear=clear, reason=reason)
    for file, make in ((html, _html), (pcap, _pcap)):
        if file is not None:
            with written(file, private=clear) as out:
                out.write(make(shown))
    if as_json:
        from relay.trace.ladder import ladder_object

        click.echo(json_line(ladder_object(shown)))
    elif html is None and pcap is None:
        echo_ladder(shown, messages=messages)


def read_ladder(store: Opened, call_id: str, *, clear: bool, reason: str) -> Ladder:
    """The audit line of a reading in clear comes first. Raises Refused."""
    from relay.trace.ladder import build_ladder, operator_view, why_absent

    record = None
    if not call_id.startswith(REGISTRATIONS):
        record = required(_record(store, call_id), "call", "calls list")
    with closing(Captures(store.config.store.path, store.sealer)) as captures:
        captured = captures.load(call_id)
    if captured is None:
        raise Refused("not_found", "", why_absent(record, store.config.capture, now_ms()))
    if clear:
        said_in_clear(store, f"ladder {call_id}", reason)
    return build_ladder(captured, record, operator_view(reveal=clear))


def _record(store: Opened, call_id: str) -> CallRecord | None:
    """The record of an ended or live call, from the store, else from the running relay."""
    from relay.trace.ladder import record_of

    record = find_call(store.reader, store.sealer, call_id)
    if record is not None:
        return record
    try:
        live = ask(store.config, "call", call_id=call_id, reveal=False)
    except Refused:
        return find_call(store.reader, store.sealer, call_id)  # it may have ended meanwhile
    return record_of(live)


def _html(ladder: Ladder) -> bytes:
    from relay.trace.ladder_html import ladder_html

    return ladder_html(ladder).encode()


def _pcap(ladder: Ladder) -> bytes:
    from relay.trace.pcap import ladder_pcap

    return ladder_pcap(ladder)


def echo_ladder(ladder: Ladder, *, messages: bool = False, withheld: bool = True) -> None:
    """Coloured on a terminal, unless NO_COLOR is set (no-color.org); in ASCII if it has no UTF-8."""
    from relay.trace.ladder_text import ladder_text

    is_plain = bool(os.environ.get("NO_COLOR"))
    ascii_ = "utf" not in (sys.stdout.encoding or "").lower()

    def paint(text: str, style: Style) -> str:
        return text if is_plain else click.style(text, **_STYLES[style])

    for line in ladder_text(ladder, ascii_=ascii_, messages=messages, withheld=withheld, paint=paint, words=localised):
        click.echo(line)
