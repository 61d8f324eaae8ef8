"""Hand-over: many bindings get another party a at once, and keep their numbers.

A parcel keeps its number while couriers change. Each binding is changed by itself, with all checks of a change, so that
one refusal does not hold up the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from relay.errors import Refused
from relay.model.binding import Binding
from relay.service.bindings import change_live
from relay.service.fields import invalid
from relay.service.placement import BindRules, release_due, undone_if_refused
from relay.store.bindings import live_with_a
from relay.store.unit_of_work import UnitOfWork

CHUNK = 100  # bindings of one unit of work, which ends with their order
MOST_OF_ORDER = 20  # live bindings of one order


class HandOver(NamedTuple):
    """Which bindings get which party a. Parties are E.164 without "+"."""

    business: str
    to_a: str | None  # None: nobody for now
    from_a: str | None = None  # only bindings whose a it is; None: whoever is a
    order_ids: Sequence[str] = ()  # empty: all bindings of `from_a`


class HandOverResult(NamedTuple):
    """The result for one binding; for an order, if it has none to hand over."""

    order_id: str | None
    binding_id: str | None
    refused: Refused | None


def hand_over(
    unit: UnitOfWork, asked: HandOver, after: str, rules: BindRules
) -> tuple[list[HandOverResult], str | None]:
    """Hand over the next CHUNK bindings or more. Returns the results, and the `after` of the rest; None: done.

    `after` is "" at first. Raises Refused if neither orders nor `from_a` are given.
    """
    results, behind = _hand_over(unit, asked, after, rules)
    unit.audit_refusals(result.refused for result in results if result.refused)
    return results, behind


def _hand_over(
    unit: UnitOfWork, asked: HandOver, after: str, rules: BindRules
) -> tuple[list[HandOverResult], str | None]:
    release_due(unit, rules)
    if asked.order_ids:
        place = int(after or 0)
        results: list[HandOverResult] = []
        while place < len(asked.order_ids) and len(results) < CHUNK:
            results += _of_order(unit, asked, asked.order_ids[place], rules)
            place += 1
        return results, str(place) if place < len(asked.order_ids) else None
    if asked.from_a is None:
        raise invalid("order_ids", "required: name orders, or from_a, whose bindings are handed over")
    found = live_with_a(unit, asked.business, a=asked.from_a, after=after, most=CHUNK)
    results = [_handed_over(unit, binding, asked, rules) for binding in found]
    return results, found[-1].binding_id if len(found) == CHUNK else None


def _of_order(unit: UnitOfWork, asked: HandOver, order_id: str, rules: BindRules) -> Iterator[HandOverResult]:
    found = live_with_a(unit, asked.business, order_id=order_id, most=MOST_OF_ORDER + 1)
    if len(found) > MOST_OF_ORDER:
        problem = f"limited to orders of {MOST_OF_ORDER} live bindings: change these one by one, or name from_a alone"
        yield HandOverResult(order_id, None, Refused("quota", "order_ids", problem))
        return
    wanted = [binding for binding in found if asked.from_a is None or binding.a in (asked.from_a, asked.to_a)]
    if not wanted:
        whose = " with from_a as its party a" if asked.from_a else ""
        problem = f"this order has no live binding{whose}: see the list of bindings"
        yield HandOverResult(order_id, None, Refused("not_found", "order_ids", problem))
    for binding in wanted:
        yield _handed_over(unit, binding, asked, rules)


def _handed_over(unit: UnitOfWork, binding: Binding, asked: HandOver, rules: BindRules) -> HandOverResult:
    """The result for a binding, which already has `to_a` after an earlier hand-over."""
    try:
        with undone_if_refused(unit.connection):
            change_live(unit, binding, {"a": asked.to_a}, rules)
    except Refused as refused:
        return HandOverResult(binding.order_id, binding.binding_id, refused)
    return HandOverResult(binding.order_id, binding.binding_id, None)
