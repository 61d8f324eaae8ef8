"""Pages of business users: the steps from application to revocation, keys, lists, history."""

from __future__ import annotations

from datetime import datetime

import pytest

from relay.service.complaints import ComplaintRate
from relay.service.fields import CHINA
from relay.store.writer import now_ms
from tests.api.conftest import PREFIX, A, Api, Client
from tests.console.conftest import Console, text_of
from tests.support.papers import PAPERS

FRESH = {"id": "fresh", "name": "新鲜 Ltd.", **PAPERS, "contact": f"Li Lei {A}"}


async def test_an_application_is_approved_suspended_resumed_and_revoked(console: Console, operator: Client) -> None:
    await operator.post("/v1/businesses", FRESH)
    browser = await console.of(operator)
    assert "新鲜 Ltd." in await browser.see("/businesses?state=applied")
    for step, state in (
        ("approve", "approved"),
        ("suspend", "suspended"),
        ("resume", "approved"),
        ("revoke", "revoked"),
    ):
        page = await browser.see("/businesses/fresh")
        await browser.send(page, f"/businesses/fresh/steps/{step}", reason=f"because of {step}")
        assert (await operator.get("/v1/businesses/fresh"))["state"] == state
    page = await browser.see("/businesses/fresh")
    assert "/steps/" not in page
    assert all(f"because of {step}" in page for step in ("approve", "suspend", "resume", "revoke"))
    assert A not in page and "138****0001" in page


async def test_what_is_missing_for_an_approval_is_named(console: Console, operator: Client) -> None:
    await operator.post("/v1/businesses", {"id": "bare", "name": "Bare"})
    browser = await console.of(operator)
    await browser.send(await browser.see("/businesses/bare"), "/businesses/bare/steps/approve", reason="hurry")
    page = text_of(await browser.see("/businesses/bare"))
    assert "missing for the scenario other: licence" in page
    assert (await operator.get("/v1/businesses/bare"))["state"] == "applied"


async def test_a_high_rate_of_complaints_proposes_a_suspension(console: Console, api: Api, operator: Client) -> None:
    await operator.post("/v1/businesses", FRESH)
    await operator.post("/v1/businesses/fresh/approve", {"reason": "seen"}, 200)
    day = datetime.fromtimestamp(now_ms() / 1000, CHINA).date()
    browser = await console.of(operator)
    page = await browser.see("/businesses/fresh")
    assert "No complaint is entered" in page
    asked = {"day": day.isoformat(), "prefix": PREFIX}
    await browser.send(page, "/businesses/fresh/complaints", **asked, count="many")
    assert "count: " in text_of(await browser.see("/businesses/fresh"))
    await browser.send(page, "/businesses/fresh/complaints", **asked, count="3")
    assert "The number of complaints is entered." in text_of(await browser.see("/businesses/fresh"))
    assert "fresh" in text_of(await browser.see("/businesses")).partition("Complaints of 30 days")[2]
    page = await browser.see("/businesses/fresh")
    reason = "complaints: 3 of 0 answered calls in 30 days; the limit is 0.05%"
    assert f'value="{reason}"' in page and "Nothing is suspended until an operator does it" in page
    chinese = await (await console.of(operator, "zh")).see("/businesses/fresh")
    assert 'value="投诉：30 天内接通 0 次，投诉 3 件；上限为 0.05%"' in chinese
    await browser.send(page, "/businesses/fresh/steps/suspend", reason=reason)
    assert (await operator.get("/v1/businesses/fresh"))["state"] == "suspended"
    rate = ComplaintRate("fresh", "", 3, 0, 500)
    api.backend.counts = {"high_complaints": {"fresh": rate}}
    assert "fresh: 3 complaints in 30 days, 0 answered calls: suspend it?" in text_of(await browser.see("/"))


async def test_an_unknown_step_is_no_page(console: Console, operator: Client) -> None:
    await operator.post("/v1/businesses", FRESH)
    browser = await console.of(operator)
    token = (await browser.see("/businesses/fresh")).partition('name="csrf" value="')[2].partition('"')[0]
    answer = await browser.http.post("/console/businesses/fresh/steps/delete", data={"csrf": token, "reason": "x"})
    assert answer.status_code == 404


async def test_a_key_is_revoked_and_its_session_with_it(
    console: Console, api: Api, company: Client, operator: Client
) -> None:
    browser, own = await console.of(operator), await console.of(company)
    key_id = company.key.split("_")[1]
    page = await browser.see("/businesses/acme")
    assert company.key not in page and key_id in page
    await browser.send(page, f"/businesses/acme/keys/{key_id}/revoke", reason="lost")
    await own.see("/bindings", 303)
    assert (await operator.get("/v1/audit?action=key.revoke"))["items"][0]["reason"] == "lost"


async def test_a_business_user_sees_itself_alone_and_takes_no_step(
    console: Console, api: Api, company: Client, operator: Client
) -> None:
    await operator.post("/v1/businesses", FRESH)
    browser = await console.of(company)
    page = await browser.see("/businesses/acme")
    assert "Revoke</summary>" in page and "/steps/" not in page  # of its keys, not of itself
    await browser.see("/businesses/fresh", 404)
    await browser.see("/businesses", 403)
    assert 'href="/console/businesses/acme"' in await browser.see("/")


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_lists_and_filings_are_masked(console: Console, company: Client, operator: Client, language: str) -> None:
    await company.ask("PUT", "/v1/lists/business/acme/entries", {"number": A, "kind": "black"})
    await company.post("/v1/filings", {"number": A, "reference": "CT-77"})
    page = await (await console.of(operator, language)).see("/businesses/acme")
    assert "138****0001" in page and "CT-77" in page and A not in page


async def test_a_hook_is_set_changed_and_removed_and_its_secret_shown_once(console: Console, company: Client) -> None:
    browser = await console.of(company)
    page = await browser.see("/businesses/acme")
    assert "No hook" in text_of(page)
    await browser.send(page, "/businesses/acme/hook/set", url="https://a.example/h", parties="none", enabled="on")
    page = await browser.see("/businesses/acme")
    assert "shown only now: whsec_" in text_of(page)
    assert "https://a.example/h" in page
    await browser.send(page, "/businesses/acme/hook/set", url="https://10.0.0.1/", parties="none")
    page = await browser.see("/businesses/acme")
    assert "whsec_" not in page
    assert "not a public internet address" in text_of(page)
    await browser.send(page, "/businesses/acme/hook/set", url="https://b.example/", unknown_callers="on")
    hook = await company.get("/v1/businesses/acme/hook")
    told = (hook["url"], hook["parties"], hook["unknown_callers"], hook["enabled"])
    assert told == ("https://b.example/", "masked", True, False)
    await browser.send(await browser.see("/businesses/acme"), "/businesses/acme/hook/remove")
    assert "No hook" in text_of(await browser.see("/businesses/acme"))
