"""Control-socket queries about calls, and their rate limit per business."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from relay.admin import HANG_UPS_PER_S, AdminHandlers
from relay.call.engine import Engine
from relay.errors import Refused
from relay.metrics import text
from relay.model.call import Refusal
from relay.model.settings import StreamLimits
from relay.net.driver import Driver
from relay.net.tokens import tokens
from relay.net.transports import Transports
from relay.policy.call_policy import CallPolicy
from relay.policy.evaluate import LookupResult
from relay.policy.rules import Rules
from relay.reports.explain import EXPLANATIONS_PER_S
from relay.store.journal.attempts import AttemptFile
from relay.store.sqlite.journal import sqlite_journal
from relay.store.sqlite.lookup import RouteReader
from tests.call.support import settings
from tests.net.support import Log
from tests.support.places import new_store
from tests.support.stored import A, X, live_record


@pytest.fixture
async def answers(tmp_path: Path) -> AdminHandlers:
    path = tmp_path / "relay.db"
    sealer = new_store(path, tmp_path / "relay.key")
    journal = sqlite_journal(path, sealer, lambda event, fields: None)
    engine = Engine(settings(), tokens().__next__, 0.0)
    transports = Transports(settings(), StreamLimits(), None)
    policy = CallPolicy(RouteReader(path, sealer, Rules(), lambda *_: None).fetch, Rules(), journal.queue.remember)
    log = Log()
    queue = journal.queue
    kept = AttemptFile(tmp_path / "relay.db.attempts", sealer, lambda event, fields: None)
    driver = Driver(*(engine, transports, policy.route, queue.append, queue.emit, kept, log.logger, log.ended))
    reader = RouteReader(path, sealer, Rules(), lambda *_: None)

    async def peek(number: str, caller: str, unix_s: float, _: Rules) -> tuple[LookupResult | Refusal, None]:
        return reader.fetch(number, caller, unix_s), None

    return AdminHandlers(engine, driver, dict, None, None, policy, peek)


def refused(answers: AdminHandlers, business: str | None) -> str:
    with pytest.raises(Refused) as error:
        answers.hang_up("no such call", business)
    return error.value.kind


async def test_hang_ups_are_rate_limited_per_business(answers: AdminHandlers) -> None:
    asked = [refused(answers, "greedy") for _ in range(HANG_UPS_PER_S + 1)]
    assert asked == ["not_found"] * HANG_UPS_PER_S + ["rate_limited"]
    assert refused(answers, "other") == refused(answers, None) == "not_found"


async def test_statistics_count_asyncio_tasks(answers: AdminHandlers) -> None:
    before = answers.statistics()["tasks"]
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
        assert answers.statistics()["tasks"] == before + 1


async def test_a_peer_without_a_target_has_a_gauge_too(answers: AdminHandlers) -> None:
    """As one whose name has no address: an alert needs a series."""
    assert answers.statistics()["target_up"]["carrier udp:192.0.2.22:5060"] == 1
    answers._engine.locate({"carrier": ()}, 0.0)
    up = answers.statistics()["target_up"]
    assert {target: value for target, value in up.items() if target.startswith("carrier")} == {"carrier ": 0}
    assert 'relay700_target_up{peer="carrier",target=""} 0.0' in text({"target_up": up}).decode()


async def test_an_unknown_call_is_not_found(answers: AdminHandlers) -> None:
    with pytest.raises(Refused) as error:
        answers.call("no such call")
    assert error.value.kind == "not_found"
    with pytest.raises(Refused) as error:
        answers.hang_up("no such call", dry_run=True)
    assert error.value.kind == "not_found"


class _Id(str):
    """A call id that counts its comparisons."""

    __slots__ = ()
    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        _Id.compared += 1
        return str.__eq__(self, other)


async def test_a_call_is_found_by_its_id_without_a_search_of_all(
    answers: AdminHandlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [live_record(_Id(f"c{number}"), received_at=number) for number in range(100)]
    monkeypatch.setattr(answers, "_engine", SimpleNamespace(live=lambda: records))
    assert answers.call("c42", "default")["received_at"] == 42
    assert answers.call("c42")["caller"] != answers.call("c42", reveal=True)["caller"] == A
    for call_id, business in (("c42", "other"), ("c100", None)):
        with pytest.raises(Refused) as error:
            answers.call(call_id, business)
        assert error.value.kind == "not_found"
    assert _Id.compared <= 10
    assert [call["received_at"] for call in answers.live(most=3)["calls"]] == [99, 98, 97]


async def test_an_explanation_is_of_the_running_relay_and_changes_no_count(answers: AdminHandlers) -> None:
    told = await answers.explain(X, A, "pbx")
    assert (told["outcome"], told["source"], told["peer"]) == ("number_unknown", "relay", "pbx")
    assert (await answers.explain("1", A))["outcome"] == "number_unknown"
    with pytest.raises(Refused) as error:
        await answers.explain(X, A, "nobody")
    assert error.value.kind == "not_found"
    assert "refused_too_often" in answers.statistics()


async def test_explanations_are_rate_limited_per_business(answers: AdminHandlers) -> None:
    for _ in range(EXPLANATIONS_PER_S):
        await answers.explain(X, A, business="greedy")
    with pytest.raises(Refused) as error:
        await answers.explain(X, A, business="greedy")
    assert error.value.kind == "rate_limited"
    assert (await answers.explain(X, A, business="other"))["targets"] == []
