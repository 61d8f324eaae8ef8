"""`relay700 traceback`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.cli.conftest import Command
from tests.cli.test_calls import bind, write
from tests.support.product import PYTHON
from tests.support.stored import A, B, X, binding, ended_record, live_record

WHY = ("--reason", "case 7")


def test_wrong_usage_is_status_2(usage: Callable[..., str]) -> None:
    assert "write either --at TIME, or --from TIME and --to TIME" in usage("traceback", X, *WHY)
    time = "2026-11-29T12:20Z"
    assert "write either --at TIME" in usage("traceback", X, *WHY, "--at", time, "--from", time)
    assert "write either --at TIME" in usage("traceback", X, *WHY, "--from", time)
    assert "'--at': not a time" in usage("traceback", X, *WHY, "--at", "now")
    assert "'--at': not a time: write it as" in usage("traceback", X, *WHY, "--at", "2026-11-29T12:20")
    assert "'NUMBER'" in usage("traceback", "x", *WHY, "--at", "2026-01-01T00:00:00Z")
    assert "'--reason'" in usage("traceback", X, "--at", "2026-01-01T00:00:00Z")


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+08:00", "9999-12-31T23:59:59-08:00"])
def test_the_first_and_the_last_time_are_not_out_of_range(usage: Callable[..., str], time: str) -> None:
    assert "a time must be in the years 1 to 9999" in usage("traceback", X, *WHY, "--at", time)


@pytest.mark.parametrize(
    "unread",
    ["phonenumbers", "importlib.metadata", "zipfile", "structlog", "relay.reports.evidence", "relay.reports.explain"],
)
def test_it_imports_no_module_that_it_does_not_use(unread: str) -> None:
    """Its start is most of the time that it takes, whatever the size of the store."""
    asks = f"import sys, relay.cli.traceback; sys.exit({unread!r} in sys.modules)"
    assert subprocess.run([PYTHON, "-c", asks], check=False).returncode == 0


def test_trace_is_an_unknown_command(usage: Callable[..., str]) -> None:
    assert "No such command 'trace'." in usage("trace", X, *WHY, "--at", "2026-01-01T00:00:00Z")


def test_a_number_is_traced_to_order_business_parties_and_call_long_after_unbinding(relay700: Command) -> None:
    bind(relay700, binding(order_id="17", industrial_id="88.101.1/7"))
    write(relay700, ended_record())
    relay700.done("unbind", "b1")
    said = relay700.done("traceback", X, *WHY, "--at", "2026-01-01T00:00:05Z")
    for part in (
        "binding b1: AXB, ended",
        "business default, order 17",
        "industrial id 88.101.1/7",
        f"a {A}, b {B}",
        "call c1: answered",
    ):
        assert part in said
    (traced,) = relay700.objects("traceback", "+86" + X, *WHY, "--at", "2026-01-01T08:00:14+08:00")
    assert [found["binding_id"] for found in traced["bindings"]] == ["b1"]
    assert (traced["number"], traced["at"], traced["calls"]) == (X, "2026-01-01T00:00:14.000Z", [])


def test_a_span_of_time_is_traced_with_all_its_calls(relay700: Command) -> None:
    bind(relay700, binding())
    write(relay700, *(ended_record(call_id=f"c{n}") for n in range(3)))
    (traced,) = relay700.objects("traceback", X, *WHY, "--at", "2026-01-01T00:00Z")
    assert [call["call_id"] for call in traced["calls"]] == ["c0", "c1", "c2"]
    assert (traced["at"], traced["until"]) == ("2026-01-01T00:00:00.000Z", "2026-01-01T00:01:00.000Z")
    span = ("--from", "2026-01-01T00:00Z", "--to", "2026-01-01T00:01Z")
    assert relay700.objects("traceback", X, *WHY, *span) == [traced]
    assert "must be after the beginning" in relay700.refused("traceback", X, *WHY, *span[:3], "2026-01-01T00:00Z")
    said = relay700.refused("traceback", X, *WHY, *span[:3], "2026-02-01T00:01Z")
    assert "31 days" in said and "relay700 evidence" in said


def test_a_live_call_is_traced_by_its_party(relay700: Command) -> None:
    write(relay700, live_record())
    said = relay700.done("traceback", "13800000001", *WHY, "--at", "2026-01-01T00:00:05Z")
    assert "call c1: live" in said and "to now" in said


def test_a_text_message_is_traced_as_one(relay700: Command) -> None:
    bind(relay700, binding(order_id="17"))
    write(relay700, ended_record(kind="message", outcome="delivered"))
    said = relay700.done("traceback", X, *WHY, "--at", "2026-01-01T00:00:05Z")
    assert "message c1: delivered" in said and f"{A} texted {X}, reached {B}" in said


def test_traceback_of_an_unbound_number_is_status_1(relay700: Command) -> None:
    bind(relay700, binding())
    said = relay700.refused("traceback", X, *WHY, "--at", "2025-12-31T23:59:59.999Z")
    assert said == f"{X} was neither bound nor in a call from 2025-12-31T23:59:59.999Z to 2026-01-01T00:00:00.000Z"
    assert "138****0001 was neither bound nor" in relay700.refused(
        "traceback", "13800000001", *WHY, "--at", "2025-01-01T00:00:00Z"
    )


def test_a_traceback_is_in_the_audit_log_with_its_reason(relay700: Command) -> None:
    bind(relay700, binding())
    relay700.done("traceback", X, *WHY, "--at", "2026-01-01T00:00:05Z")
    relay700.refused("traceback", "13800000009", "--reason", "case 8", "--at", "2026-01-01T00:00:05Z")
    traced = relay700.objects("audit", "list", "--action", "traceback")
    assert [(entry["object"], entry["reason"]) for entry in traced] == [("party", "case 8"), (X, "case 7")]


def test_a_group_is_traced_to_its_members_of_that_time(relay700: Command) -> None:
    (group,) = relay700.objects("groups", "make", "riders", "--member", "8001", "--member", "8002")
    relay700.done("bind", "GXB", "--group", group["id"], "--b", "13900000002", "--x", X, "--expires-in", "2h")
    (made,) = relay700.objects("bindings", "list")
    relay700.done("groups", "remove", group["id"], "8001")
    (traced,) = relay700.objects("traceback", X, *WHY, "--at", made["created_at"])
    assert traced["bindings"][0]["members"] == ["8001", "8002"]
    said = relay700.done("traceback", X, *WHY, "--at", made["created_at"])
    assert f"group {group['id']}: 8001 8002" in said and "a -, b 8613900000002" in said
