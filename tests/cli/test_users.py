"""`relay700 users`."""

from __future__ import annotations

from tests.cli.conftest import Command


def test_users_are_added_with_secrets_shown_once(relay700: Command) -> None:
    made = relay700.objects("users", "add", "li.na", "--role", "operator", "--json")[0]
    assert made["password"] and made["code_uri"].startswith("otpauth://totp/relay700:li.na?secret=")
    listed = relay700.done("users", "list", "--json")
    assert "li.na" in listed and made["password"] not in listed and "otpauth" not in listed


def test_the_last_operator_is_neither_disabled_nor_demoted(relay700: Command) -> None:
    relay700.done("users", "add", "li.na", "--role", "operator")
    text = "name: li.na is the last operator: add another one first"
    assert relay700.refused("users", "disable", "li.na") == text
    relay700.done("users", "add", "wang", "--role", "operator")
    assert relay700.done("users", "role", "li.na", "auditor") == "li.na has the role auditor\n"
    assert relay700.done("users", "disable", "li.na", "--reason", "left") == "disabled li.na\n"
    assert relay700.objects("users", "reset", "li.na", "--json")[0]["disabled_at"] is None
    assert relay700.refused("users", "reset", "nobody").endswith("`relay700 users list` shows them")
    actions = [(each["action"], each["object"]) for each in relay700.objects("audit", "list", "--object", "li.na")]
    assert [action for action, _ in actions] == ["user.reset", "user.disable", "user.role", "user.add"]


def test_the_audit_log_names_a_key(relay700: Command) -> None:
    key = relay700.objects("keys", "make", "--operator", "--name", "courier app", "--json")[0]
    assert key["name"] == "courier app"
    assert relay700.objects("keys", "list")[0]["name"] == "courier app"
    text = "name: must not contain a phone number: the audit log shows it"
    assert relay700.refused("keys", "make", "--operator", "--name", "Li 13800000001") == text
