"""Delivery over real HTTP: order, retries, refusals and dead letters."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from relay.events import delivery as module
from relay.events.delivery import FAULT, REFUSALS, DeliveryTask
from relay.events.webhooks import MOST_WEBHOOKS, DeliveryRules, make
from relay.net.bell import Bell
from relay.service.fields import format_moment
from relay.store.webhooks import (
    AT_ONCE,
    dead_letter,
    find_webhook,
    put_webhook,
    queue_event,
    remove_webhook,
    requeue,
)
from relay.store.writer import GroupWriter, now_ms
from tests.events.conftest import NO_URL, Inbox, Shop, delivering
from tests.support.papers import apply

IDS = [f"e{n}" for n in range(7)]
YEAR_MS = 365 * 86_400_000


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(module, "LOOK_S", 0.01)


async def failed(deliverer: DeliveryTask, times: int) -> None:
    """Wait until that many requests have failed."""
    async with asyncio.timeout(20):
        while deliverer.statistics()["deliveries_failed"] < times:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_events_arrive_in_order_and_leave_the_outbox(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    hook = shop.hook(inbox.url)
    shop.tell(*IDS, number="x")
    async with delivering(shop, writer, batch=3) as deliverer:
        await inbox.until(lambda: len(inbox.taken) == 7)
    assert inbox.batches == [IDS[:3], IDS[3:6], IDS[6:]]
    assert shop.waiting(hook) == []
    assert deliverer.statistics() == {
        "events_delivered": 7, "events_given_up": 0, "deliveries": 3, "deliveries_failed": 0, "webhooks_under_way": 0,
    }  # fmt: skip


async def test_a_delivery_has_at_most_fifty_events(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    shop.hook(inbox.url)
    ids = [f"e{n}" for n in range(120)]
    shop.run(lambda unit: [queue_event(unit, "shop", "number.cooling", event_id, {}) for event_id in ids])
    async with delivering(shop, writer):
        await inbox.until(lambda: len(inbox.taken) == 120)
    assert inbox.batches == [ids[:50], ids[50:100], ids[100:]]


async def test_a_request_is_signed_and_has_a_delivery_id(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    hook = shop.hook(inbox.url)
    shop.tell("e1")
    async with delivering(shop, writer):
        await inbox.until(lambda: inbox.taken == ["e1"])
    [(headers, body, _)] = inbox.requests
    time_part, _, signature = headers["Relay700-Signature"].partition(",v1=")
    signed_at = time_part.removeprefix("t=")
    expected = hmac.new(hook.secret.encode(), signed_at.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert signature == expected
    assert abs(int(signed_at) - time.time()) < 60
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"] == "relay700"
    assert len(headers["relay700-delivery"]) == 32


@pytest.mark.parametrize("status", [302, 307, 500, 503, 408, 425, 429])
async def test_a_temporary_failure_is_retried_in_order(
    shop: Shop, writer: GroupWriter, inbox: Inbox, status: int
) -> None:
    hook = shop.hook(inbox.url)
    shop.tell(*IDS)
    inbox.answer = lambda ids: status if len(inbox.requests) < 3 else 200
    async with delivering(shop, writer, batch=5) as deliverer:
        await inbox.until(lambda: len(inbox.taken) == 7)
    assert inbox.batches == [IDS[:5]] * 4 + [IDS[5:]]
    assert deliverer.statistics()["deliveries_failed"] == 3
    assert (shop.hook_now(hook).failures, shop.waiting(hook)) == (0, [])
    assert shop.log.events() == ["webhook.failing"]


async def test_the_wait_doubles_while_a_webhook_is_unreachable(shop: Shop, writer: GroupWriter) -> None:
    hook = shop.hook("http://127.0.0.1:1/events")
    shop.tell("e1")
    async with delivering(shop, writer) as deliverer:
        await failed(deliverer, 5)
    left = shop.hook_now(hook)
    assert left.failures >= 4
    assert [event.event_id for event in shop.waiting(hook)] == ["e1"]
    assert [fields["reason"] for _, fields in shop.log.said] == ["connection refused or unreachable"]


async def test_the_wait_survives_a_restart(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    hook = shop.hook(inbox.url)
    shop.tell("e1")
    inbox.answer = lambda ids: 503
    inbox.headers = {"retry-after": "100"}
    async with delivering(shop, writer):
        await inbox.until(lambda: len(inbox.requests) == 1)
    next_at = shop.hook_now(hook).next_at / 1000
    assert 60 < next_at - time.time() <= 100
    left = shop.hook_now(hook)
    assert left.last_error == "status 503" and left.last_error_at is not None
    async with delivering(shop, writer) as deliverer:
        assert deliverer.statistics()["webhooks_under_way"] == 0
    assert len(inbox.requests) == 1


async def test_a_webhook_goes_on_once_the_clock_is_set_back(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    hook = shop.hook(inbox.url)
    shop.tell("e1")
    inbox.answer = lambda ids: 503
    async with delivering(shop, writer, lambda: now_ms() + YEAR_MS, give_up_ms=2 * YEAR_MS) as deliverer:
        await failed(deliverer, 1)
    assert shop.hook_now(hook).next_at > now_ms() + YEAR_MS // 2
    inbox.answer = lambda ids: 200
    async with delivering(shop, writer):
        await inbox.until(lambda: inbox.taken == ["e1"])


async def test_a_retry_after_that_no_clock_has_is_none(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    hook = shop.hook(inbox.url)
    shop.tell("e1")
    inbox.answer = lambda ids: 503
    inbox.headers = {"retry-after": "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"}
    async with delivering(shop, writer) as deliverer:
        await failed(deliverer, 1)
    assert shop.hook_now(hook).last_error == "status 503"


async def test_a_timeout_is_retried(shop: Shop, writer: GroupWriter) -> None:
    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hold the connection without an answer: an unreferenced writer would be closed."""
        await asyncio.sleep(60)
        writer.close()

    slow = await asyncio.start_server(keep, "127.0.0.1", 0)
    hook = shop.hook(f"http://127.0.0.1:{slow.sockets[0].getsockname()[1]}/")
    shop.tell("e1")
    async with delivering(shop, writer, timeout_s=0.05) as deliverer:
        await failed(deliverer, 3)
    slow.close()
    assert [event.event_id for event in shop.waiting(hook)] == ["e1"]
    assert [fields["reason"] for _, fields in shop.log.said] == ["no answer within 0.05 s"]


async def test_a_flood_of_interim_answers_is_retried_later(shop: Shop, writer: GroupWriter) -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionError):
            writer.write(b"HTTP/1.1 100 \r\n\r\n" * 200_000 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(flood, "127.0.0.1", 0) as server:
        hook = shop.hook(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        shop.tell("e1")
        async with delivering(shop, writer) as deliverer:
            await failed(deliverer, 2)
    left = shop.hook_now(hook)
    assert left.failures and left.last_error == "the answer is too long"
    assert [event.event_id for event in shop.waiting(hook)] == ["e1"]


async def test_a_long_body_that_is_not_read_does_not_matter(shop: Shop, writer: GroupWriter) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000))
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        hook = shop.hook(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        shop.tell("e1")
        async with delivering(shop, writer), asyncio.timeout(20):
            while shop.waiting(hook):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert shop.hook_now(hook).last_error is None


async def test_changed_rules_hold_from_the_next_delivery_on(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    shop.hook(inbox.url)
    async with delivering(shop, writer, batch=50) as deliverer:
        deliverer.apply_config(DeliveryRules(batch=2))
        shop.tell(*IDS[:3])
        await inbox.until(lambda: len(inbox.taken) == 3)
    assert inbox.batches == [IDS[:2], IDS[2:3]]


async def test_a_refused_event_is_given_up_and_the_others_go_on(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    hook = shop.hook(inbox.url)
    shop.tell(*IDS)
    inbox.answer = lambda ids: 422 if "e3" in ids else 200
    async with delivering(shop, writer):
        await inbox.until(lambda: len(inbox.taken) == 6)
    assert inbox.taken == [*IDS[:3], *IDS[4:]]
    assert inbox.batches.count(["e3"]) == 3
    [event] = shop.dead(hook)
    assert (event.event_id, event.tries, event.last_error) == ("e3", 3, "status 422")
    assert shop.waiting(hook) == []
    assert shop.log.events()[-1] == "webhook.gave_up"


async def test_after_refusals_batches_grow_again(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    shop.hook(inbox.url)
    shop.tell(*(f"e{n}" for n in range(30)))
    inbox.answer = lambda ids: 400 if len(ids) > 2 and len(inbox.requests) < 4 else 200
    async with delivering(shop, writer, batch=16):
        await inbox.until(lambda: len(inbox.taken) == 30)
    assert [len(batch) for batch in inbox.batches] == [16, 8, 4, 2, 4, 8, 16]


async def test_an_event_that_cannot_be_written_is_tried_again_after_a_wait(shop: Shop, writer: GroupWriter) -> None:
    hook = shop.run(lambda unit: make(unit, "shop", NO_URL, ("call.ended",), "masked", form="alibaba"))[0]
    shop.tell("e1", kind="call.ended", caller="x")  # without the call that this form needs
    async with delivering(shop, writer) as deliverer:
        await failed(deliverer, 2)
    left = shop.hook_now(hook)
    assert left.failures >= 2 and left.last_error == FAULT
    assert "webhook.fault" in shop.log.events()
    assert [event.event_id for event in shop.waiting(hook)] == ["e1"]


async def test_a_redirect_is_not_followed(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    hook = shop.hook(inbox.url)
    shop.tell("e1")
    inbox.headers = {"location": f"{inbox.url}/elsewhere"}
    inbox.answer = lambda ids: 307
    async with delivering(shop, writer) as deliverer:
        await failed(deliverer, 1)
    assert len(inbox.requests) == 1
    assert [event.event_id for event in shop.waiting(hook)] == ["e1"]


async def test_410_disables_the_webhook(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    hook = shop.hook(inbox.url)
    shop.tell(*IDS)
    inbox.answer = lambda ids: 410
    async with delivering(shop, writer):
        await inbox.until(lambda: len(inbox.requests) == 1)
    assert shop.hook_now(hook).disabled_at is not None
    assert [event.event_id for event in shop.dead(hook)] == IDS
    shop.tell("e8")
    assert (shop.waiting(hook), len(inbox.requests)) == ([], 1)


async def test_410_leaves_no_event_waiting(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    hook = shop.hook(inbox.url)
    ids = [f"e{number}" for number in range(AT_ONCE + 10)]
    shop.run(lambda unit: [queue_event(unit, "shop", "number.cooling", event_id, {}) for event_id in ids])
    inbox.answer = lambda ids: 410
    async with delivering(shop, writer) as deliverer, asyncio.timeout(20):
        while not deliverer.statistics()["events_given_up"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (shop.waiting(hook), len(shop.dead(hook))) == ([], len(ids))
    assert shop.log.said[-1][1]["events"] == len(ids)


async def test_a_resent_event_has_the_time_at_which_it_happened(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    hook = shop.hook(inbox.url)
    shop.tell("e1", kind="binding.made")
    [event] = shop.waiting(hook)
    shop.run(lambda unit: dead_letter(unit, [event.seq], "late"))
    shop.run(lambda unit: unit.connection.execute("UPDATE outbox SET at = at - 86400000"))
    shop.run(lambda unit: requeue(unit, hook.id, ["e1"]))
    async with delivering(shop, writer):
        await inbox.until(lambda: inbox.taken == ["e1"])
    [sent] = json.loads(inbox.requests[0][1])["events"]
    assert sent["at"] == format_moment(event.at_ms)


async def test_an_old_event_is_given_up(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    hook = shop.hook(inbox.url)
    shop.tell(*IDS)
    shop.run(lambda unit: unit.connection.execute("UPDATE outbox SET at = at - 86400001 WHERE seq <= 5"))
    async with delivering(shop, writer):
        await inbox.until(lambda: len(inbox.taken) == 2)
    assert inbox.taken == IDS[5:]
    assert [event.event_id for event in shop.dead(hook)] == IDS[:5]
    assert shop.log.said[-1][1]["events"] == 5


async def test_webhooks_do_not_wait_for_each_other(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    away, there = shop.hook("http://127.0.0.1:1/events"), shop.hook(inbox.url)
    shop.tell(*IDS)
    async with delivering(shop, writer):
        await inbox.until(lambda: len(inbox.taken) == 7)
    assert shop.waiting(there) == []
    assert [event.event_id for event in shop.waiting(away)] == IDS


# -- the share of one business user


@asynccontextmanager
async def silent() -> AsyncIterator[tuple[str, set[asyncio.StreamWriter]]]:
    """The URL of a server that never answers, and its open connections."""
    held: set[asyncio.StreamWriter] = set()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.add(writer)
        with suppress(ConnectionError):
            await reader.read()
        held.remove(writer)
        writer.close()

    async with await asyncio.start_server(keep, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", held
        for writer in held:
            writer.transport.abort()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_delivery_of_a_removed_webhook_is_ended(shop: Shop, writer: GroupWriter) -> None:
    async with silent() as (url, held), delivering(shop, writer, timeout_s=60) as deliverer:
        kept, removed = shop.hook(url), shop.hook(url)
        shop.tell("e1")
        await until(lambda: len(held) == 2)
        shop.run(lambda unit: remove_webhook(unit, removed.id))
        await until(lambda: len(held) == 1)
        assert deliverer.statistics()["webhooks_under_way"] == 1
        assert (shop.hook_now(kept).failures, shop.waiting(kept)[0].event_id) == (0, "e1")


async def test_a_business_has_at_most_its_share_of_the_requests(
    shop: Shop, writer: GroupWriter, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others begin as soon as there is room."""
    monkeypatch.setattr(module, "MOST_WEBHOOKS", 2)
    monkeypatch.setattr(module, "MOST_TO_ONE_HOST", 0)
    inbox.released.clear()
    hooks = [shop.hook(inbox.url) for _ in range(5)]
    shop.tell(*IDS[:2])
    async with delivering(shop, writer, batch=1):
        await inbox.until(lambda: len(inbox.requests) == 2)
        await asyncio.sleep(0.1)
        assert len(inbox.requests) == 2
        inbox.released.set()
        await inbox.until(lambda: len(inbox.taken) == 10)
    assert [shop.waiting(hook) for hook in hooks] == [[]] * 5


async def test_a_busy_webhook_leaves_its_place_to_one_that_waits(
    shop: Shop, writer: GroupWriter, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WEBHOOKS", 1)
    monkeypatch.setattr(module, "LOOK_S", 0.1)
    inbox.delay_s = 0.1
    busy, other = shop.hook(inbox.url, kinds=("number.cooling",)), shop.hook(inbox.url, kinds=("binding.expired",))
    shop.tell(*(f"e{n}" for n in range(20)))
    async with delivering(shop, writer, batch=1):
        await inbox.until(lambda: bool(inbox.requests))
        shop.tell("other", kind="binding.expired")
        await inbox.until(lambda: "other" in inbox.taken)
        assert inbox.taken.index("other") <= 3
        assert shop.waiting(busy)
    assert shop.waiting(other) == []


async def test_a_webhook_without_room_is_not_read_at_each_poll(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 10)
    monkeypatch.setattr(module, "MOST_TO_ONE_HOST", 0)
    reads: Counter[str] = Counter()

    def count(connection: Any, sealer: Any, webhook_id: str) -> Any:
        reads[webhook_id] += 1
        return find_webhook(connection, sealer, webhook_id)

    monkeypatch.setattr(module, "find_webhook", count)
    shop.run(lambda unit: apply(unit, "Other", "other"))
    async with silent() as (url, held), delivering(shop, writer, timeout_s=60):
        for _ in range(MOST_WEBHOOKS):
            shop.hook(url)
        shop.tell("e1")
        await until(lambda: len(held) == 9 and len(reads) == MOST_WEBHOOKS)
        for _ in range(3):
            shop.run(lambda unit: make(unit, "other", url))
        shop.run(lambda unit: queue_event(unit, "other", "number.cooling", "e2", {}))
        await until(lambda: len(held) == 10)
        await asyncio.sleep(0.2)
        assert set(reads.values()) == {1}
        assert len(reads) == MOST_WEBHOOKS + 1


async def test_webhooks_beyond_the_requests_under_way_take_turns(
    shop: Shop, writer: GroupWriter, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 2)
    inbox.delay_s = 0.02
    hooks = [shop.hook(inbox.url) for _ in range(6)]
    ids = [f"e{n}" for n in range(20)]
    shop.tell(*ids)
    async with delivering(shop, writer, batch=1):
        await inbox.until(lambda: inbox.taken.count("e0") == len(hooks))
        assert max(map(ids.index, inbox.taken)) <= 3
        await inbox.until(lambda: inbox.taken.count("e19") == len(hooks))
    assert [shop.waiting(hook) for hook in hooks] == [[]] * len(hooks)


async def test_silent_webhooks_of_one_business_hold_up_no_other(
    shop: Shop, writer: GroupWriter, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 10)
    monkeypatch.setattr(module, "MOST_TO_ONE_HOST", 0)
    shop.run(lambda unit: apply(unit, "Other", "other"))
    async with silent() as (url, held), delivering(shop, writer, timeout_s=60):
        for _ in range(MOST_WEBHOOKS):
            shop.hook(url)
        shop.tell("e1")
        await until(lambda: len(held) >= 9)
        shop.run(lambda unit: make(unit, "other", inbox.url))
        shop.run(lambda unit: queue_event(unit, "other", "number.cooling", "e2", {}))
        await inbox.until(lambda: inbox.taken == ["e2"])
        assert len(held) == 9


async def test_look_ups_of_a_webhook_are_those_of_its_business_user(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is none; it is tried later."""
    monkeypatch.setattr("relay.net.http_client.MOST_OF_OWNER", 2)
    released = threading.Event()

    def look_up(host: str, *rest: Any, **named: Any) -> Any:
        released.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    hooks = [shop.hook(f"https://silent-{n}.example/") for n in range(3)]
    shop.tell("e1")
    try:
        async with delivering(shop, writer, timeout_s=60):
            await until(lambda: any(shop.hook_now(hook).last_error for hook in hooks))
            errors = [shop.hook_now(hook).last_error for hook in hooks]
            assert sorted(map(str, errors)) == ["None", "None", "unknown host name"]
    finally:
        released.set()


# -- altered rows, internal addresses


async def test_an_altered_event_is_sent_without_data(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    shop.hook(inbox.url)
    shop.tell("e1", "e2", number="x")
    shop.run(lambda unit: unit.connection.execute("UPDATE outbox SET sealed = x'00' WHERE seq = 1"))
    async with delivering(shop, writer):
        await inbox.until(lambda: len(inbox.taken) == 2)
    events: list[dict[str, Any]] = json.loads(inbox.requests[0][1])["events"]
    assert [event.get("number") for event in events] == [None, "x"]
    assert events[0]["altered"] is True


async def test_an_event_whose_removal_was_lost_is_sent_again(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    """As after a kill between answer and removal."""
    hook = shop.hook(inbox.url)
    shop.tell("e1")
    row = shop.rows("SELECT * FROM outbox")
    async with delivering(shop, writer):
        await inbox.until(lambda: len(inbox.taken) == 1)
    shop.run(lambda unit: unit.connection.executemany("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row))
    async with delivering(shop, writer):
        await inbox.until(lambda: len(inbox.taken) == 2)
    assert (inbox.taken, shop.waiting(hook)) == (["e1", "e1"], [])


async def test_a_business_users_url_reaches_no_internal_address(shop: Shop, writer: GroupWriter, inbox: Inbox) -> None:
    """By address or by name: the error is that of an unknown name, so that internal names cannot be tried."""
    by_name = inbox.url.replace("127.0.0.1", "localhost")
    hooks = [
        shop.hook_of_its_own(inbox.url),
        shop.hook_of_its_own(by_name),
        shop.hook_of_its_own("http://127.0.0.1:9/"),
    ]
    shop.tell("e1")
    async with delivering(shop, writer) as deliverer:
        await failed(deliverer, 3 * REFUSALS)
    assert inbox.requests == []
    reasons = {fields["reason"] for event, fields in shop.log.said if event == "webhook.failing"}
    assert reasons == {"the host has no public address"}
    assert [shop.hook_now(hook).failures > 0 for hook in hooks] == [True] * 3


class InternalNames(AbstractResolver):
    """A resolver that knows names of the operator's network alone."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if not host.startswith("internal."):
            raise OSError(socket.EAI_NONAME, "Name or service not known")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for address, kind in (("10.0.0.1", socket.AF_INET), ("fd00::1", socket.AF_INET6))
        ]

    async def close(self) -> None:
        pass


async def test_an_internal_name_looks_like_one_that_does_not_exist(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SystemResolver", InternalNames)
    names = ("internal", "unknown")
    hooks = [shop.hook_of_its_own(f"https://{name}.operator.example/") for name in names]
    shop.tell("e1")
    async with delivering(shop, writer), asyncio.timeout(20):
        while None in (errors := [shop.hook_now(hook).last_error for hook in hooks]):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert errors == ["the host has no public address"] * 2


async def test_an_invalid_host_name_counts_as_unknown(shop: Shop, writer: GroupWriter) -> None:
    hook = shop.hook(f"https://{'a' * 63}.example/")
    shop.run(lambda unit: put_webhook(unit, hook._replace(url=f"https://{'a' * 64}.example/")))
    shop.tell("e1")
    async with delivering(shop, writer) as deliverer:
        await failed(deliverer, 1)
    assert shop.hook_now(hook).failures
    assert (
        "webhook.failing",
        {"webhook": hook.id, "business": "shop", "reason": "unknown host name"},
    ) in shop.log.said


async def test_an_event_is_delivered_when_the_bell_rings(
    shop: Shop, writer: GroupWriter, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_S", 600.0)
    bell = Bell()
    shop.hook(inbox.url)
    async with delivering(shop, writer, bell=bell) as deliverer:
        for count, event_id in enumerate(IDS[:3], 1):
            shop.tell(event_id)
            bell.ring()
            await inbox.until(lambda count=count: len(inbox.taken) == count)
        assert deliverer.statistics()["events_delivered"] >= 2
    assert inbox.batches == [[event_id] for event_id in IDS[:3]]
