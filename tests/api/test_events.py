"""Events as they are sent, against their schemas in the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from relay.api.app import openapi_document
from relay.api.events import EVENTS
from relay.call_hooks import tell_made
from relay.events.follower import Follower
from relay.events.probe import note
from relay.events.probe_call import Result
from relay.events.recordings import enter_recording
from relay.events.webhooks import KINDS, TEST, make, write_events
from relay.events.webhooks import test as queue_test
from relay.model.actions import CallEvent
from relay.model.call import PROBE_BUSINESS
from relay.policy.fraud import Signal, Signals, Watch
from relay.policy.rules import DEFAULT_BUSINESS
from relay.service.complaints import set_complaints
from relay.service.fields import CHINA, format_moment
from relay.service.filings import AnswerWords, FilingWords, add_filing, answer_filing, tell_expiring
from relay.service.hooks import PARTIES
from relay.service.papers import answer_paper, submit_paper, tell_ending
from relay.service.placement import BindRules, release_due
from relay.store.recordings import Recording
from relay.store.writer import GroupWriter, now_ms
from tests.events.conftest import NO_URL, Log, Shop
from tests.support.documented import fault_of
from tests.support.papers import apply, permit
from tests.support.places import new_store
from tests.support.stored import NOW_MS, PREFIX, A, binding, ended_record, live_record, put

REFUSED = {"routed_at": None, "ended_by": "relay"}
RECORDS = [
    ended_record("c1", business="shop"),
    ended_record("c2", business="shop", outcome="no_binding", callee=None, **REFUSED),
    ended_record("c3", business="shop", kind="message", outcome="delivered", text_bytes=4),
    ended_record("c4", business="shop", kind="message", outcome="number_in_text", **REFUSED),
    ended_record("c5", business="shop", kind="message", outcome="rejected", end_reason="sip_488"),
]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """With the events of each kind waiting, made by the code that makes them; and one that was altered."""
    path = tmp_path / "relay.db"
    made = Shop(path, new_store(path, tmp_path / "relay.key"), Log())
    made.run(lambda unit: apply(unit, "Shop", "shop"))
    made.run(lambda unit: apply(unit, "Probe", PROBE_BUSINESS))
    hook = made.hook()
    made.run(lambda unit: make(unit, PROBE_BUSINESS, NO_URL))
    made.run(lambda unit: make(unit, DEFAULT_BUSINESS, NO_URL))
    put(made.path, made.sealer, binding(business="shop", user_data="cart 9", expires_at=NOW_MS + 60_000))
    async with made.journal() as journal:
        for kind in ("received", "ringing", "answered"):
            journal.queue.emit(CallEvent(kind, live_record(business="shop")))
    await made.record(*RECORDS)
    writer = GroupWriter(made.path, made.sealer)
    follower = Follower(made.path, made.sealer, writer, made.log.logger, Watch(Signals(*[Signal(0, 0)] * 3)))
    while await follower.step():
        pass
    await writer.close()
    made.run(lambda unit: release_due(unit, BindRules()))
    made.run(lambda unit: tell_made(unit, binding(business="shop")))
    made.run(lambda unit: note(unit, Result("carrier", "leak", "", ("the caller's name",))))
    soon = format_moment(now_ms() + 86_400_000)
    made.run(lambda unit: add_filing(unit, "shop", FilingWords(A, "CT-1", expires_at=soon)))
    made.run(lambda unit: answer_filing(unit, "shop", AnswerWords(A, state="approved", code="0", expires_at=soon)))
    today = datetime.now(CHINA).date()
    paper = made.run(lambda unit: submit_paper(unit, "business shop", permit(valid_until=today)))
    made.run(lambda unit: answer_paper(unit, paper.id, "accept"))
    made.run(tell_ending)
    made.run(tell_expiring)
    made.run(lambda unit: set_complaints(unit, datetime.now(CHINA).date(), "shop", PREFIX, 3))
    recording = Recording("c1", "shop", 0, 1_500, 5, "ab" * 32)
    made.run(lambda unit: enter_recording(unit, recording, RECORDS[0]))
    made.run(lambda unit: queue_test(unit, hook.id))
    yield made


def sent(shop: Shop, parties: str) -> list[dict[str, Any]]:
    """All waiting events, as webhooks with these `parties` get them."""
    hooks = [hook._replace(parties=parties) for hook in shop.hooks()]
    return [event for hook in hooks for event in json.loads(write_events(hook, shop.waiting(hook)))["events"]]


@pytest.mark.parametrize("parties", PARTIES)
async def test_each_event_is_as_documented(shop: Shop, parties: str) -> None:
    events = sent(shop, parties)
    assert {event["kind"] for event in events} == {*KINDS, TEST} == EVENTS.keys()
    assert [fault for fault in map(fault_of, events) if fault] == []


async def test_an_altered_event_is_as_documented(shop: Shop) -> None:
    hook = shop.hooks()[0]
    events = [event._replace(data=None) for event in shop.waiting(hook)]
    for event in json.loads(write_events(hook, events))["events"]:
        assert event["altered"] is True and fault_of(event) == ""


async def test_a_leak_of_the_probe_says_what_leaked(shop: Shop) -> None:
    (event,) = [event for event in sent(shop, "masked") if event["kind"] == "probe.leak"]
    assert (event["peer"], event["leaks"]) == ("carrier", ["the caller's name"])


def test_the_document_has_a_webhook_for_each_kind() -> None:
    document = json.loads(openapi_document())
    for kind, model in EVENTS.items():
        body = document["webhooks"][kind]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert {"$ref": f"#/components/schemas/{model.__name__}"} in body["properties"]["events"]["items"]["anyOf"]
        assert document["components"]["schemas"][model.__name__]["properties"]["kind"]["const"] == kind
    assert document["webhooks"].keys() == EVENTS.keys()
