"""The operation that shows the phase."""

from __future__ import annotations

from relay.policy.rules import PilotDates
from relay.service.numbers import ensure_numbers
from relay.service.placement import BindRules
from relay.store.writer import now_ms
from tests.api.conftest import Api, Client

OLD = "8617012345678"


async def test_a_business_user_sees_its_own_part_alone(api: Api, operator: Client, company: Client) -> None:
    soon = now_ms() + 86_400_000
    rules = BindRules(phase="auto", dates=PilotDates(pilot_ms=soon))
    api.backend.settings = api.backend.settings._replace(rules=rules)
    await api.run(lambda unit: ensure_numbers(unit, (), [OLD]))
    axb = {"mode": "AXB", "a": "13800000001", "b": "13900000002", "x": OLD, "expires_in": 60}
    await operator.post("/v1/bindings", axb)
    shown = await operator.get("/v1/phase")
    assert (shown["phase"], shown["days_left"], shown["in_time"]) == ("transition", 1, True)
    assert [(each["business_id"], each["bindings"]) for each in shown["left"]] == [("default", 1)]
    own = await company.get("/v1/phase")
    assert (own["phase"], own["left"]) == ("transition", [])
