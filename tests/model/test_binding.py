"""Routes of a binding, by mode (docs/GLOSSARY.md)."""

from __future__ import annotations

import pytest

from relay.model.binding import Binding, BindingRoute, Mode, compile_lines, ends_of_binding, ids_of, number_of
from tests.support.stored import NOW_MS, A, B, X, Y, binding

G1, G2 = "8613600000001", "8613600000002"


def test_axb_both_dial_x() -> None:
    assert list(compile_lines(binding())) == [BindingRoute(X, A, "a"), BindingRoute(X, B, "b")]


@pytest.mark.parametrize(("mode", "y", "dialled"), [("AXB", None, X), ("AXYB", Y, Y)])
def test_while_nobody_is_a_there_is_no_line_but_that_of_b(mode: Mode, y: str | None, dialled: str) -> None:
    assert list(compile_lines(binding(mode=mode, y=y, a=None))) == [BindingRoute(dialled, B, "b")]


def test_axyb_a_dials_x_and_b_dials_y() -> None:
    assert list(compile_lines(binding(mode="AXYB", y=Y))) == [BindingRoute(X, A, "a"), BindingRoute(Y, B, "b")]


@pytest.mark.parametrize("default_a", [A, None])
def test_gxb_members_and_b_dial_x(default_a: str | None) -> None:
    lines = compile_lines(binding(mode="GXB", a=default_a, group_id="g1"), [G1, G2])
    assert list(lines) == [BindingRoute(X, G1, "g"), BindingRoute(X, G2, "g"), BindingRoute(X, B, "b")]


def test_gxyb_members_dial_x_and_b_dials_y() -> None:
    lines = compile_lines(binding(mode="GXYB", y=Y, group_id="g1"), [G1, G2])
    assert list(lines) == [BindingRoute(X, G1, "g"), BindingRoute(X, G2, "g"), BindingRoute(Y, B, "b")]


@pytest.mark.parametrize("default_b", [B, None])
def test_axn_a_and_any_caller_dial_x(default_b: str | None) -> None:
    assert list(compile_lines(binding(mode="AXN", b=default_b))) == [
        BindingRoute(X, A, "a"),
        BindingRoute(X, None, "*"),
    ]


@pytest.mark.parametrize(
    ("made", "joined"),
    [
        (binding(), {A, B}),
        (binding(mode="AXYB", y=Y, a=B, b=A), {A, B}),
        (binding(mode="GXB", group_id="g1"), {f"group g1 {A}", B}),
        (binding(mode="GXYB", y=Y, a=None, group_id="g1"), {"group g1", B}),
        (binding(mode="AXN"), {A, f"* {B}"}),
        (binding(mode="AXN", b=None), {A, "*"}),
    ],
)
def test_ends_do_not_depend_on_their_order(made: Binding, joined: set[str]) -> None:
    assert set(ends_of_binding(made)) == joined
    assert ends_of_binding(made) == tuple(sorted(joined))


def test_a_number_is_read_exactly_by_javascript() -> None:
    assert number_of("0198c0ffee0fff0123456789") == number_of("g0198c0ffee0fff0123456789") < 1 << 53
    first, last = ids_of(number_of("0198c0ffee0fff0123456789"))
    assert first < "0198c0ffee0fff0123456789" < last


def test_binding_is_live_until_it_expires_or_ends() -> None:
    assert binding(expires_at=NOW_MS + 1).is_live(NOW_MS)
    assert not binding(expires_at=NOW_MS + 1).is_live(NOW_MS + 1)
    assert not binding(ended_at=NOW_MS).is_live(NOW_MS)
    assert not binding(expires_at=NOW_MS + 1, released_at=NOW_MS + 1).is_live(NOW_MS)
