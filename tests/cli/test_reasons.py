"""Real numbers need a reason, in tables, JSON and files."""

from __future__ import annotations

from collections.abc import Callable

import click
import pytest

from tests.cli.conftest import Command
from tests.cli.test_calls import bind, write
from tests.cli.test_parity import commands
from tests.support.stored import A, X, binding, ended_record

# Arguments of commands that show or write real numbers.
NEEDED = {
    "business show": ("default",),
    "groups show": ("g1",),
    "lists show": ("business", "default"),
    "bindings show": ("b1",),
    "calls show": ("c1",),
    "calls export": ("-",),
    "audit export": ("-",),
    "traceback": (X, "--at", "2026-01-01T00:00:05Z"),
    "evidence make": (X, "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z", "--out", "-"),
    "recordings get": ("c1", "--out", "-"),
}
ALWAYS = ("traceback", "evidence make", "recordings get")


def revealing() -> dict[str, click.Command]:
    return {name: each for name, each in commands() if any("--reveal" in option.opts for option in each.params)}


@pytest.mark.parametrize("name", [*revealing(), *ALWAYS])
def test_real_numbers_without_a_reason_are_wrong_usage(relay700: Command, usage: Callable[..., str], name: str) -> None:
    bind(relay700, binding())
    write(relay700, ended_record())
    asked = (*name.split(), *NEEDED.get(name, ()), *(() if name in ALWAYS else ("--reveal",)))
    for reason in ((), ("--reason", ""), ("--reason", "  "), ("--reason", "\u3164\u2800")):
        assert "--reason" in usage(*asked, *reason)
    assert relay700.objects("audit", "list", "--action", "read") == []


def test_commands_with_reveal_take_a_reason() -> None:
    for name, command in revealing().items():
        assert any("--reason" in option.opts for option in command.params), name


@pytest.mark.parametrize("name", ["bindings list", "bindings show", "calls list", "calls show"])
def test_json_without_a_reason_is_masked_and_leaves_no_audit_line(relay700: Command, name: str) -> None:
    order = "to 138-0000-0001"
    bind(relay700, binding()._replace(order_id=order))
    write(relay700, ended_record(order_id=order))
    asked = (*name.split(), *NEEDED.get(name, ()))
    (masked,) = relay700.objects(*asked, reason=None)
    (clear,) = relay700.objects(*asked, reason="case 7")
    assert A[2:] not in str(masked) and A in clear.values()
    assert (masked["order_id"], clear["order_id"]) == ("to 138****0001", order)
    assert masked.keys() == clear.keys()
    assert [line["reason"] for line in relay700.objects("audit", "list", "--action", "read")] == ["case 7"]


@pytest.mark.parametrize("command", ["bind", "change", "renew"])
def test_json_of_a_new_binding_is_masked_without_a_reason(relay700: Command, command: str) -> None:
    made = ("bind", "AXB", "--a", "13800000001", "--b", "13900000002", "--order", "to 138-0000-0001")
    (masked,) = relay700.objects(*made, reason=None)
    asked = made
    if command != "bind":
        asked = ("bindings", command, masked["binding_id"], "--expires-in", "2h")
        (masked,) = relay700.objects(*asked, reason=None)
    else:
        relay700.done("unbind", masked["binding_id"])
    (clear,) = relay700.objects(*asked, reason="case 7")
    assert (masked["a"], masked["b"], masked["order_id"]) == ("138****0001", "139****0002", "to 138****0001")
    assert (clear["a"], clear["b"], clear["order_id"]) == (A, "8613900000002", "to 138-0000-0001")
    assert masked.keys() == clear.keys() and masked["x"].startswith("700")
    (line,) = relay700.objects("audit", "list", "--action", "read")
    assert (line["object"], line["reason"]) == (clear["binding_id"], "case 7")


def test_members_entries_and_contacts_are_masked_in_json_without_a_reason(relay700: Command) -> None:
    (group,) = relay700.objects("groups", "make", "riders", "--member", "13800000001")
    relay700.done("lists", "black", "business", "default", "13800000001")
    relay700.done("business", "change", "default", "--contact", "Li Lei 13800000001")
    for asked in (("groups", "show", group["id"]), ("lists", "show", "business", "default"), ("business", "list")):
        assert "138****0001" in str(relay700.objects(*asked, reason=None))
        assert "13800000001" in str(relay700.objects(*asked, reason="case 7"))
    assert len(relay700.objects("audit", "list", "--action", "read")) == 3
