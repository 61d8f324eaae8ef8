"""Bindings from text, as commands and files make and change them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from relay.defence.limits import Rates
from relay.errors import Refused
from relay.model.binding import Binding, BindingChange
from relay.service import bindings, fields
from relay.service.placement import BindRules, PlacementRequest
from relay.store.unit_of_work import UnitOfWork

Written = dict[str, Any]


def written(mode: str, a: str = "", b: str = "", **more: Any) -> Written:
    return {"mode": mode, "a": a, "b": b, **more}


def bind(unit: UnitOfWork, asked: Written, rules: BindRules, rates: Rates | None = None) -> Binding:
    return bindings.bind(unit, _read(unit, asked, rules), rules, rates)


def bind_all(unit: UnitOfWork, asked: Sequence[Written], rules: BindRules) -> list[Binding | Refused]:
    return bindings.bind_all(unit, [_or_refused(unit, one, rules) for one in asked], rules)


def change(unit: UnitOfWork, binding_id: str, asked: Written, rules: BindRules) -> Binding:
    given = {name: value for name, value in asked.items() if name in fields.BINDING and value is not None}
    parsed = {name: value for name, value in given.items() if value != 0}
    read = fields.binding({"mode": "AXB", **parsed}, rules.parties, unit.now_ms)
    stored = {name: "expires_at" if name == "expires_in" else name for name in given}
    changes = {field: getattr(read, field) for field in stored.values()}
    return bindings.change(unit, binding_id, cast(BindingChange, changes), rules, asked.get("version"))


def _read(unit: UnitOfWork, asked: Written, rules: BindRules) -> PlacementRequest:
    how = {name: asked[name] for name in ("area", "area_match", "late") if name in asked}
    return PlacementRequest(fields.binding(asked, rules.parties, unit.now_ms), **how)


def _or_refused(unit: UnitOfWork, asked: Written, rules: BindRules) -> PlacementRequest | Refused:
    try:
        return _read(unit, asked, rules)
    except Refused as refused:
        return refused
