"""Opens the configured store for the administration commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

import click

from relay.config import Config, load_config
from relay.errors import ParseError, Refused, StoreError
from relay.service import fields
from relay.service.numbers import ensure_numbers, lacks_numbers
from relay.service.releases import BindRules
from relay.service.times import CHINA, parse_duration_ms, parse_moment_ms
from relay.store.act import Act, operator_cli
from relay.store.anchor import AnchorFile
from relay.store.connection import Connection
from relay.store.database import connect_reader, is_there, open_store, store_errors
from relay.store.sealing import Sealer
from relay.store.writer import Writer, now_ms

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

    def act(self, do: Callable[[Act], T]) -> T:
        """Runs an act of whoever typed the command."""
        return self.writer.run(operator_cli(), do)


@contextmanager
def opened(config_path: Path | None, *, make: bool = False, earlier: bool = False) -> Iterator[Opened]:
    """The store of the configuration. Raises ConfigError and StoreError; without `earlier` also for an earlier copy.

    With `make` it is made where there is none. Without, that is an error: an empty list, or "intact", from the wrong
    folder would pass for an answer.
    """
    config = load_config(config_path)
    place = config.store.path
    # An empty file is one that was served and has lost all: `open_store` says so.
    if not make and not (_exists(place) if isinstance(place, Path) else is_there(place)):
        where = place.absolute() if isinstance(place, Path) else place
        raise StoreError(
            f"there is no store at {where}: `serve` and `bind` make it; where they have, start "
            "from the folder that the relay was started in, or name its configuration with -c"
        )
    sealer = open_store(place, config.store.key_file)
    with (
        store_errors(place),
        closing(connect_reader(place)) as reader,
        closing(Writer(place, sealer)) as writer,
    ):
        anchor = AnchorFile(config.store.local, sealer)
        if not earlier:
            anchor.check(reader)
        store = Opened(config, sealer, config.numbers, reader, writer)
        if make:
            _load_numbers(store)
        yield store
        if writer.has_written and not earlier:
            anchor.keep(reader)


def _exists(path: Path) -> bool:
    """Raises StoreError where the folder is closed to this user."""
    try:
        return path.exists()
    except PermissionError:
        raise StoreError(f"{path.parent.absolute()} is closed to this user: run this as the relay's user") from None


def _load_numbers(store: Opened) -> None:
    """The prefixes and old middle numbers of the configuration that the store has not seen yet."""
    prefixes, legacy = store.config.settings.prefixes, store.config.settings.legacy
    if lacks_numbers(store.reader, prefixes, legacy):
        store.act(lambda act: ensure_numbers(act, prefixes, legacy))


def every(read: Callable[[K, int], list[T]], first: K, position: Callable[[T], K]) -> Iterator[T]:
    """All that a list of the store holds, read PAGE items at a time.

    `read(after, most)` gives the items behind a position, `first` is the one before all, `position` gives an item's.
    """
    after = first
    while page := read(after, PAGE):
        yield from page
        after = position(page[-1])


def required(value: T | None, what: str, shown_by: str) -> T:
    """What was looked for. Raises Refused where there is none, with the command that shows those that there are."""
    if value is None:
        raise Refused("not_found", "", f"there is no such {what}: `relay700 {shown_by}` shows them")
    return value


def said_in_clear(store: Opened, object_: str, reason: str, asked: Mapping[str, object] | None = None) -> None:
    """Real numbers are about to be shown: who sees them, and of what was `asked`, stands in the audit log first."""
    details = {name: value for name, value in (asked or {}).items() if value not in (None, False)}
    try:
        store.act(lambda act: audit_reading(act, object_, reason, details))
    except StoreError as error:
        raise StoreError(f"{error}; to see it masked, without an audit line, leave out --reveal and --reason") from None


def audit_reading(act: Act, object_: str, reason: str, details: dict[str, object] | None = None) -> None:
    """In an act that makes what is shown in clear: that stands in the audit log, or nothing is made."""
    act.audit("read", object_, reason=fields.reason(reason, required=True), details=details)


def audited_first(store: Opened, action: str, object_: str, reason: str, **details: object) -> None:
    """Writes the audit line of what the relay is asked to do next. Raises Refused, and StoreError that says so."""
    why = fields.reason(reason)
    try:
        store.act(lambda act: act.audit(action, object_, reason=why, details=details))
    except StoreError as error:
        raise StoreError(f"{error}; nothing was done, since the audit log must have it first") from None


def number(text: str) -> str:
    """A click type: a 700 number or a party in any notation, made normal."""
    try:
        return fields.number("number", text)
    except Refused as refused:
        raise click.BadParameter(refused.problem) from None


def moment(text: str) -> int:
    """A click type: a time, as Unix milliseconds."""
    return _usage(parse_moment_ms, text)


def past(text: str) -> int:
    """A click type: a time, or how long ago."""
    return moment(text) if "-" in text else now_ms() - _span_ms(text, "how long ago")


def day(text: str) -> date:
    """A click type: a day in China, or "today"."""
    if text == "today":
        return datetime.now(CHINA).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("not a day: write it as 2026-01-31, or today") from None


def duration(text: str) -> int:
    """A click type: a time span in milliseconds; "0s" is none."""
    return 0 if text == "0s" else _usage(parse_duration_ms, text)


def coming(text: str) -> int:
    """A click type: a time, or in how long, as Unix milliseconds."""
    return moment(text) if "-" in text else now_ms() + _span_ms(text, "in how long")


def _span_ms(text: str, words: str) -> int:
    try:
        return parse_duration_ms(text)
    except ParseError:
        raise click.BadParameter(
            f"not a time: write it as 2026-01-31T08:00:00Z, or {words}, as 90s, 30m, 2h or 7d"
        ) from None


def _usage(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ParseError as error:
        raise click.BadParameter(error.reason) from None
