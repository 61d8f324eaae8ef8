"""Pages of calls: what a key sees, masked, its own only; what tenants write is text and nothing else."""

from __future__ import annotations

from tests.api.conftest import Api, Client
from tests.console.conftest import Console, text_of
from tests.support.shelf import Shelf
from tests.support.stored import A, B, ended_record
from tests.trace.test_ladder_join import basic

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


async def test_call_from_an_unknown_source_names_it(console: Console, api: Api, operator: Client) -> None:
    keep(api, ended_record(ACME, peer_in="", source="udp:127.0.0.9:5060", routed_at=None, outcome="caller_not_allowed"))
    browser = await console.of(operator)
    page = await browser.see(f"/calls/{ACME}")
    text = text_of(page)
    assert "138****0001 dialled 700100000010001, from the unknown source udp:127.0.0.9:5060" in text
    revealed = text_of((await browser.send(page, f"/calls/{ACME}", reason="complaint 7")).text)
    assert "Then: the rules refused this call" in revealed
    assert "udp:127.0.0.9:5060 is in no peer's sources" in revealed


async def test_a_foreign_caller_of_a_record_is_explained_as_one(console: Console, api: Api, operator: Client) -> None:
    """Without "+" it reads as a mobile number of China."""
    keep(api, ended_record(ACME, caller="13145550001", outcome="caller_international"))
    browser = await console.of(operator)
    await browser.send(await browser.see(f"/calls/{ACME}"), f"/calls/{ACME}", reason="complaint 7")
    (line,) = (await operator.get("/v1/audit?action=explain&reveal=true&reason=inspection"))["items"]
    assert line["details"]["number"] == "13145550001"


async def test_a_call_tells_its_story_and_what_to_do(console: Console, api: Api, operator: Client) -> None:
    refused = {"routed_at": None, "ringing_at": None, "answered_at": None, "callee": None, "ended_by": "relay"}
    keep(
        api,
        ended_record(ACME, business="acme"),
        ended_record(RIVAL, **refused, sip_status=403, q850_cause=21, outcome="frequency_caller"),
    )
    browser = await console.of(operator)
    text = text_of(await browser.see(f"/calls/{ACME}"))
    assert "138****0001 dialled 700100000010001, from the peer" in text
    assert "answered" in text and "hung up" in text and "No messages are kept" in text
    text = text_of(await browser.see(f"/calls/{RIVAL}"))
    assert "from the peer" in text
    assert "refused by the relay with 403, Q.850 21" in text
    assert "as often as the caps allow. Wait, or change the caps" in text
    record = (await browser.http.get(f"/console/calls/{ACME}?format=json")).json()
    assert (record[0]["call_id"], record[0]["caller"]) == (ACME, "138****0001")


async def test_a_call_cancelled_before_it_was_routed_is_not_refused(console: Console, api: Api) -> None:
    early = dict.fromkeys(("routed_at", "ringing_at", "answered_at", "callee", "duration_ms"))
    keep(api, ended_record(ACME, business="acme", **early, outcome="cancelled", sip_status=487))
    text = text_of(await (await console.of(await api.company("acme"))).see(f"/calls/{ACME}"))
    assert "the caller gave up" in text and "refused by the relay" not in text


async def test_a_call_of_another_business_user_is_not_there(console: Console, api: Api) -> None:
    keep(api, ended_record(RIVAL, business="rival"))
    browser = await console.of(await api.company("acme"))
    for path in (f"/calls/{RIVAL}", f"/calls/{'c' * 32}", "/calls/../keys"):
        await browser.see(path, 404)
    listed = await browser.see("/calls?business_id=rival")
    assert RIVAL not in listed


async def test_a_party_is_looked_for_without_its_number_in_a_url(console: Console, api: Api) -> None:
    keep(api, *(ended_record(f"{n:032x}", business="acme", order_id=f"order-{n}") for n in range(60)))
    browser = await console.of(await api.company("acme"))
    page = await browser.see("/calls")
    found = await browser.send(page, "/calls/search", party="138 0000 0001")
    assert found.text.count("/calls/0000") > 50
    following = await browser.send(found.text.partition("<main")[2].rpartition("</details>")[2], "/calls/search")
    assert following.status_code == 200 and "order-0" in following.text
    assert A not in "".join(part.partition('"')[0] for part in found.text.split('href="'))
    faulty = await browser.send(page, "/calls/search", party="nobody")
    assert faulty.status_code == 400 and "must be a phone number" in text_of(faulty.text)
    reader = await console.of(await api.company("acme", ["calls:read"]))
    assert "Find by real number" not in await reader.see("/calls")


async def test_what_others_write_is_text_on_the_page_of_a_call(console: Console, api: Api, operator: Client) -> None:
    names = ("order_id", "business", "peer_in", "peer_out", "end_reason", "industrial_id", "binding_id", "mode")
    keep(api, ended_record(ACME, **dict.fromkeys(names, XSS), number_dialled=XSS, caller=XSS, outcome="failed"))
    browser = await console.of(operator)
    page = await browser.see(f"/calls/{ACME}")
    assert "<script>alert" not in page and "<img src=x" not in page and "&lt;script&gt;" in page
    revealed = await browser.send(page, f"/calls/{ACME}", reason=XSS)
    assert "<script>alert" not in revealed.text and "<img src=x" not in revealed.text


async def test_a_ladder_is_shown_masked_and_kept_as_files(console: Console, api: Api, operator: Client) -> None:
    keep(api, ended_record(ACME, business="acme"), ended_record(RIVAL, business="rival"))
    api.backend.pending[ACME] = api.backend.pending[RIVAL] = basic().captured()._replace(call_id=ACME)
    browser = await console.of(await api.company("acme"))
    page = await browser.see(f"/calls/{ACME}")
    assert "200 OK" in page and 'class="ladder' in page and "<style" not in page and "style=" not in page
    for format_, begin in (("html", b"<!doctype html>"), ("json", b"{"), ("pcap", b"\xd4\xc3\xb2\xa1")):
        answer = await browser.http.get(f"/console/calls/{ACME}/ladder.{format_}")
        assert answer.headers["content-disposition"] == f'attachment; filename="{ACME}.{format_}"'
        assert answer.content.startswith(begin) and A.encode() not in answer.content
        assert f'href="/console/calls/{ACME}/ladder.{format_}"' in page
    assert (await browser.http.get(f"/console/calls/{ACME}/ladder.txt")).status_code == 404
    assert (await browser.http.get(f"/console/calls/{RIVAL}/ladder.json")).status_code == 404
