"""Import of bindings, filings and carriers' answers from files, and of group members from a list.

Invalid lines are reported and skipped.

Each chunk is one unit of work. The writer pauses between two of them, so that calls are served meanwhile.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

from relay.errors import ParseError, Refused
from relay.model.binding import Binding
from relay.model.numbers import MOBILES_ALONE, Parties
from relay.service import fields
from relay.service.bindings import bind_all
from relay.service.fields import invalid
from relay.service.filings import AnswerWords, FilingWords, Given, answer_filing, file_number
from relay.service.groups import add_members
from relay.service.placement import AreaMatch, BindRules, PlacementRequest
from relay.store.bindings import BindingQuery, find_page
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import Run

_FIRST = ("mode", "x", "y", "a", "b", "expires_in", "order_id", "business", "group", "pool")
MOST_OF_ORDER = 100  # bindings of one order that a repeated import compares
CHUNK = 200  # bindings per transaction, which locks the store for about 30 ms
_FIELDS = {"group": "group_id"}  # column -> field, if the names differ
_HOW = ("area", "area_match", "late")  # how numbers are chosen
COLUMNS = (*_FIRST, *(name for name in fields.BINDING if name not in (*_FIRST, "group_id")), *_HOW)
_YES_OR_NO = {"yes": True, "no": False, "": False}
_MATCHES: dict[str, AreaMatch] = {"": "strict", "strict": "strict", "loose": "loose"}
_FLAGS = (*(name for name in COLUMNS if Binding._field_defaults.get(name) is False), "late")
_SECONDS = tuple(name for name in COLUMNS if name.endswith("_s"))

_Row = tuple[int, list[str] | Refused]  # number of its line; its cells, or why it cannot be read
_Filing = tuple[int, Mapping[str, str] | Refused]  # number of its line; its cells by column
_Line = tuple[int, dict[str, Any] | Refused]  # number of its line; the fields as `fields.binding` reads them


class ImportResult(NamedTuple):
    """The result of one line: a new binding, an existing one, or the reason why there is none."""

    line: int
    refused: Refused | None
    binding: Binding | None = None
    was_there: bool = False


def import_bindings(lines: Iterable[str], run: Run, rules: BindRules) -> Iterator[ImportResult]:
    """Make a binding from each line, lazily, in chunks. The first line may be a header, with columns in any order.

    Raises ParseError for a header with an unknown column, or one column twice.
    """
    read = _read(lines)
    while chunk := list(islice(read, CHUNK)):
        answers = run(partial(_bind_lines, chunk=chunk, rules=rules))
        for (line, _), answer in zip(chunk, answers, strict=True):
            yield _outcome(line, answer)


def _outcome(line: int, answer: Binding | Refused) -> ImportResult:
    return ImportResult(line, answer) if isinstance(answer, Refused) else ImportResult(line, None, answer)


def _bind_lines(unit: UnitOfWork, chunk: Sequence[_Line], rules: BindRules) -> list[Binding | Refused]:
    return bind_all(unit, [_wanted(unit, line, rules) for _, line in chunk], rules)


# -- An import that may be repeated

_Key = tuple[str | None, ...]  # of a binding: what tells it from all others


class _Rehearsed(Exception):
    """Ends a rehearsed unit of work; carries its results."""

    def __init__(self, outcomes: list[ImportResult]) -> None:
        super().__init__()
        self.outcomes = outcomes


def import_once(read: Iterable[_Line], run: Run, rules: BindRules, *, rehearse: bool = False) -> Iterator[ImportResult]:
    """Make a binding from each line, unless its order has one of the same parties, ended or not.

    With `rehearse` nothing is kept: the outcomes say what would be made, with numbers that another run may choose
    differently. Lines of earlier chunks take up no place then.
    """
    lines, seen = iter(read), dict[_Key, int]()
    while chunk := list(islice(lines, CHUNK)):
        try:
            outcomes = run(partial(_bind_new, chunk=chunk, seen=seen, rules=rules, rehearse=rehearse))
        except _Rehearsed as rehearsed:
            outcomes = rehearsed.outcomes
        yield from outcomes


def _bind_new(
    unit: UnitOfWork, chunk: Sequence[_Line], seen: dict[_Key, int], rules: BindRules, *, rehearse: bool
) -> list[ImportResult]:
    found: list[ImportResult | None] = []
    asked: list[PlacementRequest | Refused] = []
    for number, line in chunk:
        wanted = _wanted(unit, line, rules)
        there = None
        if not isinstance(wanted, Refused):
            key = _key(wanted.binding)
            if seen.setdefault(key, number) != number:
                wanted = invalid("line", f"repeats line {seen[key]}")
            else:
                there = _there(unit, wanted.binding, key)
        found.append(there and ImportResult(number, None, there, was_there=True))
        asked += [] if there else [wanted]
    answers = iter(bind_all(unit, asked, rules))
    outcomes = [one or _outcome(number, next(answers)) for one, (number, _) in zip(found, chunk, strict=True)]
    if rehearse:
        raise _Rehearsed(outcomes)
    return outcomes


def _key(binding: Binding) -> _Key:
    return binding.business, binding.order_id, binding.mode, binding.a, binding.b, binding.group_id


def _there(unit: UnitOfWork, wanted: Binding, key: _Key) -> Binding | None:
    query = BindingQuery(business=wanted.business, order_id=wanted.order_id)
    of_order = find_page(unit.connection, unit.sealer, query, unit.now_ms, None, MOST_OF_ORDER)
    return next((binding for binding in of_order if _key(binding) == key), None)


def _wanted(unit: UnitOfWork, line: dict[str, Any] | Refused, rules: BindRules) -> PlacementRequest | Refused:
    if isinstance(line, Refused):
        return line
    try:
        area, match, late = (line.get(name) or "" for name in ("area", "area_match", "late"))
        if match.strip() not in _MATCHES:
            raise invalid("area_match", "must be one of: strict, loose")
        binding = fields.binding(line, rules.parties, unit.now_ms)
        return PlacementRequest(binding, area.strip(), _MATCHES[match.strip()], bool(late))
    except Refused as refused:
        return refused


def import_members(lines: Iterable[str], group_id: str, run: Run, rules: BindRules) -> Iterator[int]:
    """Add the number on each line to a group, in chunks; yields the count of new members in each.

    Raises Refused for the first chunk that cannot be added, with the line at fault if it is one; earlier ones remain.
    """
    numbered = ((place, line.strip()) for place, line in enumerate(lines, 1) if line.strip())
    while chunk := list(islice(numbered, CHUNK)):
        try:
            added = run(partial(add_members, group_id=group_id, numbers=[line for _, line in chunk], rules=rules))
        except Refused as refused:
            _, _, index = refused.field.partition("members.")
            if not index:
                raise
            line, _ = chunk[int(index)]
            raise Refused(refused.kind, f"line {line}", refused.problem) from None
        yield added


def _read(lines: Iterable[str]) -> Iterator[_Line]:
    columns, rows = _headed(lines, COLUMNS, ("mode", "a", "b"))
    for line, cells in rows:
        yield line, cells if isinstance(cells, Refused) else _fields(columns or COLUMNS, cells)


def _headed(lines: Iterable[str], known: Sequence[str], marks: Sequence[str]) -> tuple[tuple[str, ...], Iterator[_Row]]:
    """The columns if the first row is a header, which has one of `marks`; and the other rows. Empty rows are left out.

    Raises ParseError for a header with an unknown column or one column twice, and for a first row that is no CSV.
    """
    rows = (row for row in _rows(lines) if isinstance(row[1], Refused) or any(cell.strip() for cell in row[1]))
    first = next(rows, None)
    if first is None:
        return (), rows
    line, cells = first
    if isinstance(cells, Refused):  # it may name the columns of all others
        raise ParseError(f"line {line}: {cells.problem}")
    columns = tuple(cell.strip().lower().lstrip("\ufeff") for cell in cells)
    if set(marks).isdisjoint(columns):
        return (), chain([first], rows)
    for place, column in enumerate(columns):
        if column not in known:
            raise ParseError(f"line {line}: unknown column {column!r}: use {','.join(known)}")
        if column in columns[:place]:
            raise ParseError(f"line {line}: the column {column!r} is there twice")
    return columns, rows


def _rows(lines: Iterable[str]) -> Iterator[_Row]:
    """The rows of a CSV file. One over several lines is refused: most often a quote is open."""
    reader = csv.reader(lines, strict=True)
    while True:
        line = reader.line_num + 1
        cells: list[str] | Refused
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            is_open = str(error) == "unexpected end of data"
            cells = invalid("line", "a quote in it is open" if is_open else f"must be CSV: {error}")
        if reader.line_num > line:
            cells = invalid("line", f"a quote in it is open to line {reader.line_num}: none of these lines is read")
        yield line, cells


def _fields(columns: tuple[str, ...], cells: list[str]) -> dict[str, Any] | Refused:
    if len(cells) > len(columns):
        return invalid("line", f"must have at most {len(columns)} cells, not {len(cells)}")
    read: dict[str, Any] = {}
    for column, cell in zip(columns, cells, strict=False):
        if column in _SECONDS and cell.strip():
            if not (cell.strip().isascii() and cell.strip().isdecimal() and len(cell) < 10):
                return invalid(column, "must be a number of seconds")
            read[column] = int(cell)
        elif column in _FLAGS:
            if cell.strip().lower() not in _YES_OR_NO:
                return invalid(column, 'must be "yes" or "no"')
            read[column] = _YES_OR_NO[cell.strip().lower()]
        elif column not in _SECONDS:
            read[_FIELDS.get(column, column)] = cell
    return read


# -- Filings of A numbers, and carriers' answers to them


def import_filings(
    lines: Iterable[str],
    business: str,
    run: Run,
    parties: Parties = MOBILES_ALONE,
    state: Given | None = None,
) -> Iterator[ImportResult]:
    """File the number on each line of a CSV file (the fields of FilingWords), in chunks.

    Invalid lines are skipped. Raises ParseError for a header with an unknown column, or one column twice.
    """

    def take(unit: UnitOfWork, cells: Mapping[str, str]) -> None:
        file_number(unit, business, FilingWords(**{"number": "", **cells}), parties, state)

    rows = _filing_rows(lines, FilingWords._fields)
    return _import_filings(rows, run, take, business, "filing.import", "filed")


def import_answers(lines: Iterable[str], business: str, run: Run) -> Iterator[ImportResult]:
    """Enter the carrier's answer on each line of a CSV file (the fields of AnswerWords), in chunks.

    Invalid lines are skipped. Raises ParseError for a header with an unknown column, or one column twice.
    """

    def take(unit: UnitOfWork, cells: Mapping[str, str]) -> None:
        answer_filing(unit, business, AnswerWords(**cells))

    rows = _filing_rows(lines, AnswerWords._fields)
    return _import_filings(rows, run, take, business, "filing.answers", "records")


def _import_filings(
    rows: Iterator[_Filing],
    run: Run,
    take: Callable[[UnitOfWork, Mapping[str, str]], None],
    business: str,
    action: str,
    counted: str,
) -> Iterator[ImportResult]:
    def do(unit: UnitOfWork) -> list[ImportResult]:
        outcomes = []
        for line, cells in chunk:
            try:
                if isinstance(cells, Refused):
                    raise cells
                take(unit, cells)
                outcomes.append(ImportResult(line, None))
            except Refused as refused:
                outcomes.append(ImportResult(line, refused))
        if taken := sum(outcome.refused is None for outcome in outcomes):
            unit.audit(action, business, business=business, details={counted: taken})
        return outcomes

    while chunk := list(islice(rows, CHUNK)):
        yield from run(do)


def _filing_rows(lines: Iterable[str], known: Sequence[str]) -> Iterator[_Filing]:
    """The rows of a CSV file by column, with their line numbers. The first line may name the columns.

    Raises ParseError for a header with an unknown column, or one column twice.
    """
    named, rows = _headed(lines, known, known)
    columns, least = named or known, len(named) or 2
    for line, row in rows:
        if isinstance(row, Refused):
            yield line, row
            continue
        cells = [cell.strip() for cell in row]
        if least <= len(cells) <= len(columns):
            yield line, dict(zip(columns, cells, strict=False))
        else:
            count = str(len(columns)) if least == len(columns) else f"{least} to {len(columns)}"
            problem = f"must have {count} cells ({','.join(columns)}), not {len(cells)}"
            yield line, invalid("line", problem)
