"""`relay700 capture`: whose calls are captured for a while, whatever comes of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option, say
from relay.cli.options import duration, every, json_option, limit_option, opened
from relay.cli.output import newest, show_list, show_one
from relay.model.capture import ArmKind
from relay.service import capture as rules
from relay.service.fields import format_moment
from relay.store.capture_arms import StoredArm, list_arms
from relay.store.writer import now_ms

_COLUMNS = ("id", "kind", "value", "expires_at", "armed_at", "armed_by")


@click.group()
def capture() -> None:
    """Capture all calls of a number, business user or peer.

    They are kept whatever their outcome. `relay700 calls ladder` shows them.
    """


@capture.command("arm")
@click.option("--number", metavar="N", help="A party or a 700 number.")
@click.option("--business", metavar="ID", help="A business user.")
@click.option("--peer", metavar="NAME", help="A peer; its registrations too.")
@click.option("--for", "for_ms", required=True, type=duration, metavar="TIME", help="How long: 30m, 1h; 7d at most.")
@json_option
@config_option
def arm(
    config_path: Path | None, number: str | None, business: str | None, peer: str | None, for_ms: int, as_json: bool
) -> None:
    """Capture for the given time, beginning within two seconds."""
    every_: list[tuple[ArmKind, str | None]] = [("number", number), ("business", business), ("peer", peer)]
    given = [(kind, value) for kind, value in every_ if value is not None]
    if len(given) != 1:
        raise click.UsageError("write one of --number, --business and --peer")
    ((kind, value),) = given
    with opened(config_path) as store:
        peers = [each.name for each in store.config.settings.peers]
        made = store.run(lambda unit: rules.arm(unit, kind, value, for_ms, store.config.capture, peers))
    show_one(_object(made), as_json=as_json)


@capture.command("list")
@limit_option
@json_option
@config_option
def list_(config_path: Path | None, limit: int | None, as_json: bool) -> None:
    """List what is armed, newest first. Real numbers are masked."""
    with opened(config_path) as store:
        find = partial(list_arms, store.reader, store.sealer, now_ms())
        found = newest(every(find, "", lambda stored: stored.arm.id), lambda stored: stored.armed_at)
        show_list(map(_object, found), _COLUMNS, as_json=as_json, limit=limit)


@capture.command("disarm")
@click.argument("arm_id", metavar="ID")
@config_option
def disarm(config_path: Path | None, arm_id: str) -> None:
    """Stop capturing at once. What was captured stays."""
    with opened(config_path) as store:
        store.run(lambda unit: rules.disarm(unit, arm_id))
    say(f"disarmed {arm_id}")


def _object(stored: StoredArm) -> dict[str, Any]:
    armed = stored.arm
    return {
        "id": armed.id,
        "kind": armed.kind,
        "value": armed.shown_value,
        "armed_at": format_moment(stored.armed_at),
        "armed_by": stored.armed_by,
        "expires_at": format_moment(armed.until_ms),
    }
