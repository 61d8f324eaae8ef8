"""Policy at call time, from outside: real commands and SIP, a running relay, its metrics, log and records."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from relay.model.call import CallRecord
from relay.model.numbers import normalise_party
from relay.net.control import ControlClient, control_path
from relay.store.database import connect_reader, open_store
from relay.store.record_index import CURSOR
from tests.interop.conftest import running_relay
from tests.story.calls import Ends, call, refused
from tests.support.addresses import RELAY, STRANGER, free
from tests.support.hook import Hook
from tests.support.live_call import Call
from tests.support.papers import PAPER_OPTIONS
from tests.support.phone import SDP, Leg, Phone, connected
from tests.support.relay_process import RelayProcess, Setup
from tests.support.shelf import Shelf
from tests.support.stored import ended_record
from tests.support.waiting import until_seen

pytestmark = pytest.mark.outside

PATIENCE_S = 20.0
A, A2, A3, A4 = "13800000001", "13800000002", "13800000003", "13800000004"
B = "13900000002"
FOREIGN = "+442071838750"
NUMBERS = (A, A2, A3, A4, B)
_serials = itertools.count(1)


def number() -> str:
    """A separate 700 number for each case."""
    return f"70010000001{next(_serials):04}"


def done(relay: RelayProcess, *arguments: str) -> None:
    result = relay.command(*arguments)
    assert result.returncode == 0, result.stderr


def bind(relay: RelayProcess, x: str, *options: str, mode: str = "AXB", parties: tuple[str, ...] = ()) -> str:
    """Bind, and return the binding's id."""
    parties = parties or ("--a", A, "--b", B)
    return str(relay.answer("bind", mode, *parties, "--x", x, "--order", "1", *options, "--json")["binding_id"])


def metrics(relay: RelayProcess, name: str) -> dict[str, int]:
    """The values of a metric by its one label; of the verification hook, by the answer."""
    text = httpx.get(f"http://{relay.setup.api}/metrics", trust_env=False, timeout=PATIENCE_S).text
    found = re.findall(rf'^relay700_{name}{{\w+="(\w+)"(?:,hook="verify")?}} (\S+)', text, re.M)
    return {label: int(float(value)) for label, value in found}


# -- each refusal has its own outcome and its own metric


class Case(NamedTuple):
    """A refused call: preparation on a number, and the caller."""

    outcome: str
    status: int
    before: Callable[[RelayProcess, str], None]
    caller: str = A
    anonymous: bool = False


def _bound(*options: str) -> Callable[[RelayProcess, str], None]:
    def before(relay: RelayProcess, x: str) -> None:
        bind(relay, x, *options)

    return before


def _expired(relay: RelayProcess, x: str) -> None:
    made = bind(relay, x, "--expires-in", "1s")
    until_s = time.monotonic() + PATIENCE_S
    while relay.answer("bindings", "show", made, "--json")["state"] == "live":
        assert time.monotonic() < until_s


def _business(*steps: tuple[str, ...]) -> Callable[[RelayProcess, str], None]:
    def before(relay: RelayProcess, x: str) -> None:
        name = f"firm-{x[-4:]}"
        done(relay, "business", "apply", name, "--name", name, *PAPER_OPTIONS)
        done(relay, "business", "approve", name, "--reason", "papers complete")
        bind(relay, x, "--business", name)
        for command, *options in steps:
            done(
                relay,
                command.split(" ")[0],
                command.split(" ")[1],
                *(name if each == "ID" else each for each in options),
            )

    return before


def _locked(relay: RelayProcess, x: str) -> None:
    bind(relay, x)
    done(relay, "numbers", "lock", x, "--reason", "misuse")


def _black(relay: RelayProcess, x: str) -> None:
    done(relay, "lists", "black", "binding", bind(relay, x), A)


def _another_hour() -> str:
    """Service hours twelve hours from now, China time."""
    then = datetime.now(UTC) + timedelta(hours=8 + 12)
    return f"{then:%H:%M}-{then + timedelta(minutes=1):%H:%M}"


def _axn(relay: RelayProcess, x: str) -> None:
    bind(relay, x, mode="AXN", parties=("--a", B))


def _group(*members: str) -> Callable[[RelayProcess, str], None]:
    def before(relay: RelayProcess, x: str) -> None:
        options = [option for member in members for option in ("--member", member)]
        group = relay.answer("groups", "make", "riders", *options, "--json")["id"]
        bind(relay, x, mode="GXB", parties=("--group", group, "--b", B))

    return before


CASES = {
    "no binding": Case("no_binding", 403, _bound(), A2),
    "expired": Case("expired", 403, _expired),
    "direction": Case("direction_barred", 403, _bound("--direction", "b_to_a")),
    "number locked": Case("number_locked", 480, _locked),
    "business suspended": Case("business_suspended", 403, _business(("business suspend", "ID", "--reason", "unpaid"))),
    "business revoked": Case("business_revoked", 403, _business(("business revoke", "ID", "--reason", "unpaid"))),
    "black on the binding's list": Case("caller_blacklisted", 403, _black),
    "not on the binding's whitelist": Case("caller_not_listed", 403, _bound("--white-only")),
    "hours of the binding": Case("outside_hours", 480, _bound("--hours", _another_hour())),
    "anonymous": Case("caller_anonymous", 433, _axn, anonymous=True),
    "international": Case("caller_international", 403, _axn, FOREIGN),
    "nobody to call back": Case("no_callee", 480, _group(A), B),
    "calls a second": Case("business_rate", 503, _business(("business limits", "ID", "--max-cps", "0"))),
    "calls at once": Case("business_busy", 503, _business(("business limits", "ID", "--max-calls", "0"))),
    "hook refuses": Case("verification_refused", 403, _bound()),
}


class Strict(NamedTuple):
    """A relay with every rule, its verification hook and its phones."""

    ends: Ends
    hook: Hook


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RelayProcess, Hook]]:
    folder, hook = tmp_path_factory.mktemp("policy"), Hook()
    policy = {"caller_caps": ["2/5m"], "number_caps": ["3/5m"], "max_calls_per_number": 1}
    setup = Setup(api=free(RELAY), policy=policy, more=hook.toml(folder))
    with hook.serving(), running_relay(folder, setup, NUMBERS) as relay:
        relay.wait_for_event("api.listening")
        yield relay, hook


@pytest.fixture
async def phones(strict: tuple[RelayProcess, Hook]) -> AsyncIterator[Strict]:
    relay, hook = strict
    async with Phone(relay.setup.caller) as left, Phone(relay.setup.callee) as right:
        yield Strict(Ends(relay, left, right), hook)


async def explained(relay: RelayProcess, x: str, caller: str) -> tuple[str, int | None]:
    """The outcome and status that the running relay foretells, as for `relay700 explain`."""
    control = ControlClient(control_path(relay.folder / "relay.db"), PATIENCE_S)
    told = await control.ask("explain", number=x, caller=normalise_party(caller) if caller else "")
    return told["outcome"], told["sip_status"]


async def _assert_counted(relay: RelayProcess, before: dict[str, int], outcome: str) -> None:
    """Assert that the refusal counts once, under that outcome alone."""
    await until_seen(lambda: sum(metrics(relay, "refused_total").values()) > sum(before.values()))
    counted = {name: count for name, count in metrics(relay, "refused_total").items() if count}
    assert counted == {name: count for name, count in before.items() if count} | {outcome: before.get(outcome, 0) + 1}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
async def test_each_refusal_has_its_outcome_and_its_metric(phones: Strict, case: Case) -> None:
    relay, x = phones.ends.relay, number()
    await asyncio.to_thread(case.before, relay, x)
    if case.outcome == "verification_refused":
        phones.hook.refused.add(x)
    before = metrics(relay, "refused_total")
    told = await explained(relay, x, "" if case.anonymous else case.caller)
    # The hook is not asked.
    assert told == (("granted", None) if case.outcome == "verification_refused" else (case.outcome, case.status))
    answer = await refused(phones.ends, case.caller, x, anonymous=case.anonymous)
    assert (answer.status, relay.calls("--number", x)[-1]["outcome"]) == (case.status, case.outcome)
    await _assert_counted(relay, before, case.outcome)


@pytest.mark.parametrize(
    ("callers", "outcome"), [((A, A, A), "frequency_caller"), ((A, A2, A3, A4), "frequency_number")]
)
async def test_caps_of_caller_and_number_have_their_own_outcomes(
    phones: Strict, callers: tuple[str, ...], outcome: str
) -> None:
    relay, x = phones.ends.relay, number()
    _axn(relay, x)
    for caller in callers[:-1]:
        for _ in range(2):
            assert await explained(relay, x, caller) == ("granted", None)
        await call(phones.ends, caller, x)
    assert await explained(relay, x, callers[-1]) == (outcome, 403)
    before = metrics(relay, "refused_total")
    assert (await refused(phones.ends, callers[-1], x)).status == 403
    assert relay.calls("--number", x)[-1]["outcome"] == outcome
    await _assert_counted(relay, before, outcome)


async def test_concurrent_calls_on_a_number_are_limited(phones: Strict) -> None:
    relay, x = phones.ends.relay, number()
    _axn(relay, x)
    left, right = phones.ends.left, phones.ends.right
    leg, far = await connected(relay.setup.relay, left, right, (A, x))
    before = metrics(relay, "refused_total")
    assert await explained(relay, x, A2) == ("number_busy", 503)
    assert (await refused(phones.ends, A2, x)).status == 503
    await _assert_counted(relay, before, "number_busy")
    await leg.request("BYE")
    await far.answer(await right.expect("BYE"), 200)
    await left.expect(200, "BYE")


async def test_unknown_source_and_unknown_number_have_their_own_outcomes(phones: Strict) -> None:
    relay = phones.ends.relay
    before = metrics(relay, "refused_total")
    assert (await refused(phones.ends, A, "700100000020001")).status == 404
    await _assert_counted(relay, before, "number_unknown")
    before = metrics(relay, "refused_total")
    async with Phone(free(STRANGER)) as phone:
        leg = Leg.calling(phone, relay.setup.relay, A, number())
        branch = await leg.request("INVITE", body=SDP)
        await phone.expect(403)
        await leg.request("ACK", branch=branch, cseq=1)
    await _assert_counted(relay, before, "caller_not_allowed")


async def test_a_slow_hook_delays_no_other_calls(phones: Strict) -> None:
    """100 calls, each on a separate number."""
    relay, held = phones.ends.relay, [number() for _ in range(100)]
    await asyncio.to_thread(relay.import_bindings, [(x, A, B) for x in held])
    free_number = number()
    bind(relay, free_number)
    phones.hook.held.update(held)
    phones.hook.refused.update(held)
    asked = len(phones.hook.asked)
    legs = [Leg.calling(phones.ends.left, relay.setup.relay, A, x) for x in held]
    branches = []
    for leg in legs:  # one by one: a burst would be shed by a relay that the machine has held up
        branches.append(await leg.request("INVITE", body=SDP))
        await asyncio.to_thread(phones.hook.wait_until_asked, asked + len(branches))
    assert (await call(phones.ends, A, free_number)).called == B
    phones.hook.release()
    for leg, branch in zip(legs, branches, strict=True):
        answer = await phones.ends.left.expect_call(leg.call_id)
        while answer.status < 200:
            answer = await phones.ends.left.expect_call(leg.call_id)
        assert answer.status == 403
        await leg.request("ACK", branch=branch, cseq=1)
    outcomes = [relay.calls("--number", x)[-1]["outcome"] for x in (held[0], held[-1])]
    assert outcomes == ["verification_refused"] * 2
    assert metrics(relay, "verifications_total")["failed"] == 0


@pytest.mark.parametrize(("fail", "status"), [("closed", 503), ("open", None)])
async def test_without_a_verdict_a_call_is_refused_or_goes_on_as_configured(
    tmp_path: Path, fail: str, status: int | None
) -> None:
    hook = Hook()
    setup = Setup(api=free(RELAY), more=hook.toml(tmp_path, timeout_ms=50, fail=fail))
    x = number()
    hook.held.add(x)
    with hook.serving(), running_relay(tmp_path, setup, NUMBERS) as relay:
        relay.wait_for_event("api.listening")
        bind(relay, x)
        async with Phone(setup.caller) as left, Phone(setup.callee) as right:
            ends = Ends(relay, left, right)
            if status is None:
                assert (await call(ends, A, x)).called == B
            else:
                answer = await refused(ends, A, x)
                assert (answer.status, bool(answer["retry-after"])) == (status, True)
                assert relay.calls("--number", x)[-1]["outcome"] == "verification_failed"
                await _assert_counted(relay, {}, "verification_failed")
            await until_seen(lambda: metrics(relay, "verifications_total")["failed"] == 1)


# -- caps survive the process


async def test_caps_over_minutes_and_a_day_survive_a_crash(tmp_path: Path) -> None:
    """Two recent calls, the call live at the kill, and three of an hour ago all count."""
    setup = Setup(api=free(RELAY), policy={"caller_caps": ["3/5m", "3/24h"], "number_caps": []})
    relay = RelayProcess(tmp_path, setup, NUMBERS)
    x, before = "700100000010001", "700100000010002"
    hour_ago = int(time.time() * 1000) - 3_600_000
    shelf = Shelf(tmp_path / "relay.db", open_store(tmp_path / "relay.db", tmp_path / "relay.key"))
    shelf.add(*(_earlier(n, hour_ago + 30_000 * n, before) for n in range(3)))
    relay.start()
    try:
        await asyncio.to_thread(relay.wait_for_event, "api.listening")
        bind(relay, x)
        bind(relay, before)
        await until_seen(lambda: _indexed(relay) == 3)
        async with Phone(setup.caller) as left, Phone(setup.callee) as right:
            ends = Ends(relay, left, right)
            assert (await refused(ends, A, before)).status == 403
            for _ in range(2):
                await call(ends, A, x)
            up = Call(relay, left, right)
            await up.answer()
            mark = len(relay.log().splitlines())
            relay.kill()
            relay.start()
            await asyncio.to_thread(relay.wait_for_event, "relay.ready", after=mark)
            for dialled in (x, before):
                assert (await refused(ends, A, dialled)).status == 403
                assert relay.calls("--number", dialled)[-1]["outcome"] == "frequency_caller"
            await up.hang_up()
    finally:
        relay.stop_and_check()


def _earlier(n: int, at_ms: int, dialled: str) -> CallRecord:
    return ended_record(
        f"{n:032x}", number_dialled=dialled, number_shown=dialled, caller=f"86{A}", callee=f"86{B}",
        received_at=at_ms, routed_at=at_ms + 1, ringing_at=None, answered_at=at_ms + 2, ended_at=at_ms + 10_000,
    )  # fmt: skip


def _indexed(relay: RelayProcess) -> int:
    with closing(connect_reader(relay.folder / "relay.db")) as connection:
        cursors: dict[str, int] = dict(connection.execute("SELECT name, at FROM cursor").fetchall())
    return cursors.get(CURSOR, 0)


# -- signs of fraud


FRAUD = "\n[fraud]\n" + "".join(
    f"{signal} = {{warn = 2, lock = 3}}\n" for signal in ("strangers", "short_calls", "sequential")
)


@pytest.mark.parametrize("signal", ["strangers", "short_calls", "sequential"])
async def test_a_sign_of_fraud_warns_and_then_locks_the_number(tmp_path: Path, signal: str) -> None:
    setup = Setup(api=free(RELAY), more=FRAUD)
    x = [f"70010000001000{n}" for n in (1, 3, 4, 5)]
    with running_relay(tmp_path, setup, NUMBERS) as relay:
        relay.wait_for_event("api.listening")
        for each in x:
            bind(relay, each)
        async with Phone(setup.caller) as left, Phone(setup.callee) as right:
            ends = Ends(relay, left, right)
            match signal:
                case "strangers":
                    for caller in (A2, A3, A4):
                        assert (await refused(ends, caller, x[0])).status == 403
                case "short_calls":
                    for _ in range(3):
                        await call(ends, A, x[0])
                case "sequential":
                    for dialled in x[1:]:
                        await refused(ends, A2, dialled)
            locked = x[-1] if signal == "sequential" else x[0]
            await until_seen(lambda: relay.answer("numbers", "show", locked, "--json")["state"] == "locked")
            assert relay.answer("numbers", "show", locked, "--json")["locked_by"] == ["fraud"]
            assert (await refused(ends, A, locked)).status == 480
            assert relay.calls("--number", locked)[-1]["outcome"] == "number_locked"
            done(relay, "numbers", "unlock", locked, "--reason", "looked into")
            await call(ends, A, locked)
        found = [event for event in relay.events() if event["event"] == "fraud.found" and event["signal"] == signal]
        assert [(event["reached"], event["lock"]) for event in found][:2] == [(2, False), (3, True)]
        assert metrics(relay, "fraud_findings_total")[signal] == len(found)
        lines = relay.command("audit", "list", "--action", "fraud.found", "--json").stdout
        assert lines.count(f'"reason": "{signal}"') == len(found)
