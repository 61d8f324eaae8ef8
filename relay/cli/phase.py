"""`relay700 phase`: the phase of the pilot, and what is left to do."""

from __future__ import annotations

from typing import Any

import click

from relay.cli import say
from relay.cli.operations import Command, command_of
from relay.cli.output import show_list, show_one
from relay.operations import phase as operations


def _told(shown: operations.PhaseResponse) -> None:
    values = shown.model_dump(mode="json")
    left: list[dict[str, Any]] = values.pop("left")
    show_one(values, as_json=False)
    if not left:
        say("nothing uses old middle numbers")
        return
    show_list(({"business": each.pop("business_id"), **each} for each in left), _COLUMNS, as_json=False)


_COLUMNS = ("business", "bindings", "outlasting", "calls", "calls_before", "trend", "in_time")

phase: click.Command = command_of("phase", Command(operations.show_phase, told=_told))
