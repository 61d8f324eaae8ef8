"""Rules of webhooks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.errors import Refused
from relay.events import webhooks as module
from relay.events.webhooks import (
    KINDS,
    MOST_TESTS,
    MOST_WEBHOOKS,
    call_data,
    change,
    get,
    make,
    remove,
    resend,
    write_events,
)
from relay.events.webhooks import test as send_test
from relay.privacy.records import FIELDS
from relay.store.unit_of_work import OPERATOR, RELAY, Actor, UnitOfWork
from relay.store.webhooks import OutboxEvent, Webhook, set_schedule
from relay.store.writer import Writer
from tests.events.conftest import NO_URL, Shop
from tests.support.papers import apply
from tests.support.stored import NOW_MS, A, B, X, ended_record, live_record

OTHER = Actor("key:2", "other", frozenset(["webhooks"]))
OWN = Actor("key:1", "shop", frozenset(["webhooks"]))
OWN_READER = Actor("key:3", "shop", frozenset(["webhooks", "parties:read"]))


def as_(shop: Shop, actor: Actor, do):  # type: ignore[no-untyped-def]
    writer = Writer(shop.path, shop.sealer)
    try:
        return writer.run(actor, do)
    finally:
        writer.close()


def refusal(shop: Shop, do, actor: Actor = OWN) -> tuple[str, str]:  # type: ignore[no-untyped-def]
    with pytest.raises(Refused) as refused:
        as_(shop, actor, do)
    return refused.value.kind, refused.value.field


def test_each_webhook_has_its_own_secret(shop: Shop) -> None:
    (one, secret), (other, other_secret) = (as_(shop, OWN, lambda unit: make(unit, "shop", NO_URL)) for _ in range(2))
    assert (one.url, one.kinds, one.parties, one.secret) == (NO_URL, KINDS, "masked", secret)
    assert secret != other_secret and len(secret) > 40 and one.id != other.id
    assert shop.hook_now(one) == one


@pytest.mark.parametrize(
    "url",
    [
        *("http://shop.example/", "ftp://shop.example/", "shop.example", "https://", "https:///x", "", "https://a b/"),
        *("https://user:pw@shop.example/", "https://shop.example/#x", "https://shop.example:99999/", "https://[::1/"),
        *("http://10.0.0.1/", "https://商店.example/", "https://shop.example/\n", "https://x.example/" + "y" * 2_000),
        *(f"https://{'a' * 64}.example/", "https://a..example/"),
    ],
)
def test_invalid_urls_are_refused(shop: Shop, url: str) -> None:
    assert refusal(shop, lambda unit: make(unit, "shop", url)) == ("invalid", "url")


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://10.0.0.1/", "https://[::1]/x", "https://intranet/"])
def test_a_business_user_may_not_name_an_internal_address(shop: Shop, url: str) -> None:
    assert refusal(shop, lambda unit: make(unit, "shop", url)) == ("invalid", "url")
    made = as_(shop, OWN, lambda unit: make(unit, "shop", NO_URL))[0]
    assert refusal(shop, lambda unit: change(unit, made.id, url=url)) == ("invalid", "url")
    assert shop.hook(url).url == url  # an operator may


@pytest.mark.parametrize(
    "url", ["https://shop.example:0/", "https://0.0.0.0/", "https://1.2.3/", "https://:pw@shop.example/"]
)
def test_impossible_hosts_are_refused_for_everyone(shop: Shop, url: str) -> None:
    assert refusal(shop, lambda unit: make(unit, "shop", url)) == ("invalid", "url")
    assert refusal(shop, lambda unit: make(unit, "shop", url), RELAY) == ("invalid", "url")


@pytest.mark.parametrize("url", ["http://127.0.0.1:99/x", "http://[::1]/", "http://localhost/"])
def test_only_an_operator_may_name_this_machine(shop: Shop, url: str) -> None:
    assert refusal(shop, lambda unit: make(unit, "shop", url)) == ("invalid", "url")
    made = shop.hook(url)
    assert (made.url, shop.hook_now(made).internal) == (url, True)


def test_the_actor_who_sets_the_url_decides_whether_it_may_be_internal(shop: Shop) -> None:
    url = "https://a.example/?b=c"
    made = as_(shop, OWN, lambda unit: make(unit, "shop", url))[0]
    assert (made.url, made.internal) == (url, False)
    assert shop.run(lambda unit: change(unit, made.id, url=url)).internal
    assert as_(shop, OWN, lambda unit: change(unit, made.id, kinds=["call.ended"])).internal
    assert not as_(shop, OWN, lambda unit: change(unit, made.id, url=url)).internal
    assert not shop.hook_now(made).internal


def test_without_the_scope_a_webhook_in_clear_cannot_be_redirected(shop: Shop) -> None:
    made = shop.hook(parties="clear")
    for do in (
        lambda unit: change(unit, made.id, url="https://evil.example/"),
        lambda unit: change(unit, made.id, url="https://evil.example/", disabled=True),
        lambda unit: change(unit, made.id, kinds=KINDS),
        lambda unit: change(unit, made.id, disabled=False),
    ):
        assert refusal(shop, do) == ("forbidden", "parties")
    assert as_(shop, OWN_READER, lambda unit: change(unit, made.id, url="https://b.example/")).parties == "clear"
    assert as_(shop, OWN, lambda unit: change(unit, made.id, disabled=True)).disabled_at is not None
    assert as_(shop, OWN, lambda unit: change(unit, made.id, url=NO_URL, parties="masked")).url == NO_URL


@pytest.mark.parametrize("kinds", [(), ("call.ended", "nonsense"), ("webhook.test",)])
def test_unknown_kinds_are_refused(shop: Shop, kinds: tuple[str, ...]) -> None:
    assert refusal(shop, lambda unit: make(unit, "shop", NO_URL, kinds)) == ("invalid", "kinds")


def test_parties_in_clear_need_a_scope(shop: Shop) -> None:
    def clear(unit: UnitOfWork) -> object:
        return make(unit, "shop", NO_URL, KINDS, "clear")

    assert refusal(shop, clear) == ("forbidden", "parties")
    assert refusal(shop, lambda unit: make(unit, "shop", NO_URL, KINDS, "naked")) == ("invalid", "parties")
    made, _ = as_(shop, OWN_READER, clear)
    assert made.parties == "clear"
    masked = shop.hook()
    assert refusal(shop, lambda unit: change(unit, masked.id, parties="clear")) == ("forbidden", "parties")
    blind = Actor("key:0123456789ab", None, OPERATOR - {"parties:read"})
    for do in (clear, lambda unit: change(unit, masked.id, parties="clear")):
        with pytest.raises(Refused, match="parties:read"):
            as_(shop, blind, do)


def test_the_number_of_webhooks_is_limited(shop: Shop) -> None:
    for _ in range(MOST_WEBHOOKS):
        shop.hook()
    assert refusal(shop, lambda unit: make(unit, "shop", NO_URL)) == ("quota", "")


def test_another_business_does_not_see_the_webhook(shop: Shop) -> None:
    shop.run(lambda unit: apply(unit, "Other", "other"))
    made = shop.hook()
    for do in (
        lambda unit: get(unit, made.id),
        lambda unit: change(unit, made.id, disabled=True),
        lambda unit: remove(unit, made.id),
        lambda unit: resend(unit, made.id),
        lambda unit: send_test(unit, made.id),
        lambda unit: make(unit, "shop", NO_URL),
    ):
        assert refusal(shop, do, OTHER)[0] == "not_found"
    assert shop.hook_now(made) == made


def test_a_changed_webhook_is_retried_at_once(shop: Shop) -> None:
    made = shop.hook()
    shop.run(lambda unit: unit.connection.execute("UPDATE webhook SET failures = 9, next_at = 9999999999999"))
    changed = as_(shop, OWN, lambda unit: change(unit, made.id, url="https://b.example/", kinds=["call.ended"]))
    assert changed == shop.hook_now(made)
    expected = ("https://b.example/", ("call.ended",), 0, 0)
    assert (changed.url, changed.kinds, changed.failures, changed.next_at) == expected


def test_a_disabled_webhook_gets_nothing_until_it_is_enabled(shop: Shop) -> None:
    made = shop.hook()
    as_(shop, OWN, lambda unit: change(unit, made.id, disabled=True))
    shop.tell("e1")
    assert refusal(shop, lambda unit: send_test(unit, made.id)) == ("state_conflict", "webhook")
    assert refusal(shop, lambda unit: resend(unit, made.id)) == ("state_conflict", "webhook")
    as_(shop, OWN, lambda unit: change(unit, made.id, disabled=False))
    shop.tell("e2")
    assert [event.event_id for event in shop.waiting(made)] == ["e2"]


def test_a_webhook_gets_its_kinds_of_events_alone(shop: Shop) -> None:
    made = shop.hook(kinds=("binding.expired",))
    shop.tell("e1", kind="number.cooling")
    shop.tell("e2", "e2", kind="binding.expired")
    assert [event.event_id for event in shop.waiting(made)] == ["e2"]


def test_dead_letters_are_resent_in_their_old_order(shop: Shop) -> None:
    made = shop.hook()
    shop.tell("e1", "e2", "e3", "e4")
    shop.run(lambda unit: unit.connection.execute("UPDATE outbox SET dead_at = 1, tries = 3, at = 5 WHERE seq < 4"))
    assert [event.event_id for event in shop.dead(made)] == ["e1", "e2", "e3"]
    assert as_(shop, OWN, lambda unit: resend(unit, made.id, ["e2", "e4", "no such"])) == (1, None)
    assert [event.event_id for event in shop.waiting(made)] == ["e2", "e4"]
    assert as_(shop, OWN, lambda unit: resend(unit, made.id)) == (2, None)
    events = shop.waiting(made)
    assert [(event.event_id, event.tries, event.at_ms > 5) for event in events[:3]] == [
        ("e1", 0, True), ("e2", 0, True), ("e3", 0, True),
    ]  # fmt: skip
    assert shop.dead(made) == []


def test_many_dead_letters_are_resent_in_several_units_of_work(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    made = shop.hook()
    shop.tell("e1", "e2", "e3", "e4")
    shop.run(lambda unit: unit.connection.execute("UPDATE outbox SET dead_at = 1"))
    places = [event.seq for event in shop.dead(made)]
    assert as_(shop, OWN, lambda unit: resend(unit, made.id)) == (2, places[1])
    shop.run(lambda unit: unit.connection.execute("UPDATE outbox SET dead_at = 1"))
    shop.run(lambda unit: set_schedule(unit, made.id, 1, 9_999))
    assert as_(shop, OWN, lambda unit: resend(unit, made.id, after=places[1])) == (2, places[3])
    assert shop.hook_now(made).next_at == 9_999
    assert as_(shop, OWN, lambda unit: resend(unit, made.id, after=places[3])) == (0, None)
    assert [event.event_id for event in shop.waiting(made)] == ["e3", "e4"]


def test_a_test_event_goes_to_its_webhook_alone_whatever_its_kinds(shop: Shop) -> None:
    made, other = shop.hook(kinds=("call.ended",)), shop.hook()
    event_id = as_(shop, OWN, lambda unit: send_test(unit, made.id))
    assert [(event.event_id, event.kind) for event in shop.waiting(made)] == [(event_id, "webhook.test")]
    assert shop.waiting(other) == []


def test_the_number_of_queued_test_events_is_limited(shop: Shop) -> None:
    made = shop.hook()
    for _ in range(MOST_TESTS):
        as_(shop, OWN, lambda unit: send_test(unit, made.id))
    assert refusal(shop, lambda unit: send_test(unit, made.id)) == ("quota", "webhook")
    shop.run(lambda unit: unit.connection.execute("UPDATE outbox SET dead_at = 1 WHERE seq = 1"))
    as_(shop, OWN, lambda unit: send_test(unit, made.id))


def test_a_removed_webhook_gets_nothing_more(shop: Shop) -> None:
    made, other = shop.hook(), shop.hook()
    shop.tell("e1", "e2")
    as_(shop, OWN, lambda unit: remove(unit, made.id))
    shop.tell("e3")
    assert len(shop.waiting(made)) == 2, "many are deleted later, some at a time"
    assert len(shop.waiting(other)) == 3
    assert [hook.id for hook in shop.hooks()] == [other.id]
    assert refusal(shop, lambda unit: get(unit, made.id))[0] == "not_found"


def test_each_change_is_in_the_audit_log(shop: Shop) -> None:
    made = shop.hook()
    for do in (
        lambda unit: change(unit, made.id, parties="none"),
        lambda unit: resend(unit, made.id),
        lambda unit: remove(unit, made.id),
    ):
        as_(shop, OWN, do)
    actions = shop.rows("SELECT action FROM audit WHERE object LIKE 'w%' ORDER BY seq")
    assert [action for (action,) in actions] == [
        "webhook.make", "webhook.change", "webhook.resend", "webhook.remove",
    ]  # fmt: skip


# -- Payload of events, and parties in it as each webhook may see them

TIMES = ("received_at", "ringing_at", "answered_at")
HOOK = Webhook("w1", "shop", "https://shop.example", "secret", ("call.ended",), "masked", None, 0, 0, NOW_MS)


def shown(data: dict[str, Any] | None, parties: str = "masked", kind: str = "call.ended") -> dict[str, Any]:
    event = OutboxEvent(1, "c1.ended", kind, NOW_MS, 0, None, None, data)
    [written] = json.loads(write_events(HOOK._replace(parties=parties), [event]))["events"]
    assert isinstance(written, dict)
    return written


def test_a_record_is_written_with_its_times_in_utc() -> None:
    event = shown(call_data("ended", ended_record()))
    assert event == {
        "id": "c1.ended", "kind": "call.ended", "at": "2026-01-01T00:00:13.000Z", "business_id": "shop",
        "call_id": "c1", "binding_id": "b1", "mode": "AXB", "direction": None, "legacy": False, "order_id": "order-1",
        "number_dialled": X, "number_shown": X, "caller": "138****0001", "callee": "139****0002",
        "received_at": "2026-01-01T00:00:00.000Z", "routed_at": "2026-01-01T00:00:00.001Z",
        "ringing_at": "2026-01-01T00:00:00.200Z", "answered_at": "2026-01-01T00:00:03.000Z",
        "ended_at": "2026-01-01T00:00:13.000Z", "duration_ms": 10_000, "sip_status": 200, "q850_cause": 16,
        "outcome": "answered", "ended_by": "caller", "end_reason": "bye",
        "caller_packets": None, "caller_lost": None, "caller_jitter_ms": None,
        "callee_packets": None, "callee_lost": None, "callee_jitter_ms": None,
        "text_bytes": None, "recording": None, "qualification": None, "industrial_id": None,
            "decided_by": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        ("received", "2026-01-01T00:00:00.000Z"),
        ("ringing", "2026-01-01T00:00:00.200Z"),
        ("answered", "2026-01-01T00:00:03.000Z"),
    ],
)
def test_an_event_during_a_call_has_parties_and_time(kind: str, at: str) -> None:
    event = shown(call_data(kind, live_record()), kind=f"call.{kind}")
    fields = ["call_id", "binding_id", "mode", "direction", "order_id", "industrial_id", "number_dialled"]
    assert list(event) == ["id", "kind", "at", "business_id", *fields, "number_shown", "caller", "callee", *TIMES]
    assert event["at"] == at


def test_an_event_without_data_is_not_altered() -> None:
    assert "altered" not in shown({}, kind="webhook.test")
    assert shown(None)["altered"] is True


@pytest.mark.parametrize(("parties", "caller"), [("none", None), ("masked", "138****0001"), ("clear", "8613800000001")])
def test_parties_are_shown_as_the_webhook_says(parties: str, caller: str | None) -> None:
    event = shown(call_data("ended", ended_record()), parties)
    assert event.get("caller") == caller
    assert ("caller" in event) is (caller is not None)
    assert event["number_dialled"] == X
    if parties != "clear":
        assert A[2:] not in json.dumps(event) and B[2:] not in json.dumps(event)


@pytest.mark.parametrize("parties", ["none", "masked"])
def test_a_dialled_real_number_is_masked(parties: str) -> None:
    assert shown(call_data("ended", ended_record(number_dialled=B)), parties)["number_dialled"] == "139****0002"


def test_an_unknown_party_stays_null() -> None:
    assert shown(call_data("refused", ended_record(callee=None)))["callee"] is None


def test_data_of_other_events_is_unchanged() -> None:
    event = shown({"number": X, "cools_until": "2026-01-02T00:00:00.000Z"}, kind="number.cooling")
    assert event == {
        "id": "c1.ended", "kind": "number.cooling", "at": "2026-01-01T00:00:00.000Z", "business_id": "shop",
        "number": X, "cools_until": "2026-01-02T00:00:00.000Z",
    }  # fmt: skip


def test_an_altered_event_has_altered_as_its_only_data() -> None:
    assert shown(None) == {
        "id": "c1.ended", "kind": "call.ended", "at": "2026-01-01T00:00:00.000Z", "business_id": "shop",
        "altered": True,
    }  # fmt: skip


def test_a_field_that_nothing_allows_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "device" not in shown({"device": A}, "clear")
    data = call_data("ended", ended_record())
    monkeypatch.delitem(FIELDS, "end_reason")
    assert "end_reason" in data and "end_reason" not in shown(data, "clear")
    assert "end_reason" not in call_data("ended", ended_record())
