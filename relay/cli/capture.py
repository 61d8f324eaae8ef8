"""`relay700 capture`: whose calls are captured for a while, whatever comes of them."""

from __future__ import annotations

from typing import Any

import click

from relay.cli.operations import Command, command_of
from relay.operations import capture as operations

_COLUMNS = ("id", "kind", "value", "expires_at", "armed_at", "armed_by")


@click.group()
def capture() -> None:
    """Capture all calls of a number, business user or peer.

    They are kept whatever their outcome. `relay700 calls ladder` shows them.
    """


def _check_one(asked: dict[str, Any]) -> None:
    if sum(asked[name] is not None for name in ("number", "business_id", "peer")) != 1:
        raise click.UsageError("write one of --number, --business and --peer")


capture.add_command(command_of("arm", Command(operations.arm_capture, check=_check_one)))
capture.add_command(command_of("list", Command(operations.list_armed, columns=_COLUMNS, newest="armed_at")))
capture.add_command(command_of("disarm", Command(operations.disarm_capture, says="disarmed {id}")))
