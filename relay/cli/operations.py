"""Commands of operations (`relay.operations`): arguments, options and help from the shapes, and the output.

Other parts of a command stand with its noun.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from relay.cli import config_option, say
from relay.cli.options import (
    NONE,
    Opened,
    audit_reading,
    coming,
    duration,
    every,
    in_clear,
    json_option,
    limit_option,
    needed_reason,
    number,
    opened,
    or_none,
    past,
    reason_option,
    said_in_clear,
    showing_options,
    shown_object_options,
    stacked,
)
from relay.cli.output import newest, show_list, show_one
from relay.errors import Refused
from relay.operations.field_errors import refused_by
from relay.operations.operation import Asker, Listing, Operation
from relay.operations.shapes import FREE_TEXT, STORE_NAMES, Option
from relay.privacy.texts import mask_numbers
from relay.store.unit_of_work import UnitOfWork, operator_cli

Told = Callable[[Any], None]  # prints the shape of a response for people


class Command(NamedTuple):
    """How the command of an operation differs from what its declaration says."""

    declared: Operation
    says: str = ""  # the line for people, with fields of path and response in braces; "": the response itself
    told: Told | None = None  # prints the response instead
    columns: Sequence[str] = ()  # of a list
    newest: str = ""  # sorts a list by this time of its items, the latest first
    fixed: Mapping[str, object] = {}  # fields that the command gives itself
    id_as: str = "id"  # what the output calls the id
    check: Callable[[dict[str, Any]], None] = lambda _: None  # of the options; raises UsageError
    listed_by: str = ""  # the command that shows what there is
    makes: bool = False  # a missing store is created
    options: tuple[str, ...] = ()  # parameters of the path that are options, `default` if they are left out

    def run(self, config_path: Path | None, limit: int | None = None, **given: Any) -> None:
        """Run the operation, and print its response. Raises RelayError."""
        as_json, reveal = given.pop("as_json", False), given.pop("reveal", False)
        reason = "" if self.declared.says_why else given.pop("reason", "")
        clear = bool(self.declared.revealed) and in_clear(reveal=reveal, reason=reason, as_json=as_json)
        self.check(given)
        asked = self._asked(given)
        with opened(config_path, make=self.makes) as store:
            asker = asker_of(store, clear=clear)
            if self.declared.kind == "list":
                self._list(store, asker, asked, reason, limit, as_json=as_json)
                return
            try:
                shown = (self._changed if self.declared.kind == "change" else self._read)(store, asker, asked, reason)
            except Refused as refused:
                raise self._with_hint(refused) from None
        self._show(shown, asker, asked, as_json=as_json)

    def _asked(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments of the operation. Raises Refused for a request that its shape does not allow."""
        shape = self.declared.request
        of_path = {name: given.pop(name) for name in self.declared.given if name != "asked" and name in given}
        if shape is None:
            return of_path
        written = {
            name: None if value in ("", NONE) and shape.model_fields[name].default is None else value
            for name, value in given.items()
            if value not in (None, ())
        }
        try:
            return of_path | {"asked": shape.model_validate({**written, **self.fixed})}
        except ValidationError as error:
            raise refused_by(error) from None

    def _changed(self, store: Opened, asker: Asker, asked: dict[str, Any], reason: str) -> BaseModel:
        def do(unit: UnitOfWork) -> BaseModel:
            shown: BaseModel = self.declared.do(unit, asker, **asked)
            if asker.clear:
                values = shown.model_dump()
                details = {"number": values["number"]} if "number" in values else None
                audit_reading(unit, self.declared.revealed.format_map(values), reason, details)
            return shown

        return store.run(do)

    def _read(self, store: Opened, asker: Asker, asked: dict[str, Any], reason: str) -> BaseModel:
        shown: BaseModel = self.declared.do(store.reader, asker._replace(clear=False), **asked)
        if not asker.clear:
            return shown
        said_in_clear(store, self.declared.revealed.format_map(asked), reason)
        in_full: BaseModel = self.declared.do(store.reader, asker, **asked)
        return in_full

    def _list(
        self, store: Opened, asker: Asker, asked: dict[str, Any], reason: str, limit: int | None, *, as_json: bool
    ) -> None:
        listing: Listing[Any, Any] = self.declared.do(asker, **asked)
        read = partial(listing.read, store.reader)
        if asker.clear:
            read(listing.first, 1)  # raises Refused, before the audit line, if there is no such list
            said_in_clear(store, self.declared.revealed.format_map(asked), reason, listing.asked)
        items: Iterable[Any] = every(read, listing.first, listing.position)
        if self.newest:
            items = newest(reversed([*items]), attrgetter(self.newest))  # of one moment the last
        shown = (printed(listing.show(item, asker), self.id_as, clear=asker.clear) for item in items)
        show_list(shown, self.columns, as_json=as_json, limit=limit)

    def _show(self, shown: BaseModel, asker: Asker, asked: dict[str, Any], *, as_json: bool) -> None:
        if warning := getattr(shown, "warning", None):
            say(f"warning: {warning}", err=True)
        values = printed(shown, self.id_as, clear=asker.clear)
        if self.columns:
            show_list(values["items"], self.columns, as_json=as_json)
        elif as_json or not (self.told or self.says):
            show_one(values, as_json=as_json)
        elif self.told:
            self.told(shown)
        else:
            say(self.says.format_map(asked | values))

    def _with_hint(self, refused: Refused) -> Refused:
        if refused.kind != "not_found" or refused.field or not self.listed_by:
            return refused
        return Refused("not_found", "", f"{refused.problem}: `relay700 {self.listed_by}` shows them")


def printed(shown: BaseModel, id_as: str = "id", *, clear: bool = False) -> dict[str, Any]:
    """A response as commands print it; a business user's texts with the numbers in them masked, unless in clear."""
    values = shown.model_dump(mode="json", exclude={"warning"})
    for name, field in type(shown).model_fields.items():
        if FREE_TEXT in field.metadata and values[name] and not clear:
            values[name] = mask_numbers(values[name], sender="")
    return {id_as if name == "id" else STORE_NAMES.get(name, name): each for name, each in values.items()}


def asker_of(store: Opened, *, clear: bool) -> Asker:
    """The user who types a command."""
    peers = [peer.name for peer in store.config.settings.peers]
    how = (store.sealer, store.rules)
    return Asker(operator_cli(), *how, is_local=True, clear=clear, peers=peers, capture=store.config.capture)


def command_of(name: str, command: Command, *, arguments: Sequence[str] = (), help: str = "") -> click.Command:
    """The click command. `arguments`: fields that are no options. `help`: instead of the operation's text."""
    declared = command.declared

    @_of_output(declared)
    def run(**given: Any) -> None:
        command.run(**given)

    made = click.command(name, help=inspect.cleandoc(help or declared.do.__doc__ or ""))(run)
    made.params[:0] = [*_of_path(command), *_of_request(command, arguments)]
    return made


def _of_path(command: Command) -> Iterator[click.Parameter]:
    for name, each in command.declared.given.items():
        if name in command.options:
            yield click.Option([f"--{_short(name)}", name], default="default", metavar="ID", show_default=True)
        elif name == "number":
            yield click.Argument([name], type=number)
        elif f"{{{name}}}" in command.declared.path:
            yield _argument(name, each.annotation)


def _argument(name: str, of: object) -> click.Argument:
    of = _type_of(of)
    if get_origin(of) is list:
        return click.Argument([name], nargs=-1, required=True)
    if choices := get_args(of):
        return click.Argument([name], type=click.Choice(choices, case_sensitive=False), metavar="|".join(choices))
    return click.Argument([name])


def _of_output(declared: Operation) -> Callable[[Any], Any]:
    shows = showing_options if declared.revealed else json_option
    if declared.says_why:
        why = declared.request.model_fields.get("reason") if declared.request else None
        shows = stacked(json_option, needed_reason if why and why.is_required() else reason_option)
    elif declared.kind == "change" and declared.revealed:
        shows = shown_object_options
    return stacked(*([limit_option] if declared.kind == "list" else []), shows, config_option)


# -- Options of the fields of a request


def _of_request(command: Command, arguments: Sequence[str]) -> Iterator[click.Parameter]:
    declared = command.declared
    given = {} if declared.request is None else declared.request.model_fields
    fields = {name: field for name, field in given.items() if name not in command.fixed}
    for name in sorted(fields, key=lambda name: (name not in arguments, name == "expires_at")):
        if name in arguments:
            yield _argument(name, fields[name].annotation)
        elif name == "expires_at" and "expires_in" in fields:
            yield _expiry(clears=declared.method == "PATCH", required=len(fields) == 2)
        elif name not in ("expires_in", "version", "reason"):
            yield _option(name, fields[name], changes=declared.method == "PATCH")


def _expiry(*, clears: bool, required: bool) -> click.Option:
    form = "90s, 30m, 2h, 7d, or a time: 2026-01-31T08:00:00Z, or 2026-01-31 for midnight in China."
    rest = "" if required else " none: no expiry." if clears else " Default: no expiry."
    return click.Option(
        ["--expires-in", "--expires-at", "expires_at"],
        type=or_none(_coming) if clears else _coming,
        required=required,
        metavar="TIME|none" if clears else "TIME",
        help=form + rest,
    )


def _option(name: str, field: FieldInfo, *, changes: bool) -> click.Option:
    """The option of a field. `changes`: it may be left out, and "none" clears it if it may be null."""
    how = next((each for each in field.metadata if isinstance(each, Option)), Option())
    of = _type_of(field.annotation)
    option = how.names or f"--{_short(name)}"
    options: dict[str, Any] = {"help": field.description, "required": True}
    if not field.is_required():
        options = {"help": field.description, "default": None}
    if how.flag:
        return click.Option([option, name], flag_value=how.flag, **options)
    if of is bool:
        names = how.names or (f"{option}/--no-{option[2:]}" if changes else option)
        return click.Option([names, name], is_flag=True, **options)
    metavar = how.metavar or _metavar(name, of)
    if get_origin(of) is list:
        choices = get_args(_type_of(get_args(of)[0]))
        form: dict[str, Any] = {"type": click.Choice(choices)} if choices else {"metavar": metavar}
        return click.Option([option, name], multiple=True, **form, **options | {"required": False})
    if choices := get_args(of):
        return click.Option([option, name], type=click.Choice(choices), **options)
    parse: Any = {int: _seconds if metavar == "TIME" else int, datetime: _past}.get(of, str)
    if changes and field.default is None:
        parse, metavar = or_none(parse), f"{metavar}|none"
    return click.Option([option, name], type=parse, metavar=metavar, **options)


def _short(name: str) -> str:
    """The name of an option: a field's without the words for what it holds."""
    if name in ("business_id", "group_id", "order_id", "pool_id"):
        name = name.removesuffix("_id")
    return name.removesuffix("_s").replace("_", "-")


def _metavar(name: str, of: object) -> str:
    if name in ("a", "b", "x", "y", "number", "party"):
        return "NUMBER"
    if name == "hours":
        return "HH:MM-HH:MM"
    if of is datetime:
        return "TIME"
    if of is int:
        return "SECONDS" if name.endswith("_s") else "N"
    return "ID" if name.endswith("_id") else "TEXT"


def _type_of(found: Any) -> Any:
    """A type without None and Annotated."""
    while get_origin(found) in (Annotated, UnionType, Union):
        found = next(each for each in get_args(found) if each is not NoneType)
    return found


def _seconds(text: str) -> int:
    return duration(text) // 1000


def _past(text: str) -> datetime:
    return _moment(past(text))


def _coming(text: str) -> datetime:
    return _moment(coming(text))


def _moment(moment_ms: int) -> datetime:
    return datetime.fromtimestamp(moment_ms / 1000, UTC)
