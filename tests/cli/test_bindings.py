"""`relay700 bind`, `unbind` and `bindings`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from relay.model.call import Route
from relay.model.outcomes import NO_CALLEE
from relay.policy.call_policy import CallPolicy
from relay.policy.rules import Rules
from relay.store.database import open_store
from relay.store.sqlite.lookup import RouteReader
from relay.store.writer import now_ms
from tests.cli.conftest import Command
from tests.support.stored import PBX, PREFIX, A, B, X, Y

ENDS = ("--expires-in", "2h")
AB = ("--a", "13800000001", "--b", "+86 139-0000-0002", *ENDS)


def route(relay700: Command, number: str, caller: str) -> object:
    path, key_file = relay700.store
    rules = Rules(parties=PBX)
    with closing(RouteReader(path, open_store(path, key_file), rules, lambda *_: None)) as reader:
        return CallPolicy(reader.fetch, rules, lambda last: None).look_up(number, caller, now_ms() / 1000)


def test_bind_prints_what_to_dial_and_a_call_finds_the_binding(relay700: Command) -> None:
    said = relay700.done("bind", "AXB", *AB, "--x", X, "--order", "17").splitlines()
    assert said[1:] == [f"138****0001 and 139****0002 dial {X} to reach each other"]
    binding_id = said[0].removeprefix("binding ")
    assert route(relay700, X, A) == Route(binding_id, "AXB", "default", "17", B, X, direction="a_to_b", qualification=1)


def test_bind_prints_its_number_even_if_the_anchor_cannot_be_written(relay700: Command) -> None:
    anchor = relay700.store[0].with_name("relay.db.anchor")
    anchor.with_name(f"{anchor.name}.{threading.get_native_id()}.new").mkdir()  # it is written there first
    done = relay700.run("bind", "AXB", *AB, "--x", X)
    assert (done.exit_code, done.stderr) == (0, f"warning: {anchor} cannot be written: Is a directory\n")
    assert X in done.stdout


def test_bind_says_that_a_binding_has_no_end(relay700: Command) -> None:
    made = relay700.run("bind", "AXB", *AB[:4])
    binding_id = made.stdout.split()[1]
    assert made.stderr == f"it has no end: end it by `relay700 unbind {binding_id}`, or bind with --expires-in\n"
    for ends in (ENDS, ("--idle-ttl", "600")):
        relay700.done("bind", "AXB", *AB[:4], *ends)


def test_bind_axyb_prints_who_dials_which_number(relay700: Command) -> None:
    said = relay700.done("bind", "AXYB", *AB, "--x", X, "--y", Y).splitlines()
    assert said[1:] == [f"138****0001 dials {X} to reach 139****0002", f"139****0002 dials {Y} to reach 138****0001"]


def test_bind_prints_the_binding_as_json(relay700: Command) -> None:
    (made,) = relay700.objects("bind", "AXB", *AB, "--expires-in", "2h")
    assert list(made) == [
        *("binding_id", "mode", "business", "order_id", "x", "y", "a", "b"),
        *("created_at", "expires_at", "ended_at", "group_id", "pool", "direction", "max_call_s", "ring_timeout_s"),
        *("white_only", "hours", "consent", "user_data", "created_by", "changed_at", "changed_by", "released_at"),
        *("version", "ended_by", "record", "industrial_id", "idle_ttl_s", "max_expires_at", "state"),
    ]
    assert (made["a"], made["b"], made["business"], made["order_id"]) == (A, B, "default", None)
    assert (made["y"], made["ended_at"], made["state"]) == (None, None, "live")
    assert made["x"].startswith(PREFIX)
    assert made["expires_at"] > made["created_at"]
    assert relay700.objects("bindings", "show", made["binding_id"]) == [made]
    assert relay700.objects("bindings", "list") == [made]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bind", "AXB", "--a", "8001", "--b", "8001"), "b: must differ from a: a binding joins two parties"),
        (
            ("bind", "AXB", "--a", "13800000001", "--b", "95588"),
            "b: it is an emergency, service or operator number: a party is a mobile number (11 digits of an assigned "
            "range) or an extension of a configured range",
        ),
        (
            ("bind", "AXB", "--a", "95588", "--b", "95588"),
            "; ".join(
                f"{field}: it is an emergency, service or operator number: a party is a mobile number (11 digits of "
                "an assigned range) or an extension of a configured range"
                for field in ("a", "b")
            ),
        ),
        (("unbind", "none"), "binding: there is no such binding: see the list of bindings"),
        (("bindings", "show", "none"), "there is no such binding: `relay700 bindings list` shows them"),
    ],
)
def test_a_refusal_is_one_line_and_status_1(relay700: Command, arguments: tuple[str, ...], said: str) -> None:
    relay700.done("bind", "AXB", "--a", "8003", "--b", "8004", *ENDS)
    assert relay700.refused(*arguments) == said


def test_wrong_usage_is_status_2(usage: Callable[..., str]) -> None:
    assert "'--b'" in usage("bind", "AXB", "--a", "8001")
    assert "'--group'" in usage("bind", "GXB", "--b", "8001")
    assert "'--a'" in usage("bind", "AXN")
    assert "AXYB" in usage("bind", "AYB", *AB)
    assert "'--number': not a number" in usage("bindings", "list", "--number", "x")


def test_party_a_comes_later(relay700: Command) -> None:
    said = relay700.done(
        "bind", "AXB", "--b", "13900000002", "--x", X, "--late", "--area", "bj", "--area-match", "loose", *ENDS
    )
    first, who = said.splitlines()
    assert (
        who == f"nobody reaches 139****0002 yet: give a by bindings change; a will dial {X}, and 139****0002 dials {X}"
    )
    assert route(relay700, X, B) == NO_CALLEE._replace(
        binding_id=first.removeprefix("binding "), mode="AXB", business="default", qualification=1
    )
    relay700.done("bindings", "change", first.removeprefix("binding "), "--a", "13800000001")
    assert isinstance(route(relay700, X, B), Route)


def test_bind_of_a_group_prints_who_reaches_whom(relay700: Command) -> None:
    (group,) = relay700.objects("groups", "make", "riders", "--member", "8001", "--member", "8002")
    options = ("--group", group["id"], "--b", "139 0000 0002", "--x", X, *ENDS)
    assert relay700.done("bind", "GXB", *options).splitlines()[1:] == [
        f"members of {group['id']} dial {X} to reach 139****0002",
        f"139****0002 dials {X} to reach the member who called last",
    ]
    options = ("--group", group["id"], "--b", "139 0000 0003", "--a", "8003", "--x", PREFIX + "0005", "--y", Y, *ENDS)
    said = relay700.done("bind", "GXYB", *options).splitlines()
    assert said[2] == f"139****0003 dials {Y} to reach the member who called last, else ****"
    assert isinstance(route(relay700, X, "8002"), Route)


def test_bind_axn_prints_who_reaches_whom(relay700: Command) -> None:
    assert relay700.done("bind", "AXN", "--a", "13800000001", "--x", X, *ENDS).splitlines()[1:] == [
        f"anybody dials {X} to reach 138****0001",
        f"138****0001 dials {X} to reach who called last",
    ]


def test_a_binding_is_changed_from_the_next_call_on(relay700: Command) -> None:
    (made,) = relay700.objects("bind", "AXB", *AB, "--x", X, "--user-data", "u1", "--direction", "a_to_b")
    shown = relay700.done("bindings", "change", made["binding_id"], "--b", "13900000003", "--user-data", "none")
    assert "139****0003" in shown
    found = route(relay700, X, A)
    assert isinstance(found, Route) and found.callee == "8613900000003"
    assert not isinstance(route(relay700, X, B), Route)
    (changed,) = relay700.objects("bindings", "list")
    assert (changed["user_data"], changed["direction"], changed["version"]) == (None, "a_to_b", 2)
    assert changed["changed_by"].startswith("cli:")
    (again,) = relay700.objects("bindings", "change", made["binding_id"], "--direction", "both", reason=None)
    assert (again["direction"], again["b"]) == ("both", "139****0003")


def test_history_lists_who_made_changed_and_ended_a_binding(relay700: Command) -> None:
    (made,) = relay700.objects("bind", "AXB", *AB)
    relay700.done("bindings", "change", made["binding_id"], "--b", "13900000003", "--max-call", "600")
    relay700.done("unbind", made["binding_id"])
    steps = relay700.objects("bindings", "history", made["binding_id"])
    assert [(step["action"], step["changed"]) for step in steps] == [
        ("made", []),
        ("changed", ["b", "max_call_s"]),
        ("ended", []),
    ]
    assert {step["by"] for step in steps} == {made["created_by"]}
    assert "b max_call_s" in relay700.done("bindings", "history", made["binding_id"])
    assert "there is no such binding" in relay700.refused("bindings", "history", "none")


def test_orders_are_handed_over_to_another_a(relay700: Command, tmp_path: Path) -> None:
    relay700.done("bind", "AXB", *AB, "--x", X, "--order", "SF1")
    orders = tmp_path / "orders"
    orders.write_text("SF1\n\nSF2\n")
    said = relay700.run(
        "bindings", "hand-over", "--from", "13800000001", "--to", "13700000003", "--orders", str(orders)
    )
    assert (said.exit_code, said.stdout) == (1, "1 handed over, 1 refused\n")
    assert said.stderr.startswith("SF2: order_ids: this order has no live binding")
    assert isinstance(route(relay700, X, "8613700000003"), Route)
    orders.write_text("\ufeffSF1\n")  # as Excel writes UTF-8
    assert (
        relay700.done("bindings", "hand-over", "--to", "none", "--orders", str(orders)) == "1 handed over, 0 refused\n"
    )
    orders.write_bytes("SF1\n\n单号\n".encode("gbk"))
    said = relay700.refused("bindings", "hand-over", "--to", "none", "--orders", str(orders))
    assert said.startswith("line 3: must be printable text")
    (done,) = relay700.objects("bindings", "hand-over", "--order", "SF1", "--to", "none")
    assert (done["order_id"], done["refused"]) == ("SF1", None)
    assert "'--from'" in relay700.run("bindings", "hand-over", "--to", "none").stderr


def test_a_binding_ends_some_time_after_its_last_call(relay700: Command) -> None:
    (made,) = relay700.objects("bind", "AXB", *AB, "--idle-ttl", "600", "--expires-in", "2h")
    assert made["created_at"] < made["expires_at"] < made["max_expires_at"]
    (changed,) = relay700.objects("bindings", "change", made["binding_id"], "--idle-ttl", "none")
    assert (changed["idle_ttl_s"], changed["expires_at"]) == (None, made["max_expires_at"])


def test_a_binding_is_renewed(relay700: Command) -> None:
    (made,) = relay700.objects("bind", "AXB", *AB, "--expires-in", "1h")
    said = relay700.done("bindings", "renew", made["binding_id"], "--expires-at", "2099-01-01T00:00:00Z")
    assert said == f"{made['binding_id']} expires 2099-01-01T00:00:00.000Z\n"
    (renewed,) = relay700.objects("bindings", "renew", made["binding_id"], "--expires-in", "2h", reason=None)
    assert (renewed["version"], renewed["a"]) == (3, "138****0001")
    relay700.done("bindings", "change", made["binding_id"], "--expires-in", "none")
    (changed,) = relay700.objects("bindings", "list")
    assert changed["expires_at"] is None
    relay700.done("bindings", "change", made["binding_id"], "--idle-ttl", "60")
    said = relay700.done("bindings", "renew", made["binding_id"], "--expires-at", "2099-01-01T00:00:00Z")
    assert said.endswith(", at the latest 2099-01-01T00:00:00.000Z\n") and not said.split()[2].startswith("2099")


@pytest.mark.parametrize("order", ["13800000001", "for 138-0000 0001"])
def test_numbers_in_texts_of_business_users_are_masked(relay700: Command, order: str) -> None:
    (made,) = relay700.objects("bind", "AXB", *AB, "--order", order, "--user-data", order, "--consent", order)
    for command in (("list",), ("show", made["binding_id"])):
        said = relay700.done("bindings", *command)
        assert order not in said
        assert "138****0001" in said
        assert order in relay700.done("bindings", *command, "--reveal", "--reason", "asked")
    (changed,) = relay700.objects("bindings", "change", made["binding_id"], "--max-call", "600", reason=None)
    assert order not in (changed["order_id"], changed["user_data"])
    (done,) = relay700.objects("bindings", "hand-over", "--from", A, "--to", "13700000003", reason=None)
    assert (done["binding_id"], "138****0001" in done["order_id"]) == (made["binding_id"], True)
    (done,) = relay700.objects("bindings", "hand-over", "--order", order, "--to", "none", reason=None)
    assert done["order_id"] == order  # as it was given


def test_an_industrial_id_is_bound_shown_and_changed(relay700: Command) -> None:
    (made,) = relay700.objects("bind", "AXB", *AB, "--industrial-id", "88.101.1/7")
    assert made["industrial_id"] == "88.101.1/7"
    binding_id = made["binding_id"]
    assert "industrial_id  88.101.1/7" in relay700.done("bindings", "show", binding_id)
    relay700.done("bindings", "change", binding_id, "--industrial-id", "none")
    assert relay700.objects("bindings", "show", binding_id)[0]["industrial_id"] is None


def test_bindings_are_listed_by_order_business_and_mode(relay700: Command) -> None:
    relay700.done("bind", "AXB", *AB, "--order", "17")
    relay700.done("bind", "AXN", "--a", "8001", "--order", "18", *ENDS)
    for choice, count in [
        (("--order", "17"), 1), (("--order", "19"), 0), (("--business", "default"), 2), (("--mode", "AXN"), 1),
        (("--order", "17", "--number", "8001"), 0), (("--order", "18", "--number", "8001", "--live"), 1),
    ]:  # fmt: skip
        assert len(relay700.objects("bindings", "list", *choice)) == count, choice


def test_bindings_are_listed_by_group_state_and_time(relay700: Command) -> None:
    (group,) = relay700.objects("groups", "make", "riders", "--member", "8003")
    relay700.done("bind", "GXB", "--group", group["id"], "--b", "8001", *ENDS)
    (ended,) = relay700.objects("bind", "AXB", *AB)
    relay700.done("unbind", ended["binding_id"])
    for choice, count in [
        (("--group", group["id"]), 1), (("--group", "none"), 0), (("--state", "live"), 1), (("--state", "ended"), 1),
        (("--state", "expired"), 0), (("--since", "1h"), 2), (("--since", "2099-01-01T00:00:00Z"), 0),
    ]:  # fmt: skip
        assert len(relay700.objects("bindings", "list", *choice)) == count, choice


def test_the_reason_of_an_unbind_is_in_the_audit_log(relay700: Command) -> None:
    (made,) = relay700.objects("bind", "AXB", *AB)
    relay700.done("unbind", made["binding_id"], "--reason", "order cancelled")
    (entry,) = relay700.objects("audit", "list", "--action", "binding.end")
    assert (entry["object"], entry["reason"]) == (made["binding_id"], "order cancelled")


def test_each_reading_of_real_numbers_is_in_the_audit_log(relay700: Command) -> None:
    relay700.done("bind", "AXB", *AB)
    relay700.done("bindings", "list")
    assert relay700.objects("audit", "list", "--action", "read") == []
    relay700.done("bindings", "list", "--reveal", "--reason", "case 7")
    relay700.objects("bindings", "list", "--number", "13800000001")
    read = relay700.objects("audit", "list", "--action", "read")
    assert [(entry["object"], entry["reason"]) for entry in read] == [("bindings", "test"), ("bindings", "case 7")]
    assert read[0]["details"] == {"number": "138****0001"}


def test_unbind_takes_effect_with_the_next_call_and_keeps_the_binding(relay700: Command) -> None:
    (made,) = relay700.objects("bind", "AXB", *AB, "--x", X)
    assert isinstance(route(relay700, X, A), Route)
    assert relay700.done("unbind", made["binding_id"]) == f"unbound {made['binding_id']}\n"
    assert not isinstance(route(relay700, X, A), Route)
    (ended,) = relay700.objects("bindings", "list")
    assert ended["state"] == "ended" and ended["ended_at"] is not None
    assert relay700.objects("bindings", "list", "--live") == []
    assert relay700.refused("unbind", made["binding_id"]) == "binding: already unbound"


def test_tables_mask_real_numbers_without_reveal(relay700: Command) -> None:
    (made,) = relay700.objects("bind", "AXB", *AB, "--x", X)
    for command in (("bindings", "list"), ("bindings", "show", made["binding_id"])):
        masked = relay700.done(*command)
        assert "138****0001" in masked and X in masked and A[2:] not in masked
        assert A in relay700.done(*command, "--reveal", "--reason", "case 7")


def test_bindings_are_listed_by_number_in_any_notation(relay700: Command) -> None:
    relay700.done("bind", "AXB", *AB, "--x", X)
    relay700.done("bind", "AXB", "--a", "8001", "--b", "8002", "--x", X, *ENDS)
    for number, count in [("138-0000-0001", 1), ("0086" + X, 2), ("8002", 1), ("8003", 0)]:
        assert len(relay700.objects("bindings", "list", "--number", number)) == count


def test_import_reports_bad_lines_and_binds_the_others(relay700: Command) -> None:
    file = relay700.folder / "bindings.csv"
    file.write_bytes(
        b"\xef\xbb\xbfmode,x,y,a,b,expires_in,order_id,business\nAXB,,,8001,8002,2h,,\nAXB,,,8001,\xff,,,\n"
    )
    result = relay700.run("bindings", "import", str(file))
    assert (result.exit_code, result.stdout) == (1, "1 imported, 1 refused\n")
    assert result.stderr.startswith("line 3: b: not a number")
    assert relay700.run("bindings", "import", "-", input="mode,a,b,a\nAXB,8005,8006,8007\n").exit_code == 1
    assert len(relay700.objects("bindings", "list")) == 1


def test_import_of_good_lines_is_status_0(relay700: Command) -> None:
    text = "".join(f"AXB,{PREFIX}{n:04d},,8001,8002,,,\n" for n in range(50))
    assert relay700.done("bindings", "import", "-", input=text) == "50 imported, 0 refused\n"


def test_import_refuses_unknown_columns(relay700: Command, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("mode,a,b,until\n")
    assert "unknown column 'until'" in relay700.refused("bindings", "import", str(tmp_path / "x.csv"))


def test_a_key_file_open_to_others_is_a_one_line_error(relay700: Command) -> None:
    relay700.done("bind", "AXB", *AB)
    relay700.store[1].chmod(0o644)
    assert f"chmod 600 {relay700.store[1]}" in relay700.refused("bind", "AXB", *AB)


def test_calls_are_recorded_only_with_a_spool(relay700: Command, tmp_path: Path) -> None:
    assert relay700.refused("bind", "AXB", *AB, "--record").startswith(
        "record: must be false: call recording is not configured"
    )
    media = '[media]\nmode = "rtpengine"\nrtpengine = "udp:127.0.0.1:2223"\n[recording]\nspool = "spool"\n'
    with (relay700.folder / "relay.toml").open("a") as config:
        config.write(media)
    (made,) = relay700.objects("bind", "AXB", *AB, "--record")
    assert made["record"] is True
    (changed,) = relay700.objects("bindings", "change", made["binding_id"], "--no-record")
    assert changed["record"] is False
