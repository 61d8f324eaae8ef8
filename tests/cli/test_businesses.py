"""`relay700 business` and `keys`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relay.store.unit_of_work import OPERATOR
from tests.cli.conftest import Command
from tests.support.papers import PAPER_OPTIONS

APPLY = ("business", "apply", "acme", "--name", "快送", "--scenario", "express", *PAPER_OPTIONS)


def one(relay700: Command, *arguments: str) -> dict[str, Any]:
    (only,) = relay700.objects(*arguments)
    return only


def test_default_scenario_is_that_of_new_business_users(relay700: Command) -> None:
    assert "[default: other]" in relay700.done("business", "apply", "--help")
    assert "[default: other]" not in relay700.done("business", "change", "--help")
    relay700.done("business", "apply", "acme", "--name", "Acme")
    assert [each["scenario"] for each in relay700.objects("business", "show", "acme")] == ["other"]


def test_a_business_applies_and_is_approved(relay700: Command) -> None:
    applied = one(relay700, *APPLY, "--contact", "Li Lei, 13800000009")
    assert (applied["id"], applied["state"], applied["name"], applied["scenario"]) == (
        "acme", "applied", "快送", "express",
    )  # fmt: skip
    assert applied["modes"] == ["AXB", "AXYB", "GXB", "GXYB", "AXN"]
    assert applied["created_at"].endswith("Z")
    said = relay700.done("business", "approve", "acme", "--reason", "papers complete")
    assert said == "business user acme is approved\n"
    assert one(relay700, "business", "show", "acme")["state"] == "approved"
    assert [each["id"] for each in relay700.objects("business", "list", "--state", "approved")] == ["acme", "default"]


def test_a_contact_is_masked_and_its_reading_is_logged(relay700: Command) -> None:
    assert one(relay700, *APPLY, "--contact", "Li Lei, 13800000009")["contact"] == "Li Lei, 138****0009"
    for command in (("approve", "--reason", "x", "--json"), ("limits", "--max-cps", "9", "--json"), ("show",)):
        assert "138****0009" in relay700.done("business", command[0], "acme", *command[1:])
    assert relay700.objects("audit", "list", "--action", "read") == []
    assert one(relay700, "business", "show", "acme")["contact"] == "Li Lei, 13800000009"
    assert "13800000009" in relay700.done("business", "show", "acme", "--reveal", "--reason", "call back")
    assert relay700.objects("business", "list", "--state", "approved")[0]["contact"] == "Li Lei, 13800000009"
    read = relay700.objects("audit", "list", "--action", "read")
    assert [(entry["object"], entry["reason"]) for entry in read] == [
        ("businesses", "test"), ("business acme", "call back"), ("business acme", "test"),
    ]  # fmt: skip


def test_history_keeps_each_step_with_reason_and_actor(relay700: Command) -> None:
    relay700.done(*APPLY)
    for step in ("approve", "suspend", "resume", "revoke"):
        relay700.done("business", step, "acme", "--reason", f"to {step}")
    steps = relay700.objects("business", "history", "acme")
    assert [(step["state"], step["reason"]) for step in steps] == [
        ("applied", ""), ("approved", "to approve"), ("suspended", "to suspend"), ("approved", "to resume"),
        ("revoked", "to revoke"),
    ]  # fmt: skip
    assert all(step["by"].startswith("cli:") for step in steps)
    assert "to suspend" in relay700.done("business", "history", "acme")


def test_numbers_in_reasons_of_the_history_are_masked(relay700: Command) -> None:
    relay700.done(*APPLY)
    relay700.done("business", "approve", "acme", "--reason", "asked 138-0000-0009 on 2026-01-31")
    *_, approved = relay700.objects("business", "history", "acme")
    assert approved["reason"] == "asked 138****0009 on 2026-01-31"
    assert "138-0000-0009" not in relay700.done("business", "history", "acme")


def test_an_invalid_step_is_refused_in_one_line(relay700: Command) -> None:
    relay700.done(*APPLY)
    assert relay700.refused("business", "suspend", "acme", "--reason", "x").startswith(
        "state: the business user is applied"
    )
    assert relay700.refused("business", "show", "nobody").startswith("there is no such business user")
    assert relay700.refused("business", "history", "nobody").startswith("there is no such business user")
    assert "another" in relay700.refused(*APPLY)


def test_approval_needs_all_details_of_the_scenario(relay700: Command) -> None:
    relay700.done("business", "apply", "acme", "--name", "Acme", "--scenario", "ride_hailing")
    refused = relay700.refused("business", "approve", "acme", "--reason", "x")
    assert all(f"{field}: " in refused for field in ("licence", "application", "scheme", "contact"))
    assert "网络预约出租汽车经营许可证" in refused and "relay700 business change" in refused


def test_a_change_of_the_qualification_stops_calls_and_is_reported(relay700: Command) -> None:
    relay700.done(*APPLY)
    relay700.done("business", "approve", "acme", "--reason", "x")
    assert relay700.refused("business", "change", "acme", "--licence", "L-2").startswith("reason: required")
    done = relay700.run("business", "change", "acme", "--licence", "L-2", "--reason", "a new permit")
    assert done.exit_code == 0 and "state" in done.stdout
    assert (
        done.stderr.startswith("acme is applied again: its new calls are refused")
        and "business approve acme" in done.stderr
    )
    relay700.done("business", "change", "acme", "--contact", "Li Lei 13800000009")
    *_, licence, contact = relay700.objects("business", "history", "acme")
    assert (licence["state"], licence["version"], licence["reason"]) == ("applied", 3, "a new permit")
    assert licence["changed"] == [{"field": "licence", "before": "L-1", "after": "L-2"}]
    assert contact["changed"][0]["after"] == "Li Lei 138****0009"
    assert "licence: L-1 -> L-2" in relay700.done("business", "history", "acme")


def test_a_step_needs_a_reason(relay700: Command, usage: Callable[..., str]) -> None:
    relay700.done(*APPLY)
    assert "--reason" in usage("business", "approve", "acme")
    assert relay700.run("business", "approve", "acme", reason="told so by the environment").exit_code == 0
    assert relay700.objects("business", "history", "acme")[-1]["reason"] == "told so by the environment"


def test_limits_are_set_and_cleared(relay700: Command, usage: Callable[..., str]) -> None:
    relay700.done(*APPLY)
    limits = ("--max-bindings", "10", "--max-cps", "5", "--mode", "AXB", "--hours", "08:00-22:00", "--white-only")
    changed = one(relay700, "business", "limits", "acme", *limits)
    assert (changed["max_bindings"], changed["max_calls"], changed["max_cps"]) == (10, None, 5)
    assert (changed["modes"], changed["hours"], changed["white_only"]) == (["AXB"], "08:00-22:00", True)
    freed = one(relay700, "business", "limits", "acme", "--max-bindings", "none", "--hours", "none", "--all-callers")
    assert (freed["max_bindings"], freed["max_cps"], freed["hours"], freed["white_only"]) == ("none", 5, None, False)
    quotas = ("--max-bindings", "default", "--max-binds-per-s", "7", "--max-binds-per-day", "none")
    raised = one(relay700, "business", "limits", "acme", *quotas)
    assert [raised[name] for name in ("max_bindings", "max_binds_per_s", "max_binds_per_day")] == [None, 7, "none"]
    assert 'write one, or "none"' in usage("business", "limits", "acme", "--max-cps", "many")


def test_the_language_of_announcements_is_set_and_cleared(relay700: Command, usage: Callable[..., str]) -> None:
    relay700.done(*APPLY)
    assert one(relay700, "business", "show", "acme")["language"] is None
    assert one(relay700, "business", "change", "acme", "--language", "en")["language"] == "en"
    assert one(relay700, "business", "change", "acme", "--language", "none")["language"] is None
    assert "'zh', 'en', 'none'" in usage("business", "change", "acme", "--language", "de")


def test_details_of_a_business_are_changed(relay700: Command) -> None:
    relay700.done(*APPLY)
    changed = one(relay700, "business", "change", "acme", "--name", "Acme", "--scheme", "s-2")
    assert (changed["name"], changed["scheme"], changed["licence"], changed["version"]) == (
        "Acme",
        "s-2",
        "L-1",
        2,
    )


def test_none_removes_a_detail_but_not_the_name(relay700: Command) -> None:
    relay700.done(*APPLY)
    removed = one(relay700, "business", "change", "acme", "--contact", "none", "--scheme", "none")
    assert (removed["contact"], removed["scheme"], removed["licence"]) == ("", "", "L-1")
    assert relay700.refused("business", "change", "acme", "--name", "none") == "name: required"
    assert one(relay700, "business", "apply", "other", "--name", "Other", "--licence", "none")["licence"] == ""


def test_a_key_shows_its_secret_once(relay700: Command) -> None:
    relay700.done(*APPLY)
    made = one(relay700, "keys", "make", "--business", "acme", "--expires-in", "90d")
    assert made["secret"].startswith(f"rk_{made['id']}_")
    assert "bindings:write" in made["scopes"] and "parties:read" not in made["scopes"]
    listed = relay700.done("keys", "list", "--business", "acme", "--json")
    assert made["id"] in listed and made["secret"] not in listed and "signing_key" not in listed
    assert relay700.objects("keys", "list", "--business", "default") == []


def test_an_operators_key_has_all_scopes_but_real_numbers(relay700: Command) -> None:
    made = one(relay700, "keys", "make", "--operator")
    assert made["business"] is None and set(made["scopes"]) == OPERATOR - {"parties:read", "trace"}
    assert one(relay700, "keys", "make", "--operator", "--scope", "trace")["scopes"] == ["trace"]
    more = one(relay700, "keys", "make", "--operator", "--also", "parties:read", "--also", "trace")
    assert set(more["scopes"]) == OPERATOR


def test_the_help_lists_all_scopes(relay700: Command) -> None:
    words = relay700.done("keys", "make", "--help").replace("\n", "").replace(" ", "")
    assert "|".join(sorted(OPERATOR)) in words


def test_a_key_needs_a_business_or_operator(usage: Callable[..., str]) -> None:
    for whose in ((), ("--operator", "--business", "default")):
        assert "give either --business ID or --operator" in usage("keys", "make", *whose)


def test_keys_are_rotated_and_revoked(relay700: Command) -> None:
    made = one(relay700, "keys", "make", "--business", "default")
    rotated = one(relay700, "keys", "rotate", made["id"], "--overlap", "1h")
    assert rotated["id"] != made["id"] and rotated["scopes"] == made["scopes"]
    assert relay700.done("keys", "revoke", rotated["id"], "--reason", "lost") == f"revoked {rotated['id']}\n"
    assert relay700.refused("keys", "revoke", rotated["id"]) == "key: already revoked or expired: make a new one"
    ended = {key["id"]: (key["expires_at"], key["revoked_at"]) for key in relay700.objects("keys", "list")}
    assert ended[made["id"]][0] is not None and ended[rotated["id"]][1] is not None
