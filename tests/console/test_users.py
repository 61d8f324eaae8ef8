"""The page of users."""

from __future__ import annotations

from tests.api.conftest import Client
from tests.console.conftest import Console


async def test_a_user_is_added_reset_demoted_and_disabled(console: Console, operator: Client) -> None:
    browser = await console.of(operator)
    for name in ("li.na", "wang"):
        shown = await browser.send(await browser.see("/users"), "/users/add", name=name, role="operator")
        assert shown.status_code == 200 and "otpauth://totp/relay700:" in shown.text
    reset = await browser.send(await browser.see("/users"), "/users/li.na/reset")
    assert "otpauth://" in reset.text
    await browser.send(await browser.see("/users"), "/users/li.na/role", role="auditor")
    assert "The role is changed." in await browser.see("/users")
    await browser.send(await browser.see("/users"), "/users/wang/disable", reason="left")
    assert "wang is the last operator" in await browser.see("/users")
    await browser.send(await browser.see("/users"), "/users/li.na/disable", reason="left")
    assert "The user is disabled." in await browser.see("/users")


async def test_a_bad_name_is_named(console: Console, operator: Client) -> None:
    browser = await console.of(operator)
    await browser.send(await browser.see("/users"), "/users/add", name="13800000001", role="operator")
    assert "must be 2 to 32 of a-z" in await browser.see("/users")
