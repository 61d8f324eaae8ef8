"""Shared parts of commands: options, types of arguments, and the opened store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from relay.cli import localised, say
from relay.config import Config, default_path, load_config
from relay.errors import ParseError, Refused, StoreError
from relay.service import fields
from relay.service.fields import CHINA, format_moment, parse_duration_ms, parse_moment_ms, says_something
from relay.service.numbers import ensure_numbers, lacks_numbers
from relay.service.placement import BindRules
from relay.store.chain import AnchorFile
from relay.store.connection import Connection
from relay.store.database import is_there, open_store, reading
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork, operator_cli
from relay.store.writer import Writer, now_ms

NONE = "none"  # on the command line: clears a limit or hours
SINCE = "From this time on: 2026-01-31T08:00:00Z, 2026-01-31 for midnight in China, or 2h (ago)."
UNTIL = "Before this time, in the same form."

REASON = "RELAY700_REASON"
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
reveal_option = click.option("--reveal", is_flag=True, help="Show real numbers in full; needs --reason.")
business_option = click.option("--business", default="default", metavar="ID", show_default=True, help="Business user.")


def _said(context: click.Context, parameter: click.Parameter, reason: str) -> str:
    if not says_something(reason):
        raise click.BadParameter("it is empty: the audit log needs a reason", context, parameter)
    return reason


needed_reason = click.option(
    "--reason", required=True, envvar=REASON, callback=_said, metavar="TEXT", help="Reason, for the audit log."
)
reason_option = click.option("--reason", default="", envvar=REASON, metavar="TEXT", help="Reason, for the audit log.")


def stacked(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """One decorator of several; --help lists the options in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def or_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A click type: what `parse` accepts, or "none" for NONE."""

    def read(text: str) -> Any:
        try:
            return NONE if text.strip().lower() == NONE else parse(text)
        except ValueError:
            raise click.BadParameter(f'not a whole number: write one, or "{NONE}" for no limit') from None

    return read


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given; NONE becomes None."""
    return {name: None if value == NONE else value for name, value in options.items() if value not in (None, ())}


limit_option = click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Maximum number of rows. Default: 50 on a terminal, else all."
)
showing_options = stacked(
    click.option("--json", "as_json", is_flag=True, help="One JSON object per line; numbers in clear with --reason."),
    reveal_option,
    reason_option,
)

shown_object_options = stacked(  # for an object just made or changed
    click.option("--json", "as_json", is_flag=True, help="One JSON object; numbers in clear with --reason."),
    reason_option,
)


def in_clear(*, reveal: bool, reason: str, as_json: bool = False) -> bool:
    """Return whether real numbers are shown: with --reveal or --json, and only with a reason. Raises UsageError."""
    has_reason = says_something(reason)
    if reveal and not has_reason:
        raise click.UsageError(f"Missing option '--reason': --reveal needs one (the variable {REASON} sets it, too).")
    return reveal or (as_json and has_reason)


# -- The configured store

K = TypeVar("K")
T = TypeVar("T")

PAGE = 500


class Opened(NamedTuple):
    """A store that is open for one command."""

    config: Config
    sealer: Sealer
    rules: BindRules
    reader: Connection
    writer: Writer

    def run(self, do: Callable[[UnitOfWork], T]) -> T:
        """Run a transaction in the name of the user who typed the command."""
        return self.writer.run(operator_cli(), do)


@contextmanager
def opened(
    config_path: Path | None, *, make: bool = False, earlier: bool = False, as_is: bool = False
) -> Iterator[Opened]:
    """Open the configured store. Raises ConfigError and StoreError; without `earlier` also for a restored older copy.

    With `as_is` foreign triggers stay, to be named.

    With `make` a missing store is created. Without it that is an error: run in the wrong folder, a command would
    answer with an empty list, or "intact".
    """
    config = load_config(config_path)
    place = config.store.path
    where = place.absolute() if isinstance(place, Path) else place
    # An empty file is a store that has lost everything: `open_store` reports it.
    is_asked = not make or (config_path or default_path()) is None  # else a server would be asked for nothing
    is_new = is_asked and not (_exists(place) if isinstance(place, Path) else is_there(place))
    if is_new and not make:
        or_name = ", or name its configuration with -c" if config_path is None else ""
        raise StoreError(
            f"there is no store at {where}: `serve` and `bind` create it; if they have, run this in the folder that "
            f"the relay was started in{or_name}"
        )
    sealer = open_store(place, config.store.key_file, as_is=as_is)
    if is_new:
        say(f"no config/relay.toml here: made a new store at {where}", err=True)
    with reading(place) as reader, closing(Writer(place, sealer)) as writer:
        anchor = AnchorFile(config.store.local, sealer)
        if not earlier:
            anchor.check(reader)
        store = Opened(config, sealer, config.numbers, reader, writer)
        if make:
            _load_numbers(store)
        yield store
        if writer.has_written and not earlier:
            try:
                anchor.keep(reader)
            except StoreError as warning:  # what the command has changed is durable
                say(f"warning: {warning}", err=True)


def _exists(path: Path) -> bool:
    """Raises StoreError if this user may not read the folder."""
    try:
        return path.exists()
    except PermissionError:
        raise StoreError(f"{path.parent.absolute()}: permission denied; run this as the relay's user") from None


def _load_numbers(store: Opened) -> None:
    """Add configured prefixes and old middle numbers that the store does not have yet."""
    prefixes, legacy = store.config.settings.prefixes, store.config.settings.legacy
    if lacks_numbers(store.reader, prefixes, legacy):
        store.run(lambda unit: ensure_numbers(unit, prefixes, legacy))


def every(read: Callable[[K, int], Sequence[T]], first: K, position: Callable[[T], K]) -> Iterator[T]:
    """Yield all items of a list in the store, read PAGE at a time.

    `read(after, most)` returns items behind a position, `first` is the position before all, `position` an item's.
    """
    after = first
    while page := read(after, PAGE):
        yield from page
        after = position(page[-1])


def required(value: T | None, what: str, shown_by: str) -> T:
    """Return the value. Raises Refused if it is None, naming the command that lists the existing ones."""
    if value is None:
        raise Refused("not_found", "", f"there is no such {localised(what)}: `relay700 {shown_by}` shows them")
    return value


def said_in_clear(store: Opened, object_: str, reason: str, asked: Mapping[str, object] | None = None) -> None:
    """Write the audit line that must exist before real numbers are shown; `asked` are the filters of the query."""
    details = {name: value for name, value in (asked or {}).items() if value not in (None, False)}
    try:
        store.run(lambda unit: audit_reading(unit, object_, reason, details))
    except StoreError as error:
        raise StoreError(f"{error}; without --reveal and --reason it is shown masked, with no audit line") from None


def audit_reading(unit: UnitOfWork, object_: str, reason: str, details: dict[str, object] | None = None) -> None:
    """Write the audit line of a reading, in the transaction that makes what is shown."""
    unit.audit("read", object_, reason=fields.reason(reason, required=True), details=details)


def audited_first(store: Opened, action: str, object_: str, reason: str, **details: object) -> None:
    """Write the audit line of a command that the relay gets next. Raises Refused and StoreError."""
    why = fields.reason(reason)
    try:
        store.run(lambda unit: unit.audit(action, object_, reason=why, details=details))
    except StoreError as error:
        raise StoreError(f"{error}; nothing was done, since the audit line comes first") from None


def number(text: str) -> str:
    """A click type: a 700 number or a party in any notation, normalised."""
    try:
        return fields.number("number", text)
    except Refused as refused:
        raise click.BadParameter(refused.problem) from None


def moment(text: str) -> int:
    """A click type: a time in RFC 3339, or a day as its midnight in China, as Unix milliseconds."""
    moment_ms = _usage(parse_moment_ms, text)
    try:
        format_moment(moment_ms)
    except (ValueError, OverflowError):
        raise click.BadParameter("a time must be in the years 1 to 9999, in UTC") from None
    return moment_ms


def past(text: str) -> int:
    """A click type: a time, or a duration before now, as Unix milliseconds."""
    return moment(text) if "-" in text else now_ms() - _span_ms(text, "a duration ago")


def day(text: str) -> date:
    """A click type: a day in China, or "today"."""
    if text == "today":
        return datetime.now(CHINA).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("not a day: write one such as 2026-01-31, or today") from None


def duration(text: str) -> int:
    """A click type: a duration, in milliseconds; "0s" is allowed."""
    return 0 if text == "0s" else _usage(parse_duration_ms, text)


def coming(text: str) -> int:
    """A click type: a time, or a duration from now, as Unix milliseconds."""
    return moment(text) if "-" in text else now_ms() + _span_ms(text, "a duration from now")


def _span_ms(text: str, words: str) -> int:
    try:
        return parse_duration_ms(text)
    except ParseError:
        raise click.BadParameter(
            f"not a time: write one such as 2026-01-31T08:00:00Z, or {words} such as 90s, 30m, 2h or 7d"
        ) from None


def _usage(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ParseError as error:
        raise click.BadParameter(error.reason) from None
