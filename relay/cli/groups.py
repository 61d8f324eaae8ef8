"""`relay700 groups` and `lists`: real numbers that business users keep with the relay."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TextIO

import click

from relay.cli import config_option, say
from relay.cli.operations import Command, asker_of, command_of, printed
from relay.cli.options import every, in_clear, opened, required, said_in_clear, showing_options
from relay.cli.output import file_progress, show_one
from relay.operations import groups as operations
from relay.operations import lists as list_operations
from relay.service.imports import import_members
from relay.store.groups import find_group

_GROUP_COLUMNS = ("id", "business", "name", "size", "created_at")
_ENTRY_COLUMNS = ("number", "kind", "added_at", "added_by")


@click.group()
def groups() -> None:
    """Groups of parties: the G of GXB and GXYB."""


groups.add_command(command_of("make", Command(operations.make_group, makes=True), arguments=["name"]))
groups.add_command(command_of("list", Command(operations.list_groups, columns=_GROUP_COLUMNS, newest="created_at")))
groups.add_command(command_of("add", Command(operations.add_members, says="{changed} added"), arguments=["members"]))
groups.add_command(
    command_of("remove", Command(operations.remove_members, says="{changed} removed"), arguments=["members"])
)
groups.add_command(command_of("delete", Command(operations.delete_group, says="deleted {id}")))


@groups.command("show")
@click.argument("group_id")
@showing_options
@config_option
def show_group(config_path: Path | None, group_id: str, as_json: bool, reveal: bool, reason: str) -> None:
    """Show a group and its members."""
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    with opened(config_path) as store:
        required(find_group(store.reader, store.sealer, group_id), "group", "groups list")
        if clear:
            said_in_clear(store, f"group {group_id}", reason)
        asker = asker_of(store, clear=clear)
        group = operations.show_group.do(store.reader, asker, group_id)
        members = operations.list_members.do(asker, group_id)
        found = every(partial(members.read, store.reader), members.first, members.position)
        numbers = [members.show(member, asker).number for member in found]
    show_one(printed(group, clear=clear) | {"members": numbers}, as_json=as_json)


@groups.command("import")
@click.argument("group_id")
@click.argument("file", type=click.File(encoding="utf-8-sig", errors="surrogateescape"))
@config_option
def import_group(config_path: Path | None, group_id: str, file: TextIO) -> None:
    """Add the number on each line of a file as a member. FILE may be - for standard input."""
    count = 0
    with opened(config_path) as store, file_progress(file, "members") as done:
        try:
            for added in import_members(file, group_id, store.run, store.rules):
                count += added
                done()
        finally:  # what was added before a fault stays
            say(f"{count} added")


@click.group()
def lists() -> None:
    """Blacklists and whitelists of callers."""


_set = partial(Command, list_operations.set_entry, says="on the {kind}list of {owner_id}")

lists.add_command(command_of("show", Command(list_operations.list_entries, columns=_ENTRY_COLUMNS, newest="added_at")))
lists.add_command(
    command_of(
        "black",
        _set(fixed={"kind": "black"}),
        arguments=["number"],
        help="Blacklist a caller: calls are refused from the next one on.",
    )
)
lists.add_command(
    command_of(
        "white",
        _set(fixed={"kind": "white"}),
        arguments=["number"],
        help="Whitelist a caller. It matters where only whitelisted callers are accepted (--white-only).",
    )
)
lists.add_command(
    command_of("remove", Command(list_operations.remove_entry, says="off the list of {owner_id}"), arguments=["number"])
)
