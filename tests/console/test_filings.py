"""The page of filed A numbers."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.api.conftest import A, Api, C, Client
from tests.console.conftest import Console, text_of

HOLDER = {"holder": "张三", "document": "11010519491231002X"}


async def test_a_business_user_files_and_withdraws(console: Console, company: Client) -> None:
    browser = await console.of(company)
    page = await browser.see("/filings")
    assert "/filings/answers" not in page and "/filings/forget" not in page
    await browser.send(page, "/filings/add", number=A, reference="CT-77", **HOLDER)
    page = await browser.see("/filings?state=submitted")
    assert "138****0001" in page and "CT-77" in page and "张**" in page
    assert not [secret for secret in (A, *HOLDER.values()) if secret in page]
    await browser.send(page, "/filings/add", number=C, **HOLDER | {"document": "1"})
    assert "identity card (GB 11643)" in text_of(await browser.see("/filings"))
    await browser.send(page, "/filings/withdraw", number=A)
    assert "The filing is withdrawn" in text_of(await browser.see("/filings"))
    assert "CT-77" not in await browser.see("/filings")


async def test_an_operator_enters_answers_and_removes_documents(
    console: Console, company: Client, operator: Client
) -> None:
    await company.post("/v1/filings", {"number": A, "reference": "CT-77", **HOLDER})
    browser = await console.of(operator)
    page = await browser.see("/filings")
    lines = f"number,state,code\n{A},approved,0\n{C},approved,0"
    await browser.send(page, "/filings/answers", business_id="acme", lines=lines)
    text = text_of(await browser.see("/filings"))
    assert "1 answers entered, 1 refused" in text and "2: number: not filed by this business user" in text
    assert (await company.get("/v1/filings"))["items"][0]["state"] == "approved"
    page = await browser.see("/filings")
    found = text_of((await browser.send(page, "/filings/search", party=A)).text)
    assert "approved" in found and "submitted" in found and A not in found.replace(f'value="{A}"', "")
    await browser.send(page, "/filings/forget", business_id="acme", number=A, reason="he asked")
    (gone,) = (await company.get("/v1/filings?all=true"))["items"]
    assert (gone["holder"], gone["state"]) == (None, "withdrawn")

    await company.post("/v1/filings", {"number": C, "reference": "CT-78"})
    await browser.send(page, "/filings/answers", business_id="acme", lines=f"number,state\n{C},rejected")
    shown = await browser.see("/filings?state=rejected")
    assert '<span class="state rejected">refused by the carrier</span>' in shown
    assert '<option value="rejected" selected>refused by the carrier</option>' in shown


async def test_filings_that_end_soon_are_told(console: Console, api: Api, operator: Client) -> None:
    acme = await api.company("acme")
    moment = datetime.fromtimestamp(api.now() + 86_400, UTC).isoformat()
    asked = {"number": A, "reference": "CT-77", "expires_at": moment, "business_id": "acme"}
    await operator.post("/v1/filings", asked)
    browser = await console.of(acme)
    assert "1 filings of A numbers end within 30 days" in text_of(await browser.see("/"))
    assert "CT-77" in await browser.see("/filings?expiring=true")
