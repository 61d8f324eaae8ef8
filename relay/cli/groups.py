"""`relay700 groups` and `lists`: real numbers that business users keep with the relay."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TextIO, get_args

import click

from relay.cli import config_option, say
from relay.cli.options import (
    Opened,
    business_option,
    every,
    in_clear,
    json_option,
    limit_option,
    opened,
    required,
    said_in_clear,
    showing_options,
)
from relay.cli.output import file_progress, newest, plain, show_list, show_one, shower, shower_of_text
from relay.service import groups as list_service
from relay.service import groups as service
from relay.service.groups import Whose
from relay.service.imports import import_members
from relay.store.groups import Group, Kind, find_entries, find_group, find_groups, members_page

_GROUP_COLUMNS = ("id", "business", "name", "size", "created_at")
_ENTRY_COLUMNS = ("number", "kind", "added_at", "added_by")


@click.group()
def groups() -> None:
    """Groups of parties: the G of GXB and GXYB."""


@groups.command("make")
@click.argument("name")
@click.option("--member", "members", multiple=True, metavar="NUMBER", help="Party's real number; repeat for more.")
@business_option
@json_option
@config_option
def make_group(config_path: Path | None, name: str, members: tuple[str, ...], business: str, as_json: bool) -> None:
    """Make a group."""
    with opened(config_path, make=True) as store:
        made = store.run(lambda unit: service.make_group(unit, name, store.rules, business, members))
    show_one(_group(made), as_json=as_json)


@groups.command("list")
@click.option("--business", metavar="ID", help="Only groups of this business user.")
@limit_option
@json_option
@config_option
def list_groups(config_path: Path | None, business: str | None, limit: int | None, as_json: bool) -> None:
    """List groups, newest first."""
    with opened(config_path) as store:
        found = every(
            partial(find_groups, store.reader, store.sealer, business),
            "",
            lambda group: group.group_id,
        )
        show_list(map(_group, newest(found, attrgetter("created_at"))), _GROUP_COLUMNS, as_json=as_json, limit=limit)


@groups.command("show")
@click.argument("group_id", metavar="ID")
@showing_options
@config_option
def show_group(config_path: Path | None, group_id: str, as_json: bool, reveal: bool, reason: str) -> None:
    """Show a group and its members."""
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    with opened(config_path) as store:
        group = _found(store, group_id)
        if clear:
            said_in_clear(store, group_id, reason)
        show = shower(reveal=clear)
        members = [show(number) for number in _members(store, group_id)]
    show_one(_group(group, clear=clear) | {"members": members}, as_json=as_json)


@groups.command("add")
@click.argument("group_id", metavar="ID")
@click.argument("members", metavar="NUMBER...", nargs=-1, required=True)
@config_option
def add_members(config_path: Path | None, group_id: str, members: tuple[str, ...]) -> None:
    """Add members. They may call from the next INVITE on."""
    with opened(config_path) as store:
        count = store.run(lambda unit: service.add_members(unit, group_id, members, store.rules))
    say(f"{count} added")


@groups.command("remove")
@click.argument("group_id", metavar="ID")
@click.argument("members", metavar="NUMBER...", nargs=-1, required=True)
@config_option
def remove_members(config_path: Path | None, group_id: str, members: tuple[str, ...]) -> None:
    """Remove members. Their next call is refused."""
    with opened(config_path) as store:
        count = store.run(lambda unit: service.remove_members(unit, group_id, members, store.rules))
    say(f"{count} removed")


@groups.command("import")
@click.argument("group_id", metavar="ID")
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


@groups.command("delete")
@click.argument("group_id", metavar="ID")
@config_option
def delete_group(config_path: Path | None, group_id: str) -> None:
    """Delete a group. Refused while a binding in force uses it."""
    with opened(config_path) as store:
        store.run(lambda unit: service.remove_group(unit, group_id, store.rules))
    say(f"deleted {group_id}")


def _found(store: Opened, group_id: str) -> Group:
    return required(find_group(store.reader, store.sealer, group_id), "group", "groups list")


def _members(store: Opened, group_id: str) -> Iterator[str]:
    found = every(
        partial(members_page, store.reader, store.sealer, group_id),
        b"",
        lambda member: member[0],
    )
    return (number for _, number in found)


def _group(group: Group, *, clear: bool = False) -> dict[str, Any]:
    values = plain(group) | {"name": shower_of_text(reveal=clear)(group.name)}
    return {"id": values.pop("group_id")} | values


@click.group()
def lists() -> None:
    """Blacklists and whitelists of callers."""


_whose = click.argument("whose", type=click.Choice(get_args(Whose)))
_owner = click.argument("owner_id", metavar="ID")


@lists.command("show")
@_whose
@_owner
@limit_option
@showing_options
@config_option
def show_entries(
    config_path: Path | None,
    whose: Whose,
    owner_id: str,
    limit: int | None,
    as_json: bool,
    reveal: bool,
    reason: str,
) -> None:
    """Show the listed callers of a business user or binding, newest first."""
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    with opened(config_path) as store:
        owner = store.run(lambda unit: list_service.owner_of(unit, whose, owner_id))
        if clear:
            said_in_clear(store, owner_id, reason)
        show = shower(reveal=clear)
        show_list(_entries(store, owner, show), _ENTRY_COLUMNS, as_json=as_json, limit=limit)


def _entries(store: Opened, owner: str, show: Any) -> Iterator[dict[str, Any]]:
    found = every(
        partial(find_entries, store.reader, store.sealer, owner),
        b"",
        lambda entry: entry.caller_hash,
    )
    return (plain(entry) | {"number": show(entry.number)} for entry in newest(found, attrgetter("added_at")))


def _set(kind: Kind, words: str) -> None:
    @lists.command(kind, help=words)
    @_whose
    @_owner
    @click.argument("number")
    @config_option
    def set_(config_path: Path | None, whose: Whose, owner_id: str, number: str) -> None:
        with opened(config_path) as store:
            store.run(lambda unit: list_service.set_entry(unit, whose, owner_id, number, kind))
        say(f"on the {kind}list of {owner_id}")


_set("black", "Blacklist a caller: calls are refused from the next one on.")
_set("white", "Whitelist a caller. It matters where only whitelisted callers are accepted (--white-only).")


@lists.command("remove")
@_whose
@_owner
@click.argument("number")
@config_option
def remove_entry(config_path: Path | None, whose: Whose, owner_id: str, number: str) -> None:
    """Remove a caller from the list."""
    with opened(config_path) as store:
        store.run(lambda unit: list_service.remove_entry(unit, whose, owner_id, number))
    say(f"off the list of {owner_id}")
