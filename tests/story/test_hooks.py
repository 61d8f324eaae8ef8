"""Calls that a business user's hook decides: real SIP, a real HTTP hook, records and commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import running_relay
from tests.story.calls import Ends, assert_sees_none_of, call, refused
from tests.support import postgres
from tests.support.addresses import RELAY as RELAY_HOST
from tests.support.addresses import free
from tests.support.hook import Hook
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import RelayProcess, Setup

pytestmark = pytest.mark.outside

X, X2, X3, X4 = (f"70010000001000{serial}" for serial in range(1, 5))
A, A2, STRANGER, STRANGER2, STRANGER3 = (f"1380000000{digit}" for digit in (1, 2, 7, 8, 9))
B, B2, COURIER = "13900000002", "13900000003", "13900000004"
NUMBERS = (A, A2, STRANGER, STRANGER2, STRANGER3, B, B2, COURIER)
BIND: dict[str, Any] = {"allow": True, "target": COURIER, "bind": {"order_id": "o-77", "expires_in": "1h"}}


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RelayProcess, Hook]]:
    """A relay whose business user `default` has a hook."""
    folder, hook = tmp_path_factory.mktemp("hooks"), Hook()
    setup = Setup(api=free(RELAY_HOST), more="\n[hooks]\ntimeout_ms = 10000\nunknown_callers = true\n")
    with hook.serving(), running_relay(folder, setup, NUMBERS) as relay:
        hook.secret = relay.answer("hooks", "set", hook.url, "--unknown", "--json")["secret"]
        relay.import_bindings([(X, A, B), (X2, A2, B2)])
        yield relay, hook


@pytest.fixture
async def ends(hooked: tuple[RelayProcess, Hook]) -> AsyncIterator[Ends]:
    relay, hook = hooked
    hook.answers.clear()
    hook.asked.clear()
    async with Phone(relay.setup.caller) as left, Phone(relay.setup.callee) as right:
        yield Ends(relay, left, right)


@pytest.fixture
def hook(hooked: tuple[RelayProcess, Hook]) -> Hook:
    return hooked[1]


async def test_a_call_is_connected_to_the_target_of_the_hook(ends: Ends, hook: Hook) -> None:
    hook.answers[X] = {"allow": True, "target": B2, "show": X2, "max_duration_s": 60}
    seen = await call(ends, A, X)
    assert (seen.called, seen.shown) == (B2, X2)
    assert_sees_none_of(seen.by_caller, [B, B2])
    assert_sees_none_of(seen.by_callee, [A])
    record = ends.relay.calls("--number", X)[-1]
    assert (record["outcome"], record["number_shown"], record["decided_by"]) == ("answered", X2, "hook")
    (question,) = hook.asked
    assert question["caller"] == "138****0001"


async def test_an_unknown_caller_is_bound_and_connected_and_called_back(ends: Ends, hook: Hook) -> None:
    hook.answers[X] = BIND
    seen = await call(ends, STRANGER, X)
    assert (seen.called, seen.shown) == (COURIER, X)
    assert_sees_none_of(seen.by_caller, [COURIER])
    assert_sees_none_of(seen.by_callee, [STRANGER])
    record = ends.relay.calls("--number", X)[-1]
    assert (record["outcome"], record["order_id"], record["decided_by"]) == ("answered", "o-77", "hook")
    assert ends.relay.answer("bindings", "show", record["binding_id"], "--json")["created_by"] == "hook"
    hook.answers[X] = {"allow": True}
    back = await call(ends, COURIER, X)
    assert (back.called, back.shown) == (STRANGER, X)
    assert [question["known"] for question in hook.asked] == [False, True]


async def test_the_hook_refuses_a_call(ends: Ends, hook: Hook) -> None:
    hook.answers[X] = {"allow": False, "announce": "outside_hours"}
    assert (await refused(ends, A, X)).status == 403
    record = ends.relay.calls("--number", X)[-1]
    assert (record["outcome"], record["decided_by"]) == ("verification_refused", "hook")


def bindings(relay: RelayProcess, order: str) -> int:
    done = relay.command("bindings", "list", "--order", order, "--json")
    assert done.returncode == 0, done.stderr
    return len(done.stdout.splitlines())


async def test_a_caller_that_hangs_up_meanwhile_is_not_bound(ends: Ends, hook: Hook) -> None:
    hook.held.add(X3)
    hook.answers[X3] = BIND | {"bind": {"order_id": "o-78"}}
    relay, phone = ends.relay, ends.left
    relay.import_bindings([(X3, A2, B)])  # so that the number is of the business user
    leg = Leg.calling(phone, relay.setup.relay, STRANGER2, X3)
    branch = await leg.request("INVITE", body=SDP)
    await asyncio.to_thread(hook.wait_until_asked, 1)
    await phone.expect(100)
    await leg.request("CANCEL", branch=branch, cseq=1)
    await phone.expect(200, "CANCEL")
    await phone.expect(487, "INVITE")
    await leg.request("ACK", branch=branch, cseq=1)
    hook.release()
    relay.wait_for_event("hook.not_bound")
    assert relay.calls("--number", X3)[-1]["outcome"] == "cancelled"
    assert bindings(relay, "o-78") == 0


async def test_a_relay_that_dies_meanwhile_binds_nobody_and_has_the_attempt(tmp_path: Path) -> None:
    """On a store on a server: the next call is bound and connected there."""
    slow, more = Hook(), "\n[hooks]\ntimeout_ms = 10000\nunknown_callers = true\n"
    with postgres.new_url() as url, slow.serving():
        store = {"url": url, "node": "a", "key_file": "relay.key"}
        setup = Setup(api=free(RELAY_HOST), more=more, store=store)
        with running_relay(tmp_path, setup, NUMBERS) as relay:
            slow.secret = relay.answer("hooks", "set", slow.url, "--unknown", "--json")["secret"]
            relay.import_bindings([(X4, A, B)])
            slow.held.add(X4)
            slow.answers[X4] = BIND | {"bind": {"order_id": "o-79"}}
            async with Phone(setup.caller) as left, Phone(setup.callee) as right:
                await _killed(relay, slow, left)
                assert bindings(relay, "o-79") == 0
                assert (await call(Ends(relay, left, right), STRANGER3, X4)).called == COURIER


async def _killed(relay: RelayProcess, slow: Hook, phone: Phone) -> None:
    """A call whose hook has not answered when the relay is killed; it gets its answer from the next start."""
    leg = Leg.calling(phone, relay.setup.relay, STRANGER3, X4)
    branch = await leg.request("INVITE", body=SDP)
    await asyncio.to_thread(slow.wait_until_asked, 1)
    await phone.expect(100)
    await asyncio.to_thread(relay.kill)
    slow.release()
    await asyncio.to_thread(relay.start)
    assert (await phone.expect(503, "INVITE")).status == 503
    await leg.request("ACK", branch=branch, cseq=1)
    record = relay.calls("--number", X4)[-1]
    assert (record["outcome"], record["end_reason"]) == ("failed", "lost_at_restart")
    slow.held.clear()
