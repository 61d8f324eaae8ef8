"""The probe's binding, its lines in the audit log, and what is reserved for it."""

from __future__ import annotations

from typing import Any

import pytest

from relay.errors import Refused
from relay.events.probe import ProbeTask, note, number_for
from relay.events.probe_call import Outcome, Result
from relay.events.webhooks import make as make_webhook
from relay.model.call import PROBE_BUSINESS
from relay.model.settings import ProbeSettings
from relay.service.bindings import end
from relay.service.businesses import apply, set_state
from relay.service.numbers import ensure_numbers
from relay.service.placement import BindRules
from relay.store.audit import AuditQuery, newest_entries
from relay.store.unit_of_work import Entry, UnitOfWork, operator_cli
from relay.store.writer import GroupWriter
from tests.events.conftest import NO_URL, Shop
from tests.support.written import bind, written

A, B, C = "8613800000071", "8613900000072", "8613900000073"
ENDS = ((("127.0.0.71", 5070)), ("127.0.0.72", 5070))
SETTINGS = ProbeSettings(300.0, ("127.0.0.10", 5060), frozenset(), A, (("carrier", B), ("other", C)), *ENDS)
LEAKED = ("the caller's name in Subject of INVITE, got by the callee",)
RULES = BindRules()


@pytest.fixture
def numbered(shop: Shop) -> Shop:
    shop.run(lambda unit: ensure_numbers(unit, ["70010000001"]))
    return shop


def number(shop: Shop, callee: str = B) -> str:
    return shop.run(lambda unit: number_for(unit, RULES, A, callee))


def entries(shop: Shop) -> list[Entry]:
    """The probe's lines, oldest first."""
    query = AuditQuery(business=PROBE_BUSINESS)
    found = shop.run(lambda unit: newest_entries(unit.connection, unit.sealer, query, None, 100))
    return [each.entry for each in reversed(found)]


def test_the_ends_are_bound_once_under_a_business_user_of_their_own(numbered: Shop) -> None:
    first = number(numbered)
    assert number(numbered) == first
    assert number(numbered, C) != first
    actions = ["business.apply", "business.approve", "binding.make", "binding.make"]
    assert [(each.action, each.actor) for each in entries(numbered)] == [(action, "relay") for action in actions]


def test_what_was_unbound_is_bound_again(numbered: Shop) -> None:
    number(numbered)
    (binding_id,) = numbered.rows("SELECT id FROM binding")[0]
    numbered.run(lambda unit: end(unit, binding_id, RULES))
    number(numbered)
    assert [action for action in (each.action for each in entries(numbered))].count("binding.make") == 2


def test_a_suspended_business_user_binds_nothing(numbered: Shop) -> None:
    number(numbered)
    numbered.run(lambda unit: set_state(unit, PROBE_BUSINESS, "suspend", "test"))
    with pytest.raises(Refused, match="must be approved"):
        number(numbered, C)


def test_nobody_else_makes_or_binds_for_the_reserved_business_user(numbered: Shop) -> None:
    """Caps and hours do not hold for its calls."""

    def as_operator(unit: UnitOfWork) -> UnitOfWork:
        return unit._replace(actor=operator_cli())

    with pytest.raises(Refused, match="reserved for the probe"):
        numbered.run(lambda unit: apply(as_operator(unit), {"name": "x"}, PROBE_BUSINESS))
    number(numbered)
    asked = written("AXB", "13800000001", "13900000002", business=PROBE_BUSINESS, order_id="o")
    with pytest.raises(Refused, match="reserved for the probe"):
        numbered.run(lambda unit: bind(as_operator(unit), asked, RULES))


def test_a_leak_is_in_the_audit_log_and_an_event(numbered: Shop) -> None:
    number(numbered)
    hook = numbered.run(lambda unit: make_webhook(unit, PROBE_BUSINESS, NO_URL))[0]
    numbered.run(
        lambda unit: note(unit, Result("carrier", "leak", "", LEAKED, ("the callee got INVITE, 900 bytes",), 700))
    )
    last = entries(numbered)[-1]
    assert (last.action, last.object_) == ("probe.leak", "carrier")
    assert last.details == {"messages": 1, "marks": 700, "leaks": list(LEAKED)}
    (event,) = numbered.waiting(hook)
    told = {"at": event.at_ms, "peer": "carrier", "leaks": list(LEAKED)}
    assert (event.kind, event.data) == ("probe.leak", told)


def test_a_failed_call_is_no_leak(numbered: Shop) -> None:
    number(numbered)
    hook = numbered.run(lambda unit: make_webhook(unit, PROBE_BUSINESS, NO_URL))[0]
    numbered.run(lambda unit: note(unit, Result("carrier", "failed", "the relay answered the caller 480")))
    last = entries(numbered)[-1]
    assert (last.action, last.reason) == ("probe.failed", "the relay answered the caller 480")
    assert numbered.waiting(hook) == []


async def serving(_: str) -> dict[str, Any]:
    return {"state": "serving"}


async def test_changes_and_leaks_are_noted_and_all_results_counted(numbered: Shop, writer: GroupWriter) -> None:
    number(numbered)
    before = len(entries(numbered))
    prober = ProbeTask(SETTINGS, RULES, writer, serving, numbered.log.logger)
    assert prober.statistics()["privacy_last_proven_seconds"] == {"carrier": 0, "other": 0}
    results: list[Outcome] = ["proven", "proven", "failed", "failed", "proven", "leak", "leak", "proven"]
    for outcome in results:
        await prober._finish(Result("carrier", outcome, leaks=LEAKED if outcome == "leak" else ()))
    noted = [each.action.removeprefix("probe.") for each in entries(numbered)[before:]]
    assert noted == ["proven", "failed", "proven", "leak", "leak", "proven"]
    assert numbered.log.events() == [f"probe.{outcome}" for outcome in noted]
    statistics = prober.statistics()
    assert statistics["probes"] == {
        **{"carrier proven": 4, "carrier leak": 2, "carrier failed": 2},
        **{"other proven": 0, "other leak": 0, "other failed": 0},
    }
    assert statistics["privacy_last_proven_seconds"]["carrier"] > 0


async def test_without_settings_nothing_is_counted(numbered: Shop, writer: GroupWriter) -> None:
    assert ProbeTask(None, RULES, writer, serving, numbered.log.logger).statistics() == {}
