"""Bindings from CSV files."""

from __future__ import annotations

import pytest

from relay.errors import ParseError
from relay.service.bindings import BindingService
from relay.service.imports import CHUNK, import_bindings
from relay.store.bindings import Bindings
from tests.support.stored import NOW_MS, PREFIX, X, Y

HEADER = "mode,x,y,a,b,expires_in,order_id,business\n"
GOOD = f"AXB,{X},,13800000001,13900000002,2h,17,default\n"


def run(service: BindingService, text: str) -> dict[int, str | None]:
    outcomes = import_bindings(text.splitlines(keepends=True), service, NOW_MS)
    return {line: refused and str(refused) for line, refused in outcomes}


def test_lines_become_bindings(service: BindingService, store: Bindings) -> None:
    text = HEADER + GOOD + f"axyb,{X},{Y},8001,8002,,,\n" + '\n  \nAXB,,,"8003",8004\n'
    assert run(service, text) == {2: None, 3: None, 6: None}
    made = {(found.mode, found.a, found.b): found for found in store.all()}
    assert set(made) == {("AXB", "8613800000001", "8613900000002"), ("AXYB", "8001", "8002"), ("AXB", "8003", "8004")}
    first = made["AXB", "8613800000001", "8613900000002"]
    assert (first.x, first.order_id, first.expires_at) == (X, "17", NOW_MS + 7_200_000)
    assert made["AXYB", "8001", "8002"].order_id is None


def test_the_header_may_be_missing_or_in_another_order(service: BindingService, store: Bindings) -> None:
    assert run(service, GOOD) == {1: None}
    assert run(service, "\ufeffb,A,mode\n8001,8002,AXB\n") == {2: None}
    assert ("8002", "8001") in {(found.a, found.b) for found in store.all()}


def test_a_column_that_does_not_exist_is_named(service: BindingService) -> None:
    with pytest.raises(ParseError, match=r"line 1: there is no column 'expires': the columns are mode,x,y"):
        run(service, "mode,a,b,expires\nAXB,8001,8002,2h\n")


def test_bad_lines_are_named_and_good_ones_still_made(service: BindingService, store: Bindings) -> None:
    text = (
        HEADER
        + GOOD
        + GOOD
        + "GXB,,,8001,8002\nAXB,,,8001\nAXB,,,8001,8002,2,,\n"
        + "AXB,,,,,,,,,\n"
        + "AXB,,,1,8002\n"
    )
    text += 'AXB,,,8001,8002,,"two\nlines",\n' + "AXB,,,8003,8004\n"
    assert run(service, text) == {
        2: None,
        3: f"a: 138****0001 is bound on {X} already: unbind it or take another number",
        4: "mode: it is AXB or AXYB",
        5: "b: it is missing",
        6: "expires_in: not a duration: write a number with its unit, as 90s, 30m, 2h or 7d",
        7: "line: it has 10 cells, and there are 8 columns",
        8: "a: a number has 3 to 15 digits",
        10: "order_id: it is printable text of at most 128 characters",
        11: None,
    }
    assert len(list(store.all())) == 2


def test_a_line_that_is_no_csv_is_named(service: BindingService) -> None:
    outcomes = run(service, HEADER + f"AXB,,,8001,{'8' * 200_000}\n" + GOOD)
    assert "no CSV" in str(outcomes[2])
    assert outcomes[3] is None


def test_an_empty_file_makes_nothing(service: BindingService) -> None:
    assert run(service, "") == run(service, HEADER) == {}


def test_each_chunk_is_made_before_the_next_is_read(service: BindingService, store: Bindings) -> None:
    made_when_asked = []

    def lines() -> object:
        for n in range(2 * CHUNK):
            if n == CHUNK:
                made_when_asked.append(sum(1 for _ in store.all()))
            yield f"AXB,{PREFIX}{n:04d},,8001,8002\n"

    assert sum(1 for _ in import_bindings(lines(), service, NOW_MS)) == 2 * CHUNK  # type: ignore[arg-type]
    assert made_when_asked == [CHUNK]
