"""Many bindings from a CSV file: good lines are made, bad ones named. It knows no store and no command line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from relay.errors import ParseError
from relay.service.bindings import BindingRefused, BindingRequest, BindingService

COLUMNS = ("mode", "x", "y", "a", "b", "expires_in", "order_id", "business")
CHUNK = 500  # bindings a transaction: a relay that serves waits some tens of milliseconds for the lock

_Numbered = tuple[int, BindingRequest | BindingRefused]


class Outcome(NamedTuple):
    """What became of one line; `refused` is None where the binding was made."""

    line: int
    refused: BindingRefused | None


def import_bindings(lines: Iterable[str], service: BindingService, now_ms: int) -> Iterator[Outcome]:
    """Makes a binding of each line, lazily, a chunk at a time. The first line may name the columns, in any order.

    Raises ParseError for a first line that names columns that do not exist.
    """
    requests = _requests(lines)
    while chunk := list(islice(requests, CHUNK)):
        asked = [request for _, request in chunk if isinstance(request, BindingRequest)]
        answers = iter(service.bind_all(asked, now_ms))
        for line, request in chunk:
            answer = next(answers) if isinstance(request, BindingRequest) else request
            yield Outcome(line, answer if isinstance(answer, BindingRefused) else None)


def _requests(lines: Iterable[str]) -> Iterator[_Numbered]:
    columns: tuple[str, ...] = COLUMNS
    reader = csv.reader(lines)
    first = True
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, BindingRefused("line", f"it is no CSV: {error}")
            continue
        if first and _is_header(cells):
            columns = _header(cells)
        elif any(cell.strip() for cell in cells):
            yield reader.line_num, _request(columns, cells)
        first = False


def _is_header(cells: list[str]) -> bool:
    return any(cell.strip().lower().lstrip("\ufeff") in ("mode", "a", "b") for cell in cells)


def _header(cells: list[str]) -> tuple[str, ...]:
    columns = tuple(cell.strip().lower().lstrip("\ufeff") for cell in cells)
    if wrong := [column for column in columns if column not in COLUMNS]:
        raise ParseError(f"line 1: there is no column {wrong[0]!r}: the columns are {','.join(COLUMNS)}")
    return columns


def _request(columns: tuple[str, ...], cells: list[str]) -> BindingRequest | BindingRefused:
    if len(cells) > len(columns):
        return BindingRefused("line", f"it has {len(cells)} cells, and there are {len(columns)} columns")
    fields = dict.fromkeys(("mode", "a", "b"), "") | dict(zip(columns, cells, strict=False))
    return BindingRequest(**fields)
