"""`relay700 calls`, `trace` and `verify`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing

import pytest

from relay.call.actions import Commit
from relay.call.record import CallRecord
from relay.store.bindings import Bindings
from relay.store.database import connect, open_store
from relay.store.journal import Journal
from tests.cli.conftest import Command
from tests.support.stored import NOW_MS, A, B, X, binding, ended_record, live_record


def write(relay700: Command, *records: CallRecord) -> None:
    async def journal() -> None:
        path, key_file = relay700.store
        journal = Journal(path, open_store(path, key_file), lambda *_: None)
        await journal.open()
        for record in records:
            journal.append(Commit(0, record, None if record.ended_at else b"dialogs"), lambda _: None)
        await journal.close()

    asyncio.run(journal())


def bind(relay700: Command, *bindings: object) -> None:
    path, key_file = relay700.store
    with closing(Bindings(path, open_store(path, key_file))) as store:
        store.add(bindings, NOW_MS)  # type: ignore[arg-type]


def test_a_record_is_printed_as_the_contract_says(relay700: Command) -> None:
    write(relay700, ended_record())
    assert relay700.objects("calls", "list") == [
        {
            "call_id": "c1",
            "binding_id": "b1",
            "mode": "AXB",
            "business": "default",
            "order_id": "order-1",
            "number_dialled": X,
            "number_shown": X,
            "caller": A,
            "callee": B,
            "peer_in": "pbx",
            "peer_out": "carrier",
            "received_at": "2026-01-01T00:00:00.000Z",
            "routed_at": "2026-01-01T00:00:00.001Z",
            "ringing_at": "2026-01-01T00:00:00.200Z",
            "answered_at": "2026-01-01T00:00:03.000Z",
            "ended_at": "2026-01-01T00:00:13.000Z",
            "duration_ms": 10_000,
            "sip_status": 200,
            "q850_cause": 16,
            "outcome": "answered",
            "ended_by": "caller",
            "end_reason": "bye",
            "caller_leg_call_id": "a84b4c76e66710@13800000001.example",
            "callee_leg_call_id": "f00d" * 8,
            "direction": None,
            "legacy": False,
        }
    ]
    # "… in exactly this order"
    line = relay700.done("calls", "list", "--json")
    places = [line.index(f'"{name}": ') for name in CallRecord._fields]
    assert places == sorted(places)


def test_live_calls_are_listed_and_can_be_selected(relay700: Command) -> None:
    write(relay700, ended_record("c1"), live_record("c2"))
    assert [record["call_id"] for record in relay700.objects("calls", "list")] == ["c1", "c2"]
    (live,) = relay700.objects("calls", "list", "--live")
    assert (live["call_id"], live["ended_at"], live["outcome"]) == ("c2", None, None)


def test_calls_are_selected_by_number_in_any_notation_and_by_time(relay700: Command) -> None:
    write(relay700, ended_record("c1"), ended_record("c2", caller="8001", received_at=NOW_MS + 5_000))
    for selection, ids in [
        (("--number", "+86-138-0000-0001"), ["c1"]),
        (("--number", X), ["c1", "c2"]),
        (("--number", "8001"), ["c2"]),
        (("--since", "2026-01-01T08:00:05+08:00"), ["c2"]),
        (("--since", "36500d"), ["c1", "c2"]),
        (("--number", "13800000001", "--since", "2026-01-01T00:00:05Z"), []),
    ]:
        assert [record["call_id"] for record in relay700.objects("calls", "list", *selection)] == ids


def test_the_table_masks_real_numbers_unless_told_to_reveal(relay700: Command) -> None:
    write(relay700, ended_record(), live_record("c2", caller="", callee=None))
    masked = relay700.done("calls", "list")
    assert "138****0001" in masked and A[2:] not in masked and B[2:] not in masked
    assert len(masked.splitlines()) == 3
    assert A in relay700.done("calls", "list", "--reveal")


def test_bytes_of_a_peer_that_are_no_text_are_printable(relay700: Command) -> None:
    write(relay700, ended_record(caller_leg_call_id=b"\xffcall".decode("utf-8", "surrogateescape")))
    assert relay700.objects("calls", "list")[0]["caller_leg_call_id"] == "\ufffdcall"


def test_wrong_usage_is_status_2(usage: Callable[..., str]) -> None:
    assert "'--since': not a duration" in usage("calls", "list", "--since", "yesterday")
    assert "'--at'" in usage("trace", X)
    assert "'--at': not a time" in usage("trace", X, "--at", "now")
    assert "'NUMBER'" in usage("trace", "x", "--at", "2026-01-01T00:00:00Z")


def test_a_number_is_traced_to_order_business_parties_and_call_long_after_unbinding(relay700: Command) -> None:
    bind(relay700, binding(order_id="17"))
    write(relay700, ended_record())
    relay700.done("unbind", "b1")
    said = relay700.done("trace", X, "--at", "2026-01-01T00:00:05Z")
    for part in ("binding b1: AXB, ended", "business default, order 17", f"a {A}, b {B}", "call c1: answered"):
        assert part in said
    (traced,) = relay700.objects("trace", "+86" + X, "--at", "2026-01-01T08:00:14+08:00")
    assert [found["binding_id"] for found in traced["bindings"]] == ["b1"]
    assert (traced["number"], traced["at"], traced["calls"]) == (X, "2026-01-01T00:00:14.000Z", [])


def test_a_live_call_is_traced_by_its_party(relay700: Command) -> None:
    write(relay700, live_record())
    said = relay700.done("trace", "13800000001", "--at", "2026-01-01T00:00:05Z")
    assert "call c1: live" in said and "to now" in said


def test_a_number_that_was_not_bound_then_is_status_1(relay700: Command) -> None:
    bind(relay700, binding())
    said = relay700.refused("trace", X, "--at", "2025-12-31T23:59:59.999Z")
    assert said == f"{X} was not bound and in no call at 2025-12-31T23:59:59.999Z"
    assert "138****0001 was not bound" in relay700.refused("trace", "13800000001", "--at", "2025-01-01T00:00:00Z")


def test_verify_counts_what_is_intact(relay700: Command) -> None:
    bind(relay700, binding())
    assert relay700.done("verify") == "0 records intact, 0 live, head -\n"
    write(relay700, ended_record("c1"), ended_record("c2"), live_record("c3"))
    said = relay700.done("verify")
    assert said.startswith("2 records intact, 1 live, head ")
    assert len(said.split()[-1]) == 66


@pytest.mark.parametrize("command", [("verify",), ("calls", "list")])
def test_an_altered_record_is_status_1_and_named(relay700: Command, command: tuple[str, ...]) -> None:
    write(relay700, *(ended_record(f"c{n}") for n in (1, 2, 3)))
    with closing(connect(relay700.store[0])) as thief:
        thief.execute("UPDATE call_record SET caller_hash = callee_hash WHERE call_id = 'c1'")
    said = relay700.refused(*command)
    assert "call record c1 was altered" in said
    assert command != ("verify",) or said.startswith("broken after 0 intact records: record 1")
