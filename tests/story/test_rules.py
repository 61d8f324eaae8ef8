"""The rules of number protection and the routes of each mode: real commands, real SIP, a running relay."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.interop.conftest import running_relay
from tests.story.calls import Ends, assert_sees_none_of, call, refused
from tests.support.addresses import STRANGER, free
from tests.support.papers import PAPER_OPTIONS
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import RelayProcess, Setup

pytestmark = pytest.mark.outside

A, A2, A3 = "13800000001", "13800000002", "13800000003"
B, B2 = "13900000002", "13900000004"
NUMBERS = (A, A2, A3, B, B2)
LEGACY = "17000000001"
_serials = itertools.count(1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    with running_relay(tmp_path_factory.mktemp("rules"), Setup(), NUMBERS) as relay:
        yield relay


@pytest.fixture
async def ends(shared: RelayProcess) -> AsyncIterator[Ends]:
    async with Phone(shared.setup.caller) as left, Phone(shared.setup.callee) as right:
        yield Ends(shared, left, right)


@pytest.fixture
def x() -> str:
    """A separate 700 number for each test."""
    return f"70010000001{next(_serials):04}"


@pytest.fixture
def y() -> str:
    return f"70010000001{next(_serials):04}"


def done(relay: RelayProcess, *arguments: str) -> None:
    result = relay.command(*arguments)
    assert result.returncode == 0, result.stderr


def is_refused(relay: RelayProcess, *arguments: str) -> str:
    """Run a command and return its output."""
    result = relay.command(*arguments)
    assert result.returncode == 1, result.stdout
    return result.stderr


def bind(relay: RelayProcess, mode: str, *options: str) -> str:
    """Bind, and return the binding's id."""
    return str(relay.answer("bind", mode, *options, "--json")["binding_id"])


def outcome(relay: RelayProcess, number: str) -> str:
    """The record of the last attempt on the number."""
    return str(relay.calls("--number", number)[-1]["outcome"])


# The rules


async def test_a_700_number_has_15_digits_under_an_assigned_prefix(ends: Ends, x: str) -> None:
    bind(ends.relay, "AXB", "--a", A, "--b", B, "--x", x)
    for dialled, status in (("700100000020001", 404), (x[:-1], 484), ("13900000002", 404)):
        assert (await refused(ends, A, dialled)).status == status
        assert ends.relay.calls()[-1]["outcome"] == "number_unknown"
    assert "assigned prefix" in is_refused(ends.relay, "bind", "AXB", "--a", A, "--b", B, "--x", "700100000020001")


async def test_both_ends_see_only_700_numbers(ends: Ends, x: str) -> None:
    bind(ends.relay, "AXB", "--a", A, "--b", B, "--x", x)
    for caller, callee in ((A, B), (B, A)):
        seen = await call(ends, caller, x)
        assert (seen.shown, seen.called) == (x, callee)
        assert_sees_none_of(seen.by_callee, [caller])
        assert_sees_none_of(seen.by_caller, [callee])


async def test_only_number_protection(tmp_path: Path, x: str) -> None:
    """No binding, no call; an order and a business user in good standing; caps on frequency."""
    setup = Setup(policy={"caller_caps": ["2/5m"], "number_caps": []})
    with running_relay(tmp_path, setup, NUMBERS) as relay:
        async with Phone(setup.caller) as left, Phone(setup.callee) as right:
            ends = Ends(relay, left, right)
            bind(relay, "AXB", "--a", A, "--b", B, "--x", x)
            assert (await refused(ends, A2, x)).status == 403
            assert outcome(relay, x) == "no_binding"
            done(relay, "business", "apply", "acme", "--name", "Acme", *PAPER_OPTIONS)
            done(relay, "business", "approve", "acme", "--reason", "papers complete")
            said = is_refused(relay, "bind", "AXB", "--a", A2, "--b", B2, "--business", "acme")
            assert said.startswith("order_id: required")
            await call(ends, A, x)
            await call(ends, A, x)
            assert (await refused(ends, A, x)).status == 403
            assert outcome(relay, x) == "frequency_caller"


async def test_three_roles(ends: Ends, x: str) -> None:
    """Business users are applied, approved, suspended, revoked. Carriers are peers; unknown sources are refused."""
    relay = ends.relay
    done(relay, "business", "apply", "roles", "--name", "Roles", *PAPER_OPTIONS)
    options = ("--a", A, "--b", B, "--x", x, "--order", "1", "--business", "roles")
    assert "is applied" in is_refused(relay, "business", "suspend", "roles", "--reason", "early")
    assert "must be approved" in is_refused(relay, "bind", "AXB", *options)
    done(relay, "business", "approve", "roles", "--reason", "papers complete")
    bind(relay, "AXB", *options)
    await call(ends, A, x)
    for step, status, found in (("suspend", 403, "business_suspended"), ("revoke", 403, "business_revoked")):
        done(relay, "business", step, "roles", "--reason", f"test of {step}")
        assert (await refused(ends, A, x)).status == status
        assert outcome(relay, x) == found
        if step == "suspend":
            done(relay, "business", "resume", "roles", "--reason", "settled")
            await call(ends, B, x)
    async with Phone(free(STRANGER)) as phone:
        leg = Leg.calling(phone, relay.setup.relay, A, x)
        await leg.request("INVITE", body=SDP)
        assert (await phone.expect(403)).status == 403
    assert outcome(relay, x) == "caller_not_allowed"


async def test_no_sub_leasing(ends: Ends, x: str) -> None:
    """A binding has one business user, one order and real parties; a business user's numbers are its own."""
    relay = ends.relay
    for business in ("owner", "lessee"):
        done(relay, "business", "apply", business, "--name", business, *PAPER_OPTIONS)
        done(relay, "business", "approve", business, "--reason", "papers complete")
    done(relay, "pools", "make", "owned", "--business", "owner")
    done(relay, "numbers", "move", x, "--pool", "owned")
    parties = ("--a", A, "--b", B, "--x", x, "--order", "17")
    assert is_refused(relay, "bind", "AXB", *parties, "--business", "lessee").startswith("x: ")
    made = bind(relay, "AXB", *parties, "--business", "owner")
    shown = relay.answer("bindings", "show", made, "--json")
    assert (shown["business"], shown["order_id"], shown["a"], shown["b"]) == ("owner", "17", f"86{A}", f"86{B}")
    await call(ends, A, x)
    record = relay.calls("--number", x)[-1]
    assert (record["business"], record["order_id"], record["binding_id"]) == ("owner", "17", made)


async def test_phases(tmp_path: Path) -> None:
    """Old middle numbers work in the transition, marked in the record, and no longer in the pilot."""
    setup = Setup()
    with running_relay(tmp_path, setup, NUMBERS) as relay:
        numbers = relay.config.read_text()
        relay.stop()
        old = numbers.replace("[numbers]\n", f'[numbers]\nlegacy = ["{LEGACY}"]\nphase = "transition"\n')
        relay.config.write_text(old)
        relay.start()
        async with Phone(setup.caller) as left, Phone(setup.callee) as right:
            ends = Ends(relay, left, right)
            bind(relay, "AXB", "--a", A, "--b", B, "--x", LEGACY)
            assert (await call(ends, A, LEGACY)).called == B
            assert relay.calls()[-1]["legacy"] is True
            relay.stop()
            relay.config.write_text(old.replace('"transition"', '"pilot"'))
            relay.start()
            assert (await refused(ends, A, LEGACY)).status == 410
            assert relay.calls()[-1]["outcome"] == "legacy_ended"
            assert is_refused(relay, "bind", "AXB", "--a", A2, "--b", B2, "--x", LEGACY)


async def test_unbind_at_the_end_of_the_order_and_recycle_the_number(ends: Ends, x: str) -> None:
    """A late call-back is refused, and the number rests before the next customer gets it."""
    relay = ends.relay
    done(relay, "unbind", bind(relay, "AXB", "--a", A, "--b", B, "--x", x))
    assert (await refused(ends, B, x)).status == 403
    assert relay.answer("numbers", "show", x, "--json")["state"] == "cooling"
    said = is_refused(relay, "bind", "AXB", "--a", A2, "--b", B2, "--x", x)
    assert said.startswith("x: the number is cooling down: ")
    assert relay.answer("bind", "AXB", "--a", A2, "--b", B2, "--json")["x"] != x
    bind(relay, "AXB", "--a", A, "--b", B, "--x", x)  # the same parties may


async def test_unbinding_does_not_end_a_live_call(ends: Ends, x: str) -> None:
    relay = ends.relay
    made = bind(relay, "AXB", "--a", A, "--b", B, "--x", x)
    leg = Leg.calling(ends.left, relay.setup.relay, A, x)
    await leg.request("INVITE", body=SDP)
    invite = await ends.right.expect("INVITE")
    far = Leg.called(ends.right, relay.setup.relay, invite)
    await far.answer(invite, 200, body=SDP)
    leg.learn(await ends.left.expect(200, "INVITE"))
    await leg.request("ACK", cseq=1)
    await ends.right.expect("ACK")
    done(relay, "unbind", made)
    assert len(relay.calls("--number", x, "--live")) == 1
    await far.request("BYE")
    await leg.answer(await ends.left.expect("BYE"), 200)
    await ends.right.expect(200, "BYE")
    assert outcome(relay, x) == "answered"
    assert (await refused(ends, A, x)).status == 403


async def test_keep_bindings_and_records_for_six_months_and_logs_for_two_years(ends: Ends, x: str) -> None:
    """Shorter retention is a fault of the configuration, and a purge deletes nothing younger."""
    relay = ends.relay
    short = relay.folder / "short.toml"
    retention = '[retention]\nrecords = "183d"\nbindings = "183d"\naudit = "730d"\nbusinesses = "730d"\n'
    short.write_text(relay.config.read_text() + retention)
    result = relay.command_with(short, "check")
    assert result.returncode == 1
    for key in ("records", "bindings", "audit", "businesses"):
        assert f"retention.{key}: " in result.stderr
    done(relay, "unbind", bind(relay, "AXB", "--a", A, "--b", B, "--x", x))
    await refused(ends, A, x)
    assert set(relay.answer("purge", "--json").values()) == {0}
    assert len(relay.calls("--number", x)) == 1
    assert relay.verify().split()[1:3] == ["records", "intact,"]


async def test_traceability(ends: Ends, x: str) -> None:
    """Number and time lead to order, business user and parties, also after unbinding; a reason is required."""
    relay = ends.relay
    made = bind(relay, "AXB", "--a", A, "--b", B, "--x", x, "--order", "order-9")
    await call(ends, A, x)
    at = str(relay.calls("--number", x)[-1]["answered_at"])
    done(relay, "unbind", made)
    assert relay.command("traceback", x, "--at", at).returncode == 2
    traced = relay.answer("traceback", x, "--at", at, "--reason", "case 7", "--json")
    (binding,) = traced["bindings"]
    assert (binding["order_id"], binding["business"]) == ("order-9", "default")
    assert (binding["a"], binding["b"]) == (f"86{A}", f"86{B}")
    (record,) = traced["calls"]
    assert (record["caller"], record["callee"]) == (f"86{A}", f"86{B}")


async def test_fail_closed(tmp_path: Path, x: str) -> None:
    """If the store cannot answer, the call is refused and no number is shown."""
    setup = Setup()
    relay = RelayProcess(tmp_path, setup, NUMBERS)
    relay.start()
    try:
        async with Phone(setup.caller) as left, Phone(setup.callee) as right:
            ends = Ends(relay, left, right)
            bind(relay, "AXB", "--a", A, "--b", B, "--x", x)
            await call(ends, A, x)
            with closing(sqlite3.connect(tmp_path / "relay.db")) as thief:
                schema = thief.execute("SELECT sql, name FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
                thief.execute("ALTER TABLE route RENAME TO taken_away")
            answer = await refused(ends, A, x)
            assert (answer.status, bool(answer["retry-after"])) == (503, True)
            assert_sees_none_of(bytes(left.raw_received), [B])
            assert_sees_none_of(bytes(right.raw_received), [A])
            with closing(sqlite3.connect(tmp_path / "relay.db")) as thief:
                thief.execute("ALTER TABLE taken_away RENAME TO route")
                with thief:  # exactly as it was
                    thief.execute("PRAGMA writable_schema = ON")
                    thief.executemany("UPDATE sqlite_schema SET sql = ? WHERE name = ?", schema)
            assert outcome(relay, x) == "store_failed"
            await call(ends, A, x)
    finally:
        assert relay.stop() == 0


# The modes


async def reaches(ends: Ends, caller: str, dialled: str) -> tuple[str, str]:
    """The number that a call reaches, and the number shown there."""
    seen = await call(ends, caller, dialled)
    return seen.called, seen.shown


def group_of(relay: RelayProcess, *members: str) -> str:
    options = [option for member in members for option in ("--member", member)]
    return str(relay.answer("groups", "make", "riders", *options, "--json")["id"])


async def test_axb(ends: Ends, x: str) -> None:
    bind(ends.relay, "AXB", "--a", A, "--b", B, "--x", x)
    assert await reaches(ends, A, x) == (B, x)
    assert await reaches(ends, B, x) == (A, x)


async def test_axyb(ends: Ends, x: str, y: str) -> None:
    bind(ends.relay, "AXYB", "--a", A, "--b", B, "--x", x, "--y", y)
    assert await reaches(ends, A, x) == (B, y)
    assert await reaches(ends, B, y) == (A, x)
    for caller, dialled in ((A, y), (B, x)):
        assert (await refused(ends, caller, dialled)).status == 403


async def test_gxb(ends: Ends, x: str) -> None:
    """b reaches the default until a member has called, then the last caller who is still a member."""
    group = group_of(ends.relay, A, A2)
    bind(ends.relay, "GXB", "--group", group, "--a", A3, "--b", B, "--x", x)
    assert await reaches(ends, B, x) == (A3, x)
    assert await reaches(ends, A, x) == (B, x)
    assert await reaches(ends, A2, x) == (B, x)
    assert await reaches(ends, B, x) == (A2, x)
    done(ends.relay, "groups", "remove", group, A2)
    assert await reaches(ends, B, x) == (A3, x)
    assert (await refused(ends, A2, x)).status == 403


async def test_gxyb(ends: Ends, x: str, y: str) -> None:
    bind(ends.relay, "GXYB", "--group", group_of(ends.relay, A, A2), "--b", B, "--x", x, "--y", y)
    answer = await refused(ends, B, y)
    assert (answer.status, outcome(ends.relay, y)) == (480, "no_callee")
    assert await reaches(ends, A, x) == (B, y)
    assert await reaches(ends, B, y) == (A, x)
    assert await reaches(ends, A2, x) == (B, y)
    assert await reaches(ends, B, y) == (A2, x)


async def test_axn(ends: Ends, x: str) -> None:
    """a reaches the default until somebody has called, then the last caller; all see x."""
    bind(ends.relay, "AXN", "--a", B, "--b", A3, "--x", x)
    assert await reaches(ends, B, x) == (A3, x)
    assert await reaches(ends, A, x) == (B, x)
    assert await reaches(ends, A2, x) == (B, x)
    assert await reaches(ends, B, x) == (A2, x)
