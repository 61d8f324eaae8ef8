"""Live calls, and hanging up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.errors import Refused
from tests.api.conftest import Api, Client, Json
from tests.console.conftest import Console, text_of
from tests.support.stored import A, ended_record

ACME = "a" * 32


@pytest.fixture
def up(relay: dict[str, Callable[..., Json]]) -> list[str]:
    """The calls of acme that are up."""
    calls = [ACME]

    def live(business: str | None = None, most: int = 1_000, reveal: bool = False) -> Json:
        call = ended_record(ACME, business="acme", order_id="order-7", ended_at=None, outcome=None)._asdict()
        del call["caller_leg_call_id"], call["callee_leg_call_id"]
        if not reveal:
            call |= {"caller": "138****0001", "callee": "139****0002", "source": None}
        shown = [call | {"call_id": call_id} for call_id in calls] if business in (None, "acme") else []
        return {"calls": shown, "total": len(shown)}

    def hang_up(call_id: str, business: str | None = None, dry_run: bool = False) -> Json:
        if call_id not in calls or business not in (None, "acme"):
            raise Refused("not_found", "call_id", "no such call is up")
        if not dry_run:
            calls.remove(call_id)
        return {"call_id": call_id}

    relay |= {"live": live, "hang_up": hang_up}
    return calls


async def test_a_call_is_hung_up_after_a_question(console: Console, api: Api, operator: Client, up: list[str]) -> None:
    browser = await console.of(operator)
    page = await browser.see("/live")
    assert "order-7" in page and "This cannot be taken back" in text_of(page) and A not in page
    await browser.send(page, f"/live/{ACME}/hang-up", reason=" ")
    page = await browser.see("/live")
    assert up == [ACME] and "Nothing was hung up: write the reason" in text_of(page)
    answer = await browser.send(page, f"/live/{ACME}/hang-up", reason="case 7")
    assert (answer.status_code, answer.headers["location"], up) == (303, "/console/live", [])
    text = text_of(await browser.see("/live"))
    assert "The call is being hung up." in text and "No call is up" in text
    (line,) = (await operator.get("/v1/audit?action=call.hang_up"))["items"]
    assert (line["reason"], line["object"]) == ("case 7", ACME)
    again = await browser.send(page, f"/live/{ACME}/hang-up", reason="case 7")
    assert again.status_code == 303
    assert "no such call is up" in text_of(await browser.see("/live"))


async def test_hanging_up_is_for_keys_that_may_and_for_own_calls(console: Console, api: Api, up: list[str]) -> None:
    reader = await console.of(await api.company("acme", ["calls:read"]))
    page = await reader.see("/live")
    assert "order-7" in page and "Hang up" not in page
    token = page.partition('name="csrf" value="')[2].partition('"')[0]
    forced = await reader.http.post(f"/console/live/{ACME}/hang-up", data={"csrf": token, "reason": "case 7"})
    assert forced.status_code == 403
    rival = await console.of(await api.company("rival"))
    other = await rival.see("/live")
    assert "order-7" not in other
    token = other.partition('name="csrf" value="')[2].partition('"')[0]
    await rival.http.post(f"/console/live/{ACME}/hang-up", data={"csrf": token, "reason": "case 7"})
    assert up == [ACME]


async def test_without_the_relay_the_page_says_so(console: Console, api: Api, operator: Client) -> None:
    browser = await console.of(operator)
    await api.backend.server.close()
    assert "does not answer now" in text_of(await browser.see("/live", 503))
