"""Routes of hooks: one for each business user, its secret shown once, and its rights those of the key that set it."""

from __future__ import annotations

import pytest

from relay.service.placement import BindRules
from tests.api.conftest import Api, Client

PATH = "/v1/businesses/acme/hook"
URL = "https://acme.example/hook"


async def test_a_hook_is_set_shown_changed_and_removed(api: Api) -> None:
    company = await api.company("acme", ["hooks"])
    problem = await company.refused("GET", PATH, "not_found")
    assert problem["detail"] == "this business user has no hook"
    made = await company.ask("PUT", PATH, {"url": URL})
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert (made["url"], made["parties"], made["unknown_callers"], made["enabled"]) == (URL, "masked", False, True)
    assert await company.get(PATH) == made
    changed = await company.ask("PUT", PATH, {"url": URL, "parties": "none", "enabled": False})
    assert (changed["secret"], changed["parties"], changed["enabled"]) == (None, "none", False)
    gone = await company.ask("DELETE", PATH, None)
    assert gone["url"] == URL
    await company.refused("DELETE", PATH, "not_found")
    assert (await company.ask("PUT", PATH, {"url": URL}))["secret"] not in (None, secret)


@pytest.mark.parametrize(
    ("scopes", "asked", "kind", "field"),
    [
        (["hooks"], {"url": "http://acme.example/"}, "invalid", "url"),
        (["hooks"], {"url": "https://10.0.0.1/"}, "invalid", "url"),
        (["hooks"], {"url": "https://localhost/"}, "invalid", "url"),
        (["hooks"], {}, "invalid", "url"),
        (["hooks"], {"url": URL, "parties": "clear"}, "forbidden", "parties"),
        (["hooks"], {"url": URL, "unknown_callers": True}, "forbidden", "unknown_callers"),
    ],
)
async def test_a_key_gives_a_hook_no_right_that_it_lacks(
    api: Api, scopes: list[str], asked: dict[str, object], kind: str, field: str
) -> None:
    company = await api.company("acme", scopes)
    problem = await company.refused("PUT", PATH, kind, asked)
    assert problem["errors"][0]["field"] == field


async def test_a_key_that_may_see_and_bind_lets_a_hook_see_and_bind(api: Api) -> None:
    scopes = ["hooks", "parties:read", "bindings:write"]
    company = await api.company("acme", scopes)
    made = await company.ask("PUT", PATH, {"url": URL, "parties": "clear", "unknown_callers": True})
    assert (made["parties"], made["unknown_callers"]) == ("clear", True)
    query = "SELECT actor, action, object, business FROM audit WHERE action = 'hook.set'"
    rows = await api.run(lambda unit: unit.connection.execute(query).fetchall())
    assert rows == [(f"key:{company.key.split('_')[1]}", "hook.set", "acme", "acme")]


async def test_a_hook_cannot_be_set_where_hooks_are_not_configured(api: Api, company: Client) -> None:
    api.backend.settings = api.backend.settings._replace(rules=BindRules())
    operator = await api.operator(["hooks"])
    problem = await operator.refused("PUT", PATH, "state_conflict", {"url": URL})
    assert "an operator adds [hooks]" in problem["detail"]
