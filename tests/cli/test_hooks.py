"""`relay700 hooks`."""

from __future__ import annotations

from tests.cli.conftest import Command

URL = "https://shop.example/hook"


def test_hooks_must_be_configured(relay700: Command) -> None:
    assert "an operator adds [hooks]" in relay700.refused("hooks", "set", URL)


def test_a_hook_is_set_shown_changed_and_removed(relay700: Command) -> None:
    config = relay700.folder / "relay.toml"
    without = config.read_text()
    config.write_text(without + "[hooks]\n")
    assert relay700.refused("hooks", "set", "--unknown").startswith("url: required")
    assert relay700.refused("hooks", "show") == "this business user has no hook"
    (made,) = relay700.objects("hooks", "set", URL, "--parties", "none")
    assert made.pop("secret").startswith("whsec_")
    (shown,) = relay700.objects("hooks", "show")
    assert shown == made
    assert (shown["url"], shown["parties"], shown["unknown_callers"], shown["disabled_at"]) == (
        URL,
        "none",
        False,
        None,
    )
    (changed,) = relay700.objects("hooks", "set", "--unknown", "--disabled")
    assert "secret" not in changed
    assert (changed["url"], changed["parties"], changed["unknown_callers"]) == (URL, "none", True)
    assert changed["disabled_at"] is not None
    config.write_text(without)
    (enabled,) = relay700.objects("hooks", "set", "--disabled")  # switching it off needs no configuration
    assert enabled["disabled_at"] == changed["disabled_at"]
    assert "removed" in relay700.done("hooks", "remove")
    assert relay700.refused("hooks", "remove") == "this business user has no hook"
