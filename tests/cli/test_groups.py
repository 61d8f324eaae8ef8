"""`relay700 groups` and `lists`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.support.stored import X


@pytest.fixture
def group(relay700: Command) -> dict[str, Any]:
    (made,) = relay700.objects("groups", "make", "riders of the east", "--member", "13800000001")
    return made


def test_a_group_is_made_and_listed(relay700: Command, group: dict[str, Any]) -> None:
    assert (group["name"], group["business"]) == ("riders of the east", "default")
    (listed,) = relay700.objects("groups", "list", "--business", "default")
    assert (listed["id"], listed["size"]) == (group["id"], 1)
    assert "riders of the east" in relay700.done("groups", "list")


def test_members_are_added_and_removed(relay700: Command, group: dict[str, Any]) -> None:
    assert relay700.done("groups", "add", group["id"], "138 0000 0002", "+86 138 0000 0001") == "1 added\n"
    members = "13800000003\n\n13800000004\n"
    assert relay700.run("groups", "import", group["id"], "-", input=members).stdout == "2 added\n"
    assert relay700.done("groups", "remove", group["id"], "13800000002", "13800000009") == "1 removed\n"
    (shown,) = relay700.objects("groups", "show", group["id"])
    assert sorted(shown["members"]) == ["8613800000001", "8613800000003", "8613800000004"]


def test_a_file_of_members_in_another_encoding_is_refused(relay700: Command, group: dict[str, Any]) -> None:
    file = relay700.folder / "members.txt"
    file.write_bytes("13800000003\n张三\n".encode("gbk"))
    result = relay700.run("groups", "import", group["id"], str(file))
    assert (result.exit_code, result.stdout) == (1, "0 added\n")
    assert result.stderr.startswith("line 2: not a number")


def test_members_that_were_added_before_a_fault_are_counted(relay700: Command, group: dict[str, Any]) -> None:
    members = "".join(f"1370000{n:04d}\n" for n in range(300)) + "12\n" + "13600000001\n"
    result = relay700.run("groups", "import", group["id"], "-", input=members)
    assert (result.exit_code, result.stdout) == (1, "200 added\n")
    assert result.stderr == "line 301: a number has 3 to 15 digits\n"
    (shown,) = relay700.objects("groups", "list")
    assert shown["size"] == 201


def test_members_are_masked_and_their_reading_is_logged(relay700: Command, group: dict[str, Any]) -> None:
    assert "138****0001" in relay700.done("groups", "show", group["id"])
    assert relay700.objects("audit", "list", "--action", "read") == []
    assert "8613800000001" in relay700.done("groups", "show", group["id"], "--reveal", "--reason", "case 7")
    (entry,) = relay700.objects("audit", "list", "--action", "read")
    assert (entry["object"], entry["reason"]) == (f"group {group['id']}", "case 7")


def test_a_number_in_the_name_of_a_group_is_masked(relay700: Command) -> None:
    (made,) = relay700.objects("groups", "make", "riders of 139-0000-0002", reason=None)
    for command in (("list",), ("show", made["id"])):
        assert "riders of 139****0002" in relay700.done("groups", *command)
    assert "riders of 139-0000-0002" in relay700.done("groups", "show", made["id"], "--reveal", "--reason", "case 7")


def test_a_group_is_deleted_once_no_binding_uses_it(relay700: Command, group: dict[str, Any]) -> None:
    (made,) = relay700.objects("bind", "GXB", "--group", group["id"], "--b", "13900000002", "--x", X)
    assert "end them first" in relay700.refused("groups", "delete", group["id"])
    relay700.done("unbind", made["binding_id"])
    assert relay700.done("groups", "delete", group["id"]) == f"deleted {group['id']}\n"
    assert relay700.refused("groups", "show", group["id"]).startswith("there is no such group")


def test_callers_are_listed_and_unlisted(relay700: Command) -> None:
    relay700.done("bindings", "import", "-", input="")
    assert relay700.done("lists", "black", "business", "default", "13800000001") == "on the blacklist of default\n"
    relay700.done("lists", "white", "business", "default", "13800000002")
    shown = relay700.objects("lists", "show", "business", "default")
    assert sorted((entry["kind"], entry["number"]) for entry in shown) == [
        ("black", "8613800000001"), ("white", "8613800000002"),
    ]  # fmt: skip
    assert "138****0001" in relay700.done("lists", "show", "business", "default")
    relay700.done("lists", "remove", "business", "default", "138-0000-0001")
    assert len(relay700.objects("lists", "show", "business", "default")) == 1
    for action in ("list.black", "list.remove"):
        (entry,) = relay700.objects("audit", "list", "--action", action)
        assert (entry["object"], entry["details"]) == ("default", {"number": "138****0001"})
    assert relay700.refused("lists", "black", "binding", "none", "8001").startswith("binding: there is no such binding")
