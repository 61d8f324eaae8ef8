"""How a binding gives back its numbers: at its end, or by the sweep after it has expired.

From then on they cool down, and so does each of its parties on them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from relay.call.binding import Binding
from relay.call.parties import MOBILES_ALONE, Parties
from relay.policy.quotas import Quotas
from relay.policy.rules import Phase, Rules
from relay.service.times import format_moment
from relay.store.act import Act
from relay.store.allocation import cool_down_ms, give_back
from relay.store.bindings import due, set_released
from relay.store.businesses import discount_binding
from relay.store.outbox import tell
from relay.store.routes import rest_routes

Filing = Literal["off", "warn", "require"]
SWEEP = 500  # bindings of one sweep: 40 ms
# Routes that one act writes, give or take those of one binding: 100 ms, for which a call's record may have to wait.
MOST_ROUTES = 10_000


class BindRules(NamedTuple):
    """What the configuration says of bindings."""

    phase: Phase = Rules().phase
    cool_down_ms: int = 24 * 3_600_000  # where a number's prefix has none of its own
    max_bindings: int = 200  # of one number; its pool may allow fewer
    legacy_until_ms: int | None = None  # old middle numbers are bound before this moment alone, and never in the pilot
    recording: bool = False  # calls can be recorded
    parties: Parties = MOBILES_ALONE  # who may be bound
    quotas: Quotas = Quotas()  # of business users that have none of their own
    filing: Filing = "off"  # of A numbers: whether one that is not filed is bound, bound with a warning, or not


def release_due(act: Act, rules: BindRules, most: int = SWEEP) -> int:
    """Gives back the numbers of at most `most` expired bindings, the oldest first, and tells their businesses.

    It is fewer if they are of large groups. Returns how many. Nothing depends on how often it is called: whoever makes
    a binding calls it too.
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


def release(act: Act, binding: Binding, rules: BindRules) -> int:
    """Gives back the numbers of a binding that still holds them. Returns how many routes rest now."""
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
