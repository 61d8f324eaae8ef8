"""Decisions of hooks about calls: a real store and a real HTTP hook, from the look-up to the engine's answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from relay.call_hooks import MOST_UNKNOWN, CallHooks, HookLimits, HookStore
from relay.config.parties import read_parties
from relay.config.tables import NumbersTable
from relay.model.actions import LookUp
from relay.model.call import Refusal, Route
from relay.net import hook_client
from relay.net.hook_client import HookClient, HookEndpoint
from relay.policy.call_policy import CallPolicy
from relay.policy.decision import FAILURES, Bounds
from relay.policy.rules import Rules
from relay.service.businesses import set_state
from relay.service.filings import FilingWords, add_filing
from relay.service.groups import make_group
from relay.service.hooks import set_hook
from relay.service.numbers import make_pool, move, new_pool, new_prefix
from relay.service.placement import BindRules
from relay.store.bindings import all_bindings
from relay.store.database import connect_reader
from relay.store.sqlite.lookup import RouteReader
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.support.hook import SECRET
from tests.support.hook import Hook as Endpoint
from tests.support.papers import PAPERS, apply
from tests.support.places import store_in
from tests.support.stored import PREFIX, A, B, X, Y
from tests.support.written import bind, written

STRANGER, COURIER = "8613700000003", "8613600000004"
Z = PREFIX + "0003"
RULES = BindRules(hooks=True)
QUICK_S = 0.05


class Shop:
    """A store in which the business user "shop" has A and B bound on X; its hook; and the relay's part of a call."""

    def __init__(self, folder: Path, endpoint: Endpoint) -> None:
        path, self.sealer = store_in(folder, new_prefix(PREFIX))
        assert isinstance(path, Path)
        self.path = path
        self.endpoint = endpoint
        self.bind_rules = RULES
        self.rules = Rules(bind_unknown=True)
        self.fail_open = False
        self.verify: HookEndpoint | None = None
        self.timeout_s = 20.0
        self.reports: list[tuple[str, dict[str, object]]] = []
        self._writer = Writer(path, self.sealer)
        for name in ("shop", "other"):
            self.run(lambda unit, name=name: apply(unit, name, name, **PAPERS))
            self.run(lambda unit, name=name: set_state(unit, name, "approve", "checked"))
        self.bind("shop", A, B, X)

    def run(self, do: Any) -> Any:
        return self._writer.run(RELAY, do)

    def bind(self, business: str, a: str, b: str, x: str) -> None:
        asked = written("AXB", a, b, x=x, business=business, order_id="o")
        self.run(lambda unit: bind(unit, asked, RULES))

    def hook(self, business: str = "shop", **more: Any) -> None:
        """Set the hook, with the endpoint's secret."""
        more = {"url": self.endpoint.url, "parties": "clear", "unknown_callers": True} | more
        _, secret = self.run(lambda unit: set_hook(unit, business, RULES, **more))
        self.endpoint.secret = secret or self.endpoint.secret

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(connect_reader(self.path)) as connection:
            return connection.execute(query).fetchall()

    def bindings(self) -> list[tuple[str, str | None, str | None, str]]:
        with closing(connect_reader(self.path)) as connection:
            return [(each.x, each.a, each.b, each.created_by) for each in all_bindings(connection, self.sealer)]

    @asynccontextmanager
    async def relay(self) -> AsyncIterator[Relay]:
        made = Relay(self)
        await made.hooks.open()
        try:
            yield made
        finally:
            await made.close()

    async def call(self, caller: str = A, number: str = X, **more: Any) -> Route | Refusal:
        async with self.relay() as relay:
            return await relay.call(caller, number, **more)

    def close(self) -> None:
        self._writer.close()


class Relay:
    """Look-up, policy and hooks, wired as `relay.sip_service` does."""

    def __init__(self, shop: Shop) -> None:
        self.reader = RouteReader(shop.path, shop.sealer, shop.rules, self.report)
        self.shop = shop
        limits = HookLimits(shop.timeout_s, shop.fail_open, True)
        self.hooks = CallHooks(
            HookClient(self.report),
            HookStore(shop.path, shop.sealer, shop.bind_rules),
            Bounds(shop.bind_rules.parties, False, 14_400.0, 90.0),
            self.report,
            self.look_up_again,
            lambda asked: self.policy.not_bound(asked, time.time()),
            None if shop.verify is None else (shop.verify, limits),
            limits,
        )
        self.policy = CallPolicy(self.reader.fetch, shop.rules, lambda last: None, decide=self.hooks.decide)

    def report(self, event: str, fields: dict[str, object]) -> None:
        self.shop.reports.append((event, fields))

    async def look_up_again(self, asked: LookUp) -> Route | Refusal:
        return self.policy.look_up(asked.number, asked.caller, time.time(), asked.peer)

    def dial(self, asked: LookUp) -> asyncio.Future[Route | Refusal]:
        answer: asyncio.Future[Route | Refusal] = asyncio.get_running_loop().create_future()
        self.policy.route(asked, time.time(), lambda token, given: answer.set_result(given))
        return answer

    async def call(self, caller: str = A, number: str = X, kind: Any = "call") -> Route | Refusal:
        return await asyncio.wait_for(self.dial(LookUp(7, number, caller, kind, call_id="c1")), 20)

    async def close(self) -> None:
        await self.hooks.close()
        self.reader.close()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    with made.serving():
        yield made


@pytest.fixture
def shop(tmp_path: Path, endpoint: Endpoint) -> Iterator[Shop]:
    endpoint.asked.clear()
    endpoint.answers.clear()
    endpoint.secret = SECRET
    with closing(Shop(tmp_path, endpoint)) as made:
        yield made


def short(answer: Route | Refusal) -> tuple[str, str]:
    """The target or the outcome, and whose answer decided."""
    return answer.callee if isinstance(answer, Route) else answer.outcome, answer.decided_by


def wrong_fields(shop: Shop) -> list[object]:
    return [fields["field"] for event, fields in shop.reports if event == "hook.answer_wrong"]


# -- calls with a route


async def test_a_business_user_without_a_hook_has_its_calls_unasked(shop: Shop) -> None:
    assert short(await shop.call()) == (B, "")
    assert (await shop.call(STRANGER)).outcome == "no_binding"  # type: ignore[union-attr]
    assert shop.endpoint.asked == []


async def test_the_hook_is_asked_without_the_callee_and_allows(shop: Shop) -> None:
    shop.hook()
    assert short(await shop.call()) == (B, "hook")
    (question,) = shop.endpoint.asked
    told = {"kind": "call", "number": X, "caller": A, "known": True, "business_id": "shop", "mode": "AXB"}
    assert question | told | {"direction": "a_to_b"} == question
    assert B not in str(question)


@pytest.mark.parametrize(("parties", "told"), [("clear", A), ("masked", "138****0001"), ("none", None)])
async def test_the_hook_sees_the_caller_as_its_parties_says(shop: Shop, parties: str, told: str | None) -> None:
    shop.hook(parties=parties)
    for caller in (A, STRANGER):
        await shop.call(caller)
    first, second = (question["caller"] for question in shop.endpoint.asked)
    assert first == told
    assert second == {A: STRANGER, None: None}.get(told, "137****0003")


async def test_a_hook_that_is_switched_off_or_removed_is_not_asked(shop: Shop) -> None:
    shop.hook()
    shop.hook(enabled=False)
    assert short(await shop.call()) == (B, "")
    assert short(await shop.call(STRANGER)) == ("no_binding", "")
    shop.hook(enabled=True)
    shop.run(lambda unit: set_state(unit, "shop", "revoke", "fraud"))
    assert short(await shop.call()) == ("business_revoked", "")
    assert shop.endpoint.asked == []


@pytest.mark.parametrize("statement", ["UPDATE hook SET disabled_at = 1", "DELETE FROM hook"])
async def test_a_hook_that_goes_between_look_up_and_question_refuses_the_call(shop: Shop, statement: str) -> None:
    shop.hook()
    async with shop.relay() as relay:
        answer = relay.dial(LookUp(7, X, A))
        shop.run(lambda unit: unit.connection.execute(statement))
        assert short(await answer) == ("verification_failed", "hook")
    assert shop.endpoint.asked == []


async def test_the_hook_refuses_with_an_announcement(shop: Shop) -> None:
    shop.hook()
    shop.endpoint.answers[X] = {"allow": False, "announce": "outside_hours"}
    answer = await shop.call()
    assert short(answer) == ("verification_refused", "hook")
    assert isinstance(answer, Refusal)
    assert (answer.announce, answer.business, answer.binding_id is not None) == ("outside_hours", "shop", True)


async def test_the_hook_connects_to_another_party_of_its_business_user(shop: Shop) -> None:
    shop.hook()
    shop.bind("shop", COURIER, "8613500000005", Z)
    shop.run(lambda unit: make_group(unit, "riders", RULES, "shop", ["13400000006"]))
    shop.run(lambda unit: add_filing(unit, "shop", FilingWords("13300000007", "ref")))
    for target in (COURIER, "8613500000005", "8613400000006", "8613300000007"):
        shop.endpoint.answers[X] = {"allow": True, "target": target, "show": Z, "max_duration_s": 60}
        answer = await shop.call()
        assert isinstance(answer, Route), (answer, shop.reports)
        assert (answer.callee, answer.shown, answer.max_call_s) == (target, Z, 60.0)


async def test_whatever_is_not_its_own_refuses_the_call(shop: Shop) -> None:
    shop.hook()
    shop.bind("other", COURIER, "8613500000005", Y)
    for field, answer in [
        *[("target", {"target": number}) for number in (STRANGER, COURIER, A, "110", "8675586666666")],
        *[("show", {"show": number}) for number in (Y, Z, "700100000020001")],
        ("bind", {"bind": {"order_id": "o1"}}),
        ("record", {"record": True}),
        ("colour", {"colour": "red"}),
    ]:
        shop.reports.clear()
        shop.endpoint.answers[X] = {"allow": True, **answer}
        assert short(await shop.call()) == ("verification_failed", "hook"), answer
        assert wrong_fields(shop) == [field]
        assert not [number for number in (STRANGER, COURIER, A) if number[2:] in str(shop.reports)]


async def test_a_target_in_place_of_an_a_number_must_be_filed_where_filing_is_required(shop: Shop) -> None:
    shop.hook()
    shop.bind("shop", COURIER, "8613500000005", Z)
    shop.bind_rules = shop.bind_rules._replace(filing="require")
    shop.endpoint.answers[X] = {"allow": True, "target": COURIER}
    assert short(await shop.call(A)) == (COURIER, "hook")
    assert short(await shop.call(B)) == ("verification_failed", "hook")
    shop.run(lambda unit: add_filing(unit, "shop", FilingWords(COURIER, "ref")))
    assert short(await shop.call(B)) == (COURIER, "hook")


async def test_a_hook_that_does_not_answer_fails_closed_or_open_as_configured(shop: Shop) -> None:
    shop.hook(url="http://127.0.0.1:1/")
    assert short(await shop.call()) == ("verification_failed", "hook")
    shop.fail_open = True
    async with shop.relay() as relay:
        for _ in range(FAILURES + 1):
            assert short(await relay.call()) == (B, "")
        assert short(await relay.call(STRANGER)) == ("verification_failed", "hook")
        told = relay.hooks.statistics()
    assert told["hook_breaker_open"] == {"hook shop": 1}
    assert told["verifications"] == {"hook failed": FAILURES, "hook not_asked": 2}


async def test_an_answer_without_the_right_signature_refuses_even_where_a_failure_lets_through(shop: Shop) -> None:
    shop.hook()
    shop.endpoint.secret, shop.fail_open = "another", True
    assert short(await shop.call()) == ("verification_failed", "hook")


async def test_a_flood_makes_no_call_pass_unasked(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_client, "MOST_OF_ONE", 0)
    shop.hook()
    shop.fail_open = True
    assert short(await shop.call()) == ("verification_failed", "hook")


async def test_a_row_that_was_altered_refuses_the_call(shop: Shop) -> None:
    shop.hook()
    with closing(Writer(shop.path, shop.sealer)) as writer:
        writer._connection.execute("UPDATE hook SET parties = 'masked'")
    shop.fail_open = True
    assert short(await shop.call()) == ("verification_failed", "hook")
    assert shop.reports[-1][0] == "hook.unreadable"


async def test_calls_of_a_business_user_with_a_hook_are_refused_where_hooks_are_not_configured(shop: Shop) -> None:
    shop.hook()
    async with shop.relay() as relay:
        relay.hooks._hooks = None
        assert short(await relay.call()) == ("verification_failed", "hook")


async def test_the_operator_s_hook_has_the_last_word(shop: Shop) -> None:
    other = Endpoint()
    with other.serving():
        shop.hook()
        shop.rules = shop.rules._replace(verify=True)
        shop.verify = HookEndpoint("", other.url, SECRET)
        shop.bind("shop", COURIER, "8613500000005", Z)
        shop.endpoint.answers[X] = {"allow": True, "target": COURIER}
        assert short(await shop.call()) == (COURIER, "hook")
        other.answers[X] = {"allow": True, "max_duration_s": 30}
        assert short(await shop.call()) == (COURIER, "verify")
        other.refused.add(X)
        del other.answers[X]
        assert short(await shop.call()) == ("verification_refused", "verify")
        assert [question["caller"] for question in other.asked] == [A] * 3


async def test_messages_are_decided_too(shop: Shop) -> None:
    shop.hook()
    assert short(await shop.call(kind="message")) == (B, "hook")
    assert short(await shop.call(STRANGER, kind="message")) == ("no_binding", "")
    assert [question["kind"] for question in shop.endpoint.asked] == ["message"]


# -- bind and connect

BIND: dict[str, Any] = {"allow": True, "target": COURIER, "bind": {"order_id": "o7", "expires_in": "2h"}}


async def test_an_unknown_caller_is_bound_and_connected(shop: Shop) -> None:
    shop.hook(parties="none")
    shop.endpoint.answers[X] = BIND | {"max_duration_s": 60, "ring_timeout_s": 10}
    answer = await shop.call(STRANGER)
    assert isinstance(answer, Route), shop.reports
    assert (answer.callee, answer.shown, answer.order_id, answer.business) == (COURIER, X, "o7", "shop")
    assert (answer.max_call_s, answer.ring_timeout_s, answer.decided_by) == (60.0, 10.0, "hook")
    assert shop.bindings()[-1] == (X, COURIER, STRANGER, "hook")
    audited = shop.rows("SELECT actor, action, business FROM audit ORDER BY seq DESC LIMIT 1")
    assert audited == [("hook", "binding.make", "shop")]
    # From now on it is a caller with a binding.
    shop.endpoint.answers[X] = {"allow": True}
    assert short(await shop.call(STRANGER)) == (COURIER, "hook")
    assert [question["known"] for question in shop.endpoint.asked] == [False, True]


async def test_few_unknown_callers_of_a_number_wait_at_once_so_that_guesses_count(shop: Shop) -> None:
    """Else a peer could try a hundred callers before the first is refused, and so find a bound one."""
    slow = Endpoint()
    with slow.serving():
        shop.hook(url=slow.url)
        slow.held.add(X)
        async with shop.relay() as relay:
            strangers = [f"861380000{n:04d}" for n in range(100, 100 + MOST_UNKNOWN + 1)]
            *waiting, last = [relay.dial(LookUp(7, X, each)) for each in strangers]
            assert short(await asyncio.wait_for(last, 20)) == ("no_binding", "")
            assert not any(each.done() for each in waiting)


async def test_the_number_of_a_pool_of_its_own_is_the_business_user_s_before_its_first_binding(shop: Shop) -> None:
    shop.hook()
    shop.endpoint.answers[Z] = BIND
    assert short(await shop.call(STRANGER, Z)) == ("no_binding", "")
    shop.run(lambda unit: make_pool(unit, new_pool("own", business="shop")))
    shop.run(lambda unit: move(unit, [Z], "own"))
    assert short(await shop.call(STRANGER, Z)) == (COURIER, "hook")


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ("bind", {"allow": True}),
        ("target", {"allow": True, "bind": {}}),
        ("target", BIND | {"target": STRANGER}),
        ("order_id", BIND | {"bind": {}}),
        ("expires_in", BIND | {"bind": {"order_id": "o", "expires_in": "soon"}}),
        ("show", BIND | {"show": Y}),
    ],
)
async def test_what_is_wrong_for_an_unknown_caller_refuses_it(shop: Shop, field: str, answer: dict[str, Any]) -> None:
    shop.hook()
    shop.endpoint.answers[X] = answer
    assert short(await shop.call(STRANGER)) == ("verification_failed", "hook")
    assert wrong_fields(shop) == [field]
    assert len(shop.bindings()) == 1


async def test_the_rules_of_bindings_decide_over_the_hook(shop: Shop) -> None:
    shop.hook()
    shop.endpoint.answers[X] = BIND
    shop.bind("shop", COURIER, "8613500000005", X)  # the courier is bound on this number already
    assert short(await shop.call(STRANGER)) == ("verification_failed", "hook")
    shop.endpoint.answers[X] = BIND | {"target": "8613200000008"}
    shop.bind_rules = shop.bind_rules._replace(filing="require")
    assert short(await shop.call(STRANGER)) == ("verification_failed", "hook")
    shop.bind_rules = shop.bind_rules._replace(filing="off", quotas=shop.bind_rules.quotas._replace(max_bindings=2))
    assert short(await shop.call(STRANGER)) == ("verification_failed", "hook")
    assert wrong_fields(shop) == ["a", "a", "business"]
    assert len(shop.bindings()) == 2


@pytest.mark.parametrize(
    ("target", "caller"),
    [("13802345678", STRANGER), ("85291234567", STRANGER), (COURIER, "13802345678"), (COURIER, "85291234567")],
)
async def test_foreign_parties_are_bound_as_they_are(shop: Shop, target: str, caller: str) -> None:
    """Without "+" +1 380 234 5678 reads like a mobile number of China, and +852 like no party."""
    parties = read_parties(NumbersTable(parties=("mobile", "foreign"), countries=("US", "HK")), [])
    shop.bind_rules = shop.bind_rules._replace(parties=parties)
    shop.rules = shop.rules._replace(parties=parties, international_allowed=True)
    shop.hook()
    shop.endpoint.answers[X] = BIND | {"target": f"+{target}"}
    assert short(await shop.call(caller)) == (target, "hook")
    assert shop.bindings()[-1] == (X, target, caller, "hook")


@pytest.mark.parametrize(("target", "caller"), [("13802345678", STRANGER), (COURIER, "13802345678")])
async def test_a_party_that_may_not_be_bound_any_more_refuses_the_call(shop: Shop, target: str, caller: str) -> None:
    """As after a reload while the hook was asked."""
    parties = read_parties(NumbersTable(parties=("mobile", "foreign"), countries=("US",)), [])
    shop.rules = shop.rules._replace(parties=parties, international_allowed=True)
    shop.hook()
    shop.endpoint.answers[X] = BIND | {"target": f"+{target}"}
    async with shop.relay() as relay:
        relay.hooks._bounds = relay.hooks._bounds._replace(parties=parties)
        assert short(await relay.call(caller)) == ("verification_failed", "hook")
    assert wrong_fields(shop) == ["a" if caller == STRANGER else "b"]
    assert len(shop.bindings()) == 1


async def test_the_hook_refuses_an_unknown_caller(shop: Shop) -> None:
    shop.hook()
    shop.endpoint.refused.add(X)
    try:
        answer = await shop.call(STRANGER)
    finally:
        shop.endpoint.refused.clear()
    assert isinstance(answer, Refusal)
    assert (answer.outcome, answer.business, answer.binding_id) == ("verification_refused", "shop", None)


async def test_a_hook_is_not_asked_about_unknown_callers_unless_it_wants_that(shop: Shop) -> None:
    shop.hook(unknown_callers=False)
    assert short(await shop.call(STRANGER)) == ("no_binding", "")
    shop.hook(unknown_callers=True)
    shop.run(lambda unit: set_state(unit, "shop", "suspend", "checked"))
    assert short(await shop.call(STRANGER)) == ("no_binding", "")
    assert shop.endpoint.asked == []


async def test_the_operator_s_hook_binds_an_unknown_caller_for_the_number_s_business_user(shop: Shop) -> None:
    """Unless the business user's own is asked. The bound call is not asked about twice."""
    shop.rules = shop.rules._replace(verify=True)
    shop.verify = HookEndpoint("", shop.endpoint.url, SECRET)
    shop.endpoint.answers[X] = BIND
    assert short(await shop.call(STRANGER)) == (COURIER, "verify")
    assert [(question["known"], question["business_id"]) for question in shop.endpoint.asked] == [(False, "shop")]
    assert shop.endpoint.asked[0]["caller"] == STRANGER
    assert shop.bindings()[-1] == (X, COURIER, STRANGER, "hook")
    assert short(await shop.call("8613100000009", Z)) == ("no_binding", "")


async def test_the_business_user_s_hook_is_asked_about_a_call_that_the_operator_s_has_bound(shop: Shop) -> None:
    other = Endpoint()
    with other.serving():
        shop.rules = shop.rules._replace(verify=True)
        shop.verify = HookEndpoint("", other.url, SECRET)
        shop.hook(unknown_callers=False)
        other.answers[X] = BIND
        shop.endpoint.answers[X] = {"allow": False}
        assert short(await shop.call(STRANGER)) == ("verification_refused", "hook")
        assert [question["known"] for question in shop.endpoint.asked] == [True]
        shop.endpoint.answers[X] = {"allow": True}
        other.answers[X] = BIND | {"target": "8613200000008"}
        assert short(await shop.call("8613100000009")) == ("8613200000008", "verify")
        assert len(other.asked) == 2


async def test_a_caller_that_has_hung_up_is_not_bound(shop: Shop) -> None:
    shop.hook()
    shop.endpoint.answers[X] = BIND
    asked = LookUp(7, X, STRANGER, call_id="c1")
    async with shop.relay() as relay:
        answer = relay.dial(asked)
        asked.given_up = True
        assert short(await asyncio.wait_for(answer, 20)) == ("verification_failed", "hook")
    assert len(shop.bindings()) == 1
    assert shop.reports[-1] == ("hook.not_bound", {"business": "shop", "reason": "the caller has hung up"})


async def test_a_binding_that_comes_too_late_is_not_made(shop: Shop) -> None:
    """Another writer holds the store for longer than the time limit."""
    shop.hook()
    shop.endpoint.answers[X] = BIND
    async with shop.relay() as relay:
        relay.hooks._hooks = HookLimits(0.5, False, True)
        with closing(Writer(shop.path, shop.sealer)) as writer:
            writer._connection.execute("BEGIN IMMEDIATE")
            assert short(await relay.call(STRANGER)) == ("verification_failed", "hook")
            writer._connection.execute("ROLLBACK")
    assert len(shop.bindings()) == 1


async def test_a_hook_that_is_too_slow_binds_nobody(shop: Shop) -> None:
    slow = Endpoint()
    with slow.serving():
        shop.hook(url=slow.url)
        slow.held.add(X)
        slow.answers[X] = BIND
        slow.secret = shop.endpoint.secret
        shop.timeout_s = QUICK_S
        assert short(await shop.call(STRANGER)) == ("verification_failed", "hook")
    assert len(shop.bindings()) == 1


async def test_calls_that_wait_for_a_hook_are_refused_on_close(shop: Shop) -> None:
    slow = Endpoint()
    with slow.serving():
        shop.hook(url=slow.url)
        slow.held.add(X)
        async with shop.relay() as relay:
            answers = [relay.dial(LookUp(7, X, A)), relay.dial(LookUp(8, X, STRANGER))]
            await asyncio.to_thread(slow.wait_until_asked, 2)
        assert [short(await answer)[0] for answer in answers] == ["verification_failed"] * 2
