"""Pages of calls: what a key sees, masked, its own only; what tenants write is text and nothing else."""

from __future__ import annotations

from tests.api.conftest import Api, Client
from tests.console.conftest import Console, text_of
from tests.support.shelf import Shelf
from tests.support.stored import A, B, ended_record

ACME, RIVAL = "a" * 32, "b" * 32
XSS = "\"><script>alert('1')</script><img src=x onerror=alert(1)>"


def keep(api: Api, *records: object) -> None:
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(*records)  # type: ignore[arg-type]
    shelf.follow()


async def test_a_business_user_sees_its_own_calls_masked(console: Console, api: Api) -> None:
    keep(
        api,
        ended_record(ACME, business="acme", order_id="acme-order"),
        ended_record(RIVAL, business="rival", order_id="rival-order"),
    )
    browser = await console.of(await api.company("acme"))
    page = await browser.see("/calls")
    assert "acme-order" in page and "rival-order" not in page
    assert A not in page and B not in page and "138****0001" in page
    assert "rival" not in page and ">Businesses<" not in page and ">Audit log<" not in page


async def test_real_numbers_need_a_right_a_reason_and_are_written_down(
    console: Console, api: Api, operator: Client
) -> None:
    keep(api, ended_record(ACME, business="acme"))
    browser = await console.of(await api.company("acme"))
    page = await browser.see("/calls")
    revealed = await browser.send(page, "/calls", reason="complaint 7")
    assert A in revealed.text and "written to the audit log" in text_of(revealed.text)
    (line,) = (await operator.get("/v1/audit?action=read"))["items"]
    assert (line["reason"], line["object"]) == ("complaint 7", "calls")
    without = await browser.send(page, "/calls", reason=" ")
    assert without.status_code == 400 and A not in without.text
    reader = await console.of(await api.company("acme", ["calls:read"]))
    masked = await reader.see("/calls")
    assert "Show real numbers" not in masked
    token = masked.partition('name="csrf" value="')[2].partition('"')[0]
    forced = await reader.http.post("/console/calls", data={"csrf": token, "reveal": "1", "reason": "curious"})
    assert forced.status_code == 403 and A not in forced.text


async def test_what_others_write_is_text(console: Console, api: Api, operator: Client) -> None:
    written = dict.fromkeys(("order_id", "business", "peer_in", "peer_out", "end_reason", "industrial_id"), XSS)
    keep(api, ended_record(ACME, **written, number_dialled=XSS, caller=XSS, outcome="failed"))
    browser = await console.of(operator)
    page = await browser.see("/calls")
    assert "<script>alert" not in page and "<img src=x" not in page
    assert "&lt;script&gt;" in page
