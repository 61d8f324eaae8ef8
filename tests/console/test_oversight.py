"""Pages of the audit log and of bans."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

from relay.defence.bans import Bans
from relay.model.settings import Limits
from relay.net.control import BanAnswers
from relay.store.database import connect
from tests.api.conftest import Api, Client
from tests.console.conftest import Console, text_of

Relay = dict[str, Callable[..., Any]]


async def test_the_audit_log_is_searched_and_verified(
    console: Console, api: Api, company: Client, operator: Client
) -> None:
    browser = await console.of(operator)
    page = await browser.see("/audit?action=key.make")
    assert "key.make" in page and "business.approve" not in text_of(page)
    await browser.send(page, "/audit/verify")
    assert "The audit log is intact" in await browser.see("/audit")
    with closing(connect(api.backend.path)) as thief:
        thief.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 2")
    await browser.send(page, "/audit/verify")
    assert "The audit log was altered: entry 2" in text_of(await browser.see("/audit"))


async def test_detail_without_a_value_is_a_dash(console: Console, api: Api, operator: Client) -> None:
    await api.run(lambda unit: unit.audit("test", "it", details={"expires_at": None, "scopes": ["a", "b"]}))
    text = text_of(await (await console.of(operator)).see("/audit?action=test"))
    assert "expires_at –" in text and "scopes a, b" in text and "None" not in text


async def test_an_address_is_banned_and_the_ban_lifted(console: Console, operator: Client, relay: Relay) -> None:
    relay |= BanAnswers(Bans(Limits())).by_name()
    browser = await console.of(operator)
    page = await browser.see("/bans")
    assert "Nobody is banned" in page
    await browser.send(page, "/bans/add", address="2001:db8::/64", hours="1.5")
    page = await browser.see("/bans")
    assert "2001:db8::/64" in page
    await browser.send(page, "/bans/add", address="192.0.2.1", hours="soon")
    page = await browser.see("/bans")
    assert "must be more than 0" in text_of(page)
    token = page.partition('name="csrf" value="')[2].partition('"')[0]
    await browser.http.post("/console/bans/lift", data={"csrf": token, "address": "2001:db8::/64", "reason": "known"})
    assert "Nobody is banned" in await browser.see("/bans")
    actions = [(line["action"], line["object"]) for line in (await operator.get("/v1/audit"))["items"]]
    assert actions[:2] == [("ban.lift", "2001:db8::"), ("ban.add", "2001:db8::/64")]


async def test_a_business_user_has_neither(console: Console, company: Client) -> None:
    browser = await console.of(company)
    for path in ("/audit", "/bans"):
        await browser.see(path, 403)
