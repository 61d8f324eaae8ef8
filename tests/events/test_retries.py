"""A day of retries for a refused event, on the test's clock: real HTTP, a real outbox, two processes."""

from __future__ import annotations

import asyncio

import pytest

from relay.events import delivery as module
from relay.events.delivery import FIRST_WAIT_S, LONGEST_WAIT_S
from relay.events.webhooks import resend
from relay.store.webhooks import Webhook
from relay.store.writer import GroupWriter, now_ms
from tests.events.conftest import Inbox, Shop, delivering

DAY_MS = 24 * 3_600_000


class Day:
    """Retries of a webhook, and the time between them."""

    def __init__(self, shop: Shop, hook: Webhook) -> None:
        self.shop, self.hook = shop, hook
        self.began = self.now_ms = now_ms()
        self.waits_ms: list[int] = []

    def clock_ms(self) -> int:
        return self.now_ms

    async def next_try(self) -> bool:
        """Wait until the next try has failed, and move the clock to the one after. False once the event is given up."""
        async with asyncio.timeout(20):
            while not (next_at := self._next_at()):
                if self.shop.dead(self.hook):
                    return False
                await asyncio.sleep(0.005)
        self.waits_ms.append(next_at - self.now_ms)
        self.now_ms = next_at
        return True

    def _next_at(self) -> int:
        """Time of the next try; 0 if none."""
        next_at = self.shop.hook_now(self.hook).next_at
        return next_at if next_at > self.now_ms else 0


async def test_an_event_is_retried_for_a_day_and_becomes_a_dead_letter(
    shop: Shop, writer: GroupWriter, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.005)
    hook = shop.hook(inbox.url)
    day = Day(shop, hook)
    inbox.answer = lambda ids: 503
    shop.tell("e1", "e2")
    async with delivering(shop, writer, day.clock_ms):
        for _ in range(12):
            assert await day.next_try()
    async with delivering(shop, writer, day.clock_ms):
        while await day.next_try():
            pass
    assert DAY_MS < day.now_ms - day.began < DAY_MS + 1_200 * LONGEST_WAIT_S
    for n, wait_ms in enumerate(day.waits_ms):
        expected_ms = 1_000 * min(FIRST_WAIT_S * 2**n, LONGEST_WAIT_S)
        assert 0.79 * expected_ms < wait_ms < 1.21 * expected_ms, n
    assert inbox.batches == [["e1", "e2"]] * len(day.waits_ms)
    dead = shop.dead(hook)
    assert [(event.event_id, event.last_error) for event in dead] == [
        ("e1", "not accepted in time"), ("e2", "not accepted in time"),
    ]  # fmt: skip

    inbox.answer = lambda ids: 200
    assert shop.run(lambda unit: resend(unit, hook.id)).events == 2
    async with delivering(shop, writer):
        await inbox.until(lambda: inbox.taken == ["e1", "e2"])
    assert shop.dead(hook) == []
