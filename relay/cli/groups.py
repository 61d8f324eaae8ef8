"""`relay700 groups`, `lists` and `filings`: real numbers that business users keep with the relay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TextIO, get_args

import click

from relay.cli import config_option
from relay.cli.options import (
    Opened,
    audit_reading,
    business_option,
    every,
    in_clear,
    json_option,
    limit_option,
    needed_reason,
    opened,
    required,
    said_in_clear,
    showing_options,
    shown_object_options,
)
from relay.cli.output import file_progress, newest, plain, show_list, show_one, shower
from relay.model.numbers import normalise_party
from relay.service import fields
from relay.service import groups as list_service
from relay.service import groups as service
from relay.service.fields import format_moment
from relay.service.filings import (
    ANSWER_COLUMNS,
    COLUMNS,
    DOCUMENT_TYPES,
    EXPIRING_MS,
    FilingWords,
    Given,
    Outcome,
    add_filing,
    filing_form,
    forget_filing,
    import_answers,
    import_filings,
    remove_filing,
)
from relay.service.groups import Whose
from relay.service.imports import import_members
from relay.store.filings import FIRST, STATES, Filing, FilingQuery, State, filings_of, find_filings
from relay.store.groups import Group, Kind, find_entries, find_group, find_groups, members_page
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms

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
        made = store.act(lambda act: service.make_group(act, name, store.rules, business, members))
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
    show_one(_group(group) | {"members": members}, as_json=as_json)


@groups.command("add")
@click.argument("group_id", metavar="ID")
@click.argument("members", metavar="NUMBER...", nargs=-1, required=True)
@config_option
def add_members(config_path: Path | None, group_id: str, members: tuple[str, ...]) -> None:
    """Add members. They may call from the next INVITE on."""
    with opened(config_path) as store:
        count = store.act(lambda act: service.add_members(act, group_id, members, store.rules))
    click.echo(f"{count} added")


@groups.command("remove")
@click.argument("group_id", metavar="ID")
@click.argument("members", metavar="NUMBER...", nargs=-1, required=True)
@config_option
def remove_members(config_path: Path | None, group_id: str, members: tuple[str, ...]) -> None:
    """Remove members. Their next call is refused."""
    with opened(config_path) as store:
        count = store.act(lambda act: service.remove_members(act, group_id, members, store.rules))
    click.echo(f"{count} removed")


@groups.command("import")
@click.argument("group_id", metavar="ID")
@click.argument("file", type=click.File(encoding="utf-8-sig"))
@config_option
def import_group(config_path: Path | None, group_id: str, file: TextIO) -> None:
    """Add the number on each line of a file (- for standard input) as a member."""
    count = 0
    with opened(config_path) as store, file_progress(file, "members") as done:
        for added in import_members(file, group_id, store.act, store.rules):
            count += added
            done()
    click.echo(f"{count} added")


@groups.command("delete")
@click.argument("group_id", metavar="ID")
@config_option
def delete_group(config_path: Path | None, group_id: str) -> None:
    """Delete a group. Refused while a binding in force uses it."""
    with opened(config_path) as store:
        store.act(lambda act: service.remove_group(act, group_id, store.rules))
    click.echo(f"deleted {group_id}")


def _found(store: Opened, group_id: str) -> Group:
    return required(find_group(store.reader, store.sealer, group_id), "group", "groups list")


def _members(store: Opened, group_id: str) -> Iterator[str]:
    found = every(
        partial(members_page, store.reader, store.sealer, group_id),
        b"",
        lambda member: member[0],
    )
    return (number for _, number in found)


def _group(group: Group) -> dict[str, Any]:
    values = plain(group)
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
    """Show the black- and whitelisted callers of a business user or binding, newest first."""
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    with opened(config_path) as store:
        owner = store.act(lambda act: list_service.owner_of(act, whose, owner_id))
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
            store.act(lambda act: list_service.set_entry(act, whose, owner_id, number, kind))
        click.echo(f"on the {kind}list of {owner_id}")


_set("black", "Blacklist a caller: calls are refused from the next one on.")
_set("white", "Whitelist a caller, where only whitelisted callers are accepted (--white-only).")


@lists.command("remove")
@_whose
@_owner
@click.argument("number")
@config_option
def remove_entry(config_path: Path | None, whose: Whose, owner_id: str, number: str) -> None:
    """Remove a caller from the list."""
    with opened(config_path) as store:
        store.act(lambda act: list_service.remove_entry(act, whose, owner_id, number))
    click.echo(f"off the list of {owner_id}")


# -- `relay700 filings`

_FILING_COLUMNS = ("business", "number", "state", "reference", "holder", "filed_at", "expires_at", "code")
_expires_option = click.option(
    "--expires-at", default="", metavar="TIME", help="End of the approval: a day in China, or a time."
)
_submitted_option = click.option(
    "--submitted", "state", flag_value="submitted", help="It waits for the carrier's answer. Default: it is approved."
)


@click.group()
def filings() -> None:
    """A numbers filed with the carriers."""


@filings.command("add")
@click.argument("number")
@click.option("--reference", default="", metavar="TEXT", help="The carrier's reference of the filing.")
@click.option("--holder", default="", metavar="NAME", help="Name of the number's holder.")
@click.option("--document-type", default="", type=click.Choice(["", *DOCUMENT_TYPES]), help="Default: id_card.")
@click.option("--document", default="", metavar="TEXT", help="Number of the holder's identity document.")
@click.option(
    "--photo", default="", metavar="TEXT", help="Reference of the holder's photo: the photo is not kept here."
)
@_submitted_option
@_expires_option
@business_option
@shown_object_options
@config_option
def add_number(
    config_path: Path | None, business: str, as_json: bool, reason: str, state: Given | None, **words: str
) -> None:
    """File an A number, or change its filing. Holds from the next call on."""
    clear = in_clear(reveal=False, reason=reason, as_json=as_json)
    with opened(config_path, make=True) as store:

        def add_and_say(act: UnitOfWork) -> Filing:
            filing = add_filing(act, business, FilingWords(**words), store.rules.parties, state)
            if clear:
                audit_reading(act, "filings", reason)
            return filing

        filing = store.act(add_and_say)
    show_one(_filing(filing, clear=clear), as_json=as_json)


@filings.command("list")
@click.option("--business", metavar="ID", help="Only filings of this business user.")
@click.option("--state", type=click.Choice(STATES), help="Only filings in this state.")
@click.option("--expiring", is_flag=True, help="Only filings that expire within 30 days.")
@click.option("--all", "all_", is_flag=True, help="Include withdrawn filings.")
@limit_option
@showing_options
@config_option
def list_filings(
    config_path: Path | None,
    business: str | None,
    state: State | None,
    expiring: bool,
    all_: bool,
    limit: int | None,
    as_json: bool,
    reveal: bool,
    reason: str,
) -> None:
    """List filings, newest first."""
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    at_ms = now_ms()
    query = FilingQuery(business, state, at_ms + EXPIRING_MS if expiring else None, all_)
    with opened(config_path) as store:
        if clear:
            said_in_clear(store, "filings", reason, {"business": business, "state": state, "all": all_})
        find = partial(find_filings, store.reader, store.sealer, query, at_ms)
        found = newest(every(find, FIRST, _filing_place), attrgetter("filed_at"))
        show_list((_filing(each, clear=clear) for each in found), _FILING_COLUMNS, as_json=as_json, limit=limit)


@filings.command("show")
@click.argument("number")
@click.option("--business", metavar="ID", help="Only filings of this business user.")
@showing_options
@config_option
def show_filing(
    config_path: Path | None, number: str, business: str | None, as_json: bool, reveal: bool, reason: str
) -> None:
    """Show the filings of a number as they are and as they were before each change."""
    clear = in_clear(reveal=reveal, reason=reason, as_json=as_json)
    party = fields.parsed("number", number, normalise_party)
    with opened(config_path) as store:
        if clear:
            said_in_clear(store, "filings", reason, {"business": business})
        found = filings_of(store.reader, store.sealer, party, business)
    forms = (
        {"until": each.until and format_moment(each.until)} | _filing(each.filing, clear=clear, at_ms=each.until)
        for each in found
    )
    show_list(forms, ("until", *_FILING_COLUMNS), as_json=as_json)


@filings.command("remove")
@click.argument("number")
@business_option
@config_option
def withdraw(config_path: Path | None, number: str, business: str) -> None:
    """Withdraw a filing. From the next call on the number counts as not filed."""
    with opened(config_path) as store:
        store.act(lambda act: remove_filing(act, business, number))
    click.echo(f"withdrawn from the filings of {business}")


@filings.command("forget")
@click.argument("number")
@business_option
@needed_reason
@config_option
def forget(config_path: Path | None, number: str, business: str, reason: str) -> None:
    """Withdraw a filing and remove name, document and photo, on the holder's demand.

    Number, reference and states remain: the law has calls kept with their numbers.
    """
    with opened(config_path) as store:
        store.act(lambda act: forget_filing(act, business, number, reason))
    click.echo("documents removed")


@filings.command(
    "import", epilog=f"Columns: {','.join(COLUMNS)}. A header line is optional, and may name some of them."
)
@click.argument("file", type=click.File(encoding="utf-8-sig", errors="surrogateescape"))
@_submitted_option
@business_option
@config_option
def import_numbers(config_path: Path | None, file: TextIO, business: str, state: Given | None) -> None:
    """File the A number on each line of a CSV file (- for standard input).

    Bad lines are reported and skipped; the exit status is then 1.
    """
    with opened(config_path, make=True) as store, file_progress(file, "filings") as done:
        _report(import_filings(file, business, store.act, store.rules.parties, state), done, "filed")


@filings.command("answers", epilog=f"Columns: {','.join(ANSWER_COLUMNS)}. A header line may name some of them.")
@click.argument("file", type=click.File(encoding="utf-8-sig", errors="surrogateescape"))
@business_option
@config_option
def answers(config_path: Path | None, file: TextIO, business: str) -> None:
    """Enter the carriers' answers on the lines of a CSV file (- for standard input).

    A line has the number or the reference, and the state: approved, rejected, expired or revoked.
    Bad lines are reported and skipped; the exit status is then 1.
    """
    with opened(config_path) as store, file_progress(file, "answers") as done:
        _report(import_answers(file, business, store.act), done, "entered")


def _report(outcomes: Iterable[Outcome], done: Callable[[], None], said: str) -> None:
    good = bad = 0
    for line, refused in outcomes:
        if refused is None:
            good += 1
            done()
            continue
        bad += 1
        click.echo(f"line {line}: {refused}", err=True)
    click.echo(f"{good} {said}, {bad} refused")
    if bad:
        raise click.exceptions.Exit(1)


def _filing_place(filing: Filing) -> tuple[str, str]:
    return filing.position


def _filing(filing: Filing, *, clear: bool, at_ms: int | None = None) -> dict[str, Any]:
    form = filing_form(filing, at_ms or now_ms(), clear=clear)
    return {name: format_moment(each) if name.endswith("_at") and each else each for name, each in form.items()}
