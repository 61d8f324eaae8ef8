"""Each kind of event, from outside: real calls and commands, a running relay, and an inbox that checks signatures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.story.calls import Ends, call, refused
from tests.story.company import Inbox
from tests.support.addresses import RELAY, free
from tests.support.papers import PAPER_OPTIONS
from tests.support.phone import Phone
from tests.support.relay_process import A, B, RelayProcess, Setup

pytestmark = pytest.mark.outside

X, EXPIRING = "700100000010001", "700100000010002"
ORDER = ("--a", A, "--b", B, "--business", "firm", "--order", "17")
KINDS = {
    *("call.received", "call.ringing", "call.answered", "call.ended", "call.refused"),
    *("binding.expired", "number.cooling"),
}


class Firm(NamedTuple):
    ends: Ends
    inbox: Inbox
    webhook: str


def done(relay: RelayProcess, *arguments: str) -> str:
    result = relay.command(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
async def firm(tmp_path: Path) -> AsyncIterator[Firm]:
    """A business user with live events, an AXB on X, and one on EXPIRING that expires within a second."""
    relay = RelayProcess(tmp_path, Setup(api=free(RELAY)))
    relay.start()
    try:
        done(relay, "business", "apply", "firm", "--name", "Firm", *PAPER_OPTIONS)
        done(relay, "business", "approve", "firm", "--reason", "papers complete")
        done(relay, "business", "limits", "firm", "--live-events")
        async with Phone(relay.setup.caller) as left, Phone(relay.setup.callee) as right, Inbox() as inbox:
            made = relay.answer("webhooks", "make", inbox.url, "--business", "firm", "--json")
            inbox.secret = made["secret"]
            for x, *options in ((X, "--user-data", "cart 9"), (EXPIRING, "--expires-in", "1s")):
                done(
                    relay, "bind", "AXB", "--a", A, "--b", B, "--x", x, "--business", "firm", "--order", "17", *options
                )
            yield Firm(Ends(relay, left, right), inbox, made["id"])
        relay.assert_nothing_in_clear()
    finally:
        status = relay.stop()
    assert (status, "Traceback" in relay.log()) == (0, False), relay.log_tail()


async def test_each_kind_arrives_and_those_of_a_call_in_order(firm: Firm) -> None:
    relay, inbox = firm.ends.relay, firm.inbox
    await call(firm.ends, A, X)
    ended = await inbox.event("call.ended")
    of_call = [event for event in inbox.events if event.get("call_id") == ended["call_id"]]
    assert [event["kind"] for event in of_call] == ["call.received", "call.ringing", "call.answered", "call.ended"]
    assert {event["user_data"] for event in of_call} == {"cart 9"}
    done(relay, "lists", "black", "business", "firm", A)
    assert (await refused(firm.ends, A, X)).status == 403
    told = await inbox.event("call.refused")
    assert (told["outcome"], told["order_id"], told["caller"]) == ("caller_blacklisted", "17", "138****0001")
    expired = await inbox.event("binding.expired")
    cooling = await inbox.event("number.cooling")
    assert (expired["order_id"], cooling["number"], cooling["binding_id"]) == ("17", EXPIRING, expired["binding_id"])
    assert {event["kind"] for event in inbox.events} == KINDS
    assert len({event["id"] for event in inbox.events}) == len(inbox.events)


async def test_a_refused_event_is_a_dead_letter_that_can_be_resent(firm: Firm) -> None:
    relay, inbox = firm.ends.relay, firm.inbox
    await inbox.event("number.cooling")
    done(relay, "webhooks", "change", firm.webhook, "--kind", "call.ended")
    inbox.status = 410
    await call(firm.ends, A, X)
    (ended,) = relay.calls()
    await asyncio.to_thread(relay.wait_for_event, "webhook.gave_up")
    (dead,) = [
        event
        for event in relay.command("webhooks", "dead", firm.webhook, "--json").stdout.splitlines()
        if f"{ended['call_id']}.ended" in event
    ]
    assert "status 410" in dead
    inbox.status = 200
    done(relay, "webhooks", "change", firm.webhook, "--enabled")
    done(relay, "webhooks", "resend", firm.webhook)
    assert (await inbox.event("call.ended"))["id"] == f"{ended['call_id']}.ended"
