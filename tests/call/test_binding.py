"""What a binding compiles to (the table in DESIGN 1)."""

from __future__ import annotations

from relay.call.binding import Line, compile_lines
from tests.support.stored import A, B, X, Y, binding


def test_axb_shows_x_to_both() -> None:
    assert compile_lines(binding()) == (Line(X, A, "a", target=B, shown=X), Line(X, B, "b", target=A, shown=X))


def test_axyb_shows_each_the_number_that_it_dials() -> None:
    lines = compile_lines(binding(mode="AXYB", y=Y))
    assert lines == (Line(X, A, "a", target=B, shown=Y), Line(Y, B, "b", target=A, shown=X))
