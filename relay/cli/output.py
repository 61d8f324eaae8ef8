"""Output of commands: JSON objects for programs, tables for people.

Real numbers are masked in both, unless `relay.cli.options.in_clear` allows them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

import click

from relay.call.binding import Binding
from relay.call.numbers import mask_number
from relay.call.record import CallRecord
from relay.call.text_masking import mask_numbers
from relay.reports.record_form import Value, printable, record_form, with_moments
from relay.service.times import format_moment
from relay.store.bindings import state_of

Show = Callable[[str], str]
T = TypeVar("T")

A_SCREEN: Final = 50  # rows of a list on a terminal without --limit


def shower(*, reveal: bool) -> Show:
    """Return the function that shows a number: in full, or masked."""
    return str if reveal else mask_number


def shower_of_text(*, reveal: bool) -> Show:
    """Return the function that shows a business user's text: as it is, or with the numbers in it masked."""
    return str if reveal else partial(mask_numbers, sender="")


def show_one(value: NamedTuple | dict[str, Any], *, as_json: bool) -> None:
    """Print one object: a line of JSON, or a line per field."""
    values = value if isinstance(value, dict) else plain(value)
    if as_json:
        click.echo(json_line(values))
        return
    width = max(map(len, values))
    for name, each in values.items():
        click.echo(f"{name:<{width}} {_cell(each)}")


def newest(values: Iterable[T], made_at: Callable[[T], int]) -> list[T]:
    """Return the values, newest first. For lists that fit in memory."""
    return sorted(values, key=made_at, reverse=True)


def first_of(values: Iterable[T], limit: int | None) -> Iterator[T]:
    """Yield at most `limit` values; without one all, but on a terminal A_SCREEN of them and a note on stderr."""
    if limit is not None or not sys.stdout.isatty():
        yield from islice(values, limit)
        return
    source = iter(values)
    yield from islice(source, A_SCREEN)
    if next(source, None) is not None:
        click.echo(f"the first {A_SCREEN}; --limit N shows more", err=True)


def show_list(
    values: Iterable[NamedTuple | dict[str, Any]], columns: Sequence[str], *, as_json: bool, limit: int | None = None
) -> None:
    """Print a list: a line of JSON per object, or a table of the named fields. `limit` as for `first_of`."""
    objects = (value if isinstance(value, dict) else plain(value) for value in first_of(values, limit))
    if as_json:
        for values_ in objects:
            click.echo(json_line(values_))
        return
    for line in table([name.replace("_", " ") for name in columns], _cells(objects, columns)):
        click.echo(line)


def _cells(objects: Iterable[dict[str, Any]], columns: Sequence[str]) -> Iterator[list[str]]:
    for values in objects:
        yield [_cell(values[name]) for name in columns]


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(value)


def binding_object(binding: Binding, now_ms: int) -> dict[str, Any]:
    """A binding as `--json` prints it. `state`: live, expired, ended."""
    return plain(binding) | {"state": state_of(binding, now_ms)}


def masked_binding(binding: Binding, now_ms: int, *, clear: bool) -> dict[str, Any]:
    """A binding as `--json` prints it; without `clear` numbers are masked, also in the business user's texts."""
    show, show_text = shower(reveal=clear), shower_of_text(reveal=clear)
    values = binding_object(binding, now_ms)
    values |= {name: values[name] and show(values[name]) for name in ("a", "b")}
    return values | {
        name: values[name] and show_text(values[name]) for name in ("order_id", "user_data", "industrial_id")
    }


def record_object(record: CallRecord, *, clear: bool = True) -> dict[str, Value]:
    """A call record as `--json` prints it, in the order of DESIGN 5; without `clear` numbers are masked."""
    values = record_form(record, reveal=clear)
    order_id = record.order_id and shower_of_text(reveal=clear)(record.order_id)
    return with_moments(values | {"order_id": order_id and printable(order_id)})


def json_line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines in columns. The first thousand rows set the widths, so that a long list starts at once."""
    source = iter(rows)
    first = [row for _, row in zip(range(1_000), source, strict=False)]
    widths = [max(map(len, cells)) for cells in zip(heading, *first, strict=True)]
    yield _line(heading, widths)
    for row in first:
        yield _line(row, widths)
    for row in source:
        yield _line(row, widths)


BINDING_HEADING = ("binding", "mode", "x", "y", "a", "b", "state", "expires", "order", "business")


def binding_row(binding: Binding, now_ms: int, *, reveal: bool) -> tuple[str, ...]:
    show, show_text = shower(reveal=reveal), shower_of_text(reveal=reveal)
    numbers = (binding.x, binding.y or "-", show(binding.a or "") or "-", show(binding.b or "") or "-")
    expires = _moment(binding.expires_at)
    rest = (state_of(binding, now_ms), expires, show_text(binding.order_id or "-"), binding.business)
    return (binding.binding_id, binding.mode, *numbers, *rest)


RECORD_HEADING = ("received", "kind", "outcome", "status", "dialled", "caller", "callee", "talked", "ended by", "call")


def record_row(record: CallRecord, show: Show) -> tuple[str, ...]:
    talked = "-" if record.duration_ms is None else f"{record.duration_ms / 1000:.1f}s"
    numbers = (show(record.number_dialled) or "-", show(record.caller) or "-", show(record.callee or "") or "-")
    status = "-" if record.sip_status is None else str(record.sip_status)
    what = (record.kind, record.outcome or "live", status)
    return (_moment(record.received_at), *what, *numbers, talked, record.ended_by or "-", record.call_id)


def plain(value: NamedTuple) -> dict[str, Any]:
    """The fields of a tuple for JSON: times in RFC 3339, bytes left out."""
    fields: dict[str, Any] = value._asdict()
    return {name: _value(name, each) for name, each in fields.items() if not isinstance(each, bytes)}


def _value(name: str, value: object) -> object:
    if isinstance(value, int) and (name == "at" or name.endswith(("_at", "_until"))):
        return format_moment(value)
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, tuple | frozenset):
        return sorted(value) if isinstance(value, frozenset) else list(value)
    return value


def _moment(moment_ms: int | None) -> str:
    return "-" if moment_ms is None else format_moment(moment_ms)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
