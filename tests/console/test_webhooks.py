"""Pages of webhooks: dead letters are seen and sent again."""

from __future__ import annotations

from relay.store.unit_of_work import UnitOfWork
from relay.store.webhooks import dead_letter, queue_event_for
from tests.api.conftest import A, Api, Client
from tests.console.conftest import Console, text_of

URL = "https://platform.example/events?q=<b>"


async def with_dead_letters(api: Api, company: Client, count: int) -> str:
    """A webhook, with dead letters of ids "e0", "e1", …"""
    webhook_id = str((await company.post("/v1/webhooks", {"url": URL}))["id"])

    def do(unit: UnitOfWork) -> None:
        for number in range(count):
            queue_event_for(unit, webhook_id, "call.ended", f"e{number}", {"caller": A})
        found = unit.connection.execute("SELECT seq FROM outbox").fetchall()
        dead_letter(unit, [seq for (seq,) in found], "HTTP 500: <script>")

    await api.run(do)
    return webhook_id


async def dead(company: Client, webhook_id: str) -> list[str]:
    return [event["event_id"] for event in (await company.get(f"/v1/webhooks/{webhook_id}/dead"))["items"]]


async def test_one_dead_letter_is_sent_again_then_all(console: Console, api: Api, company: Client) -> None:
    webhook_id = await with_dead_letters(api, company, 3)
    browser = await console.of(company)
    page = await browser.see(f"/webhooks/{webhook_id}")
    assert "HTTP 500: &lt;script&gt;" in page and A not in page
    token = page.partition('name="csrf" value="')[2].partition('"')[0]
    resend = f"/console/webhooks/{webhook_id}/resend"
    await browser.http.post(resend, data={"csrf": token, "event": "e1"})
    assert await dead(company, webhook_id) == ["e0", "e2"]
    await browser.send(await browser.see(f"/webhooks/{webhook_id}"), f"/webhooks/{webhook_id}/resend")
    assert await dead(company, webhook_id) == []
    assert "No dead letter" in await browser.see(f"/webhooks/{webhook_id}")


async def test_a_webhook_is_disabled_enabled_and_tested(console: Console, api: Api, company: Client) -> None:
    webhook_id = await with_dead_letters(api, company, 1)
    browser = await console.of(company)
    for step, enabled in (("test", True), ("disable", False), ("enable", True)):
        page = await browser.see(f"/webhooks/{webhook_id}")
        await browser.send(page, f"/webhooks/{webhook_id}/{step}")
        assert (await company.get(f"/v1/webhooks/{webhook_id}"))["enabled"] is enabled
    assert URL.replace("<b>", "&lt;b&gt;") in await browser.see("/webhooks")


async def test_a_webhook_is_made_and_shows_its_secret_once(console: Console, company: Client) -> None:
    browser = await console.of(company)
    made = {"url": URL, "sends": "SecretReport", "parties": "none"}
    answer = await browser.send(await browser.see("/webhooks"), "/webhooks/make", **made)
    path = answer.headers["location"].removeprefix("/console")
    assert "whsec_" in await browser.see(path)
    page = await browser.see(path)
    assert "whsec_" not in page and "alibaba" in page
    (webhook,) = (await company.get("/v1/webhooks"))["items"]
    assert (webhook["format"], webhook["parties"], webhook["kinds"][0]) == ("alibaba", "none", "call.ended")
    await browser.send(await browser.see("/webhooks"), "/webhooks/make", url="http://shop.example", sends="")
    assert "write https" in await browser.see("/webhooks")


async def test_webhooks_of_others_do_not_exist(console: Console, api: Api, company: Client) -> None:
    webhook_id = await with_dead_letters(api, company, 1)
    browser = await console.of(await api.company("rival"))
    assert webhook_id not in text_of(await browser.see("/webhooks"))
    await browser.see(f"/webhooks/{webhook_id}", 404)
