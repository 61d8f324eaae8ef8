"""Operations of pools."""

from __future__ import annotations

from tests.api.conftest import PREFIX, Api, Client
from tests.operations.test_numbers import company_binds


async def test_the_usage_of_a_common_pool_shows_no_single_binding_of_another(api: Api, operator: Client) -> None:
    await operator.post("/v1/prefixes", {"prefix": PREFIX})
    await operator.post("/v1/pools", {"id": "common"})
    numbers = [f"{PREFIX}{serial:04d}" for serial in range(300)]
    await operator.post("/v1/numbers/move", {"pool_id": "common", "numbers": numbers}, 200)
    rival = await api.company("rival")
    before = await rival.get("/v1/pools/common/usage")
    for number in numbers[:2]:
        await company_binds(api, number)
    assert await rival.get("/v1/pools/common/usage") == before
    company = await api.company("acme")
    assert await company.get("/v1/pools/common/usage") == before | {"bindings": 2}
    await company_binds(api, numbers[2])
    assert await rival.get("/v1/pools/common/usage") == before | {"free": 297, "bound": 3, "percent": 1}
    assert (await operator.get("/v1/pools/common/usage"))["bindings"] == 3


async def test_a_pool_is_changed_and_made_common(api: Api, operator: Client) -> None:
    await api.company("acme")
    made = await operator.post("/v1/pools", {"id": "bj", "business_id": "acme", "area": "010"})
    changed = await operator.ask("PATCH", "/v1/pools/bj", {"business_id": None, "max_bindings": 5})
    assert changed == made | {"business_id": None, "max_bindings": 5}
    assert await operator.get("/v1/pools/bj") == changed
    assert changed in (await operator.get("/v1/pools"))["items"]
    await operator.refused("POST", "/v1/pools", "state_conflict", {"id": "bj"})
