"""`relay700 numbers` and `pools`: the platform's prefixes and 700 numbers, and the pools they are in."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from relay.cli import config_option
from relay.cli.operations import Command, command_of
from relay.cli.options import json_option, opened
from relay.cli.output import plain, show_list
from relay.operations import numbers as operations
from relay.operations import pools as pool_operations
from relay.operations.shapes import STORE_NAMES
from relay.store.numbers import usage
from relay.store.writer import now_ms

_COLUMNS = ("number", "pool", "state", "locked_by", "bindings", "cools_until")
_PREFIX_COLUMNS = ("prefix", "operator", "platform", "peer", "state", "cool_down_s", "created_at")
_POOL_COLUMNS = ("id", "business", "area", "max_bindings", "warn_percent")
_USAGE_COLUMNS = ("pool", "business", "total", "free", "bound", "cooling", "locked", "bindings", "percent", "warning")


@click.group()
def numbers() -> None:
    """The platform's prefixes and 700 numbers."""


_locked = partial(Command, says="{number} is {state}")

for made in (
    command_of(
        "load",
        Command(operations.load_prefix, says="{loaded} numbers loaded", makes=True),
        arguments=["prefix"],
    ),
    command_of("prefixes", Command(operations.list_prefixes, columns=_PREFIX_COLUMNS)),
    command_of("prefix", Command(operations.change_prefix)),
    command_of("list", Command(operations.list_numbers, columns=_COLUMNS)),
    command_of("show", Command(operations.show_number)),
    command_of("lock", _locked(operations.lock_number)),
    command_of("unlock", _locked(operations.unlock_number)),
    command_of("hold", Command(operations.hold_number, says="{number} is held")),
    command_of("unhold", _locked(operations.unhold_number)),
    command_of("move", Command(operations.move_numbers, says="{moved} moved"), arguments=["numbers"]),
    command_of("end-rest", Command(operations.end_rest, says="{ended} numbers rest no longer")),
):
    numbers.add_command(made)


@click.group()
def pools() -> None:
    """Pools of free numbers, and their usage."""


for made in (
    command_of("make", Command(pool_operations.make_pool, makes=True), arguments=["id"]),
    command_of("change", Command(pool_operations.change_pool)),
    command_of("show", Command(pool_operations.show_pool, listed_by="pools list")),
    command_of("list", Command(pool_operations.list_pools, columns=_POOL_COLUMNS)),
):
    pools.add_command(made)


@pools.command("usage")
@json_option
@config_option
def usage_(config_path: Path | None, as_json: bool) -> None:
    """Show the usage of each pool. `warning`: warn_percent is reached."""
    with opened(config_path) as store:
        found = usage(store.reader, now_ms())
    shown = ({STORE_NAMES.get(name, name): each for name, each in plain(pool).items()} for pool in found)
    show_list(shown, _USAGE_COLUMNS, as_json=as_json)
