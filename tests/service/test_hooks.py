"""The rules of hooks: whose they are, what they may be told, and where they may be."""

from __future__ import annotations

from typing import Any

import pytest

from relay.errors import Refused
from relay.model.call import Route
from relay.service.businesses import set_state
from relay.service.hooks import drop_hook, get_hook, set_hook
from relay.service.placement import BindRules
from relay.store.unit_of_work import Actor
from tests.service.conftest import Backend
from tests.support.stored import A

RULES = BindRules(hooks=True)
URL = "https://shop.example/hook"
OWN = Actor("key:1", "shop", frozenset(["hooks"]))
OTHER = Actor("key:2", "other", frozenset(["hooks", "parties:read", "bindings:write"]))


@pytest.fixture
def shop(backend: Backend) -> Backend:
    backend.business("shop")
    backend.business("other")
    return backend


def put(shop: Backend, actor: Actor | None = None, rules: BindRules = RULES, **more: Any) -> Any:
    return shop.run(lambda unit: set_hook(unit, "shop", rules, **{"url": URL} | more), actor)


def refused(shop: Backend, actor: Actor = OWN, rules: BindRules = RULES, **more: Any) -> tuple[str, str]:
    with pytest.raises(Refused) as refusal:
        put(shop, actor, rules, **more)
    return refusal.value.kind, refusal.value.field


def test_a_hook_has_one_secret_for_its_life(shop: Backend) -> None:
    hook, secret = put(shop, OWN)
    assert (hook.secret, hook.internal, hook.parties, hook.unknown_callers) == (secret, False, "masked", False)
    again, none = put(shop, OWN, parties="none")
    assert (again.secret, none, again.parties) == (secret, None, "none")
    shop.run(lambda unit: drop_hook(unit, "shop"), OWN)
    assert put(shop, OWN)[1] != secret


def test_what_is_not_given_stays(shop: Backend) -> None:
    first, _ = put(shop, parties="clear", unknown_callers=True)
    shop.now_ms += 1_000
    changed, _ = shop.run(lambda unit: set_hook(unit, "shop", RULES, enabled=False))
    assert changed == first._replace(disabled_at=shop.now_ms, changed_at=shop.now_ms)
    assert shop.run(lambda unit: get_hook(unit, "shop")) == changed


@pytest.mark.parametrize(
    "url",
    ["", "http://shop.example/", "https://10.1.2.3/", "https://localhost/", "https://a:b@shop.example/", "ftp://x"],
)
def test_a_business_user_s_hook_is_at_a_public_https_address(shop: Backend, url: str) -> None:
    assert refused(shop, url=url) == ("invalid", "url")


def test_an_operator_s_may_be_anywhere(shop: Backend) -> None:
    for url in ("https://10.1.2.3/", "http://127.0.0.1:8080/"):
        assert put(shop, url=url)[0].internal
    assert not put(shop, OWN)[0].internal  # its address decides, and who set that


def test_a_key_gives_no_right_that_it_lacks(shop: Backend) -> None:
    assert refused(shop, parties="clear") == ("forbidden", "parties")
    assert refused(shop, unknown_callers=True) == ("forbidden", "unknown_callers")
    assert refused(shop, parties="all") == ("invalid", "parties")
    put(shop, parties="clear", unknown_callers=True)
    assert refused(shop, url="https://evil.example/") == ("forbidden", "parties")
    put(shop, OWN, url=None, enabled=False)
    assert refused(shop, url=None, enabled=True) == ("forbidden", "parties")


def test_nobody_sees_or_sets_the_hook_of_another(shop: Backend) -> None:
    put(shop)
    assert refused(shop, OTHER) == ("not_found", "business")
    for do in (get_hook, drop_hook):
        with pytest.raises(Refused, match="there is no such business user"):
            shop.run(lambda unit, do=do: do(unit, "shop"), OTHER)


def test_hooks_need_the_operator_s_configuration(shop: Backend) -> None:
    assert refused(shop, rules=BindRules()) == ("state_conflict", "")
    put(shop)
    shop.run(lambda unit: set_hook(unit, "shop", BindRules(), enabled=False))
    shop.run(lambda unit: drop_hook(unit, "shop"))


def test_a_look_up_learns_of_the_hook(shop: Backend) -> None:
    made = shop.bind(business="shop", order_id="o")

    def asks() -> bool:
        answer = shop.call(made.x, A)
        assert isinstance(answer, Route)
        return answer.hook

    assert not asks()
    put(shop)
    assert asks()
    put(shop, enabled=False)
    assert not asks()
    put(shop, enabled=True)
    shop.run(lambda unit: drop_hook(unit, "shop"))
    assert not asks()


def test_a_revoked_business_user_has_no_hook(shop: Backend) -> None:
    put(shop)
    shop.run(lambda unit: set_state(unit, "shop", "revoke", "fraud"))
    assert shop.one("SELECT count(*) FROM hook") == (0,)


def test_each_change_is_audited(shop: Backend) -> None:
    put(shop, OWN)
    shop.run(lambda unit: drop_hook(unit, "shop"), OWN)
    found = shop.connection.execute("SELECT actor, action, object, business FROM audit ORDER BY seq DESC LIMIT 2")
    assert found.fetchall() == [("key:1", "hook.remove", "shop", "shop"), ("key:1", "hook.set", "shop", "shop")]
