"""Release of the numbers of a binding: when it is ended, or by the sweep after it has expired.

A released number cools down, and so does each party of the binding on it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from relay.model.binding import Binding
from relay.model.numbers import MOBILES_ALONE, Parties
from relay.policy.rules import Phase, Quotas, Rules
from relay.service.fields import format_moment
from relay.store.allocation import cool_down_ms, give_back, rest_routes
from relay.store.bindings import due, set_released
from relay.store.businesses import discount_binding
from relay.store.unit_of_work import UnitOfWork
from relay.store.webhooks import tell

Filing = Literal["off", "warn", "require"]
SWEEP = 500  # bindings of one sweep: 40 ms
# Routes that one unit of work writes, give or take those of one binding: 100 ms, which may delay a call record.
MOST_ROUTES = 10_000


class BindRules(NamedTuple):
    """The configured rules of bindings."""

    phase: Phase = Rules().phase
    cool_down_ms: int = 24 * 3_600_000  # of numbers whose prefix sets none
    max_bindings: int = 200  # per number; its pool may allow fewer
    legacy_until_ms: int | None = None  # legacy numbers are bound until this time only, and never in the pilot phase
    recording: bool = False  # call recording is configured
    parties: Parties = MOBILES_ALONE  # kinds of numbers that may be bound
    quotas: Quotas = Quotas()  # of business users that set none
    filing: Filing = "off"  # an unfiled A number is bound (off), bound with a warning (warn), or refused (require)


def release_due(act: UnitOfWork, rules: BindRules, most: int = SWEEP) -> int:
    """Release the numbers of at most `most` expired bindings, oldest first, and emit their events. Returns the count.

    Stops early at MOST_ROUTES routes, as with large groups. Correctness does not depend on how often it runs: making a
    binding runs it as well.
    """
    released = routes = 0
    for binding in due(act, most):
        if routes >= MOST_ROUTES:
            break
        routes += release(act, binding, rules)
        released += 1
        data: dict[str, object] = {"binding_id": binding.binding_id, "mode": binding.mode, "order_id": binding.order_id}
        data |= {"industrial_id": binding.industrial_id, "user_data": binding.user_data}
        data |= {"expired_at": format_moment(binding.expires_at or act.now_ms)}
        tell(act, binding.business, "binding.expired", f"{binding.binding_id}.expired", data)
    return released


def release(act: UnitOfWork, binding: Binding, rules: BindRules) -> int:
    """Release the numbers of a binding that still holds them. Returns the count of its routes, now cooling down."""
    routes = 0
    for number in filter(None, (binding.x, binding.y)):
        free_at = act.now_ms + cool_down_ms(act, number, rules.cool_down_ms)
        routes += rest_routes(act, binding.binding_id, number, free_at)
        if give_back(act, number, free_at):
            data = {"number": number, "binding_id": binding.binding_id, "cools_until": format_moment(free_at)}
            tell(act, binding.business, "number.cooling", f"{number}.{act.now_ms}", dict(data))
    discount_binding(act, binding.business)
    set_released(act, binding.binding_id)
    return routes
