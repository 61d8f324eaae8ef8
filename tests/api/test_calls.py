"""Routes of call records, live calls and exports."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from relay.errors import Refused
from relay.model.call import CallRecord
from tests.api.conftest import Api, Client, Json
from tests.support.shelf import Shelf
from tests.support.stored import NOW_MS, A, B, X, Y, ended_record

ACME, RIVAL = "a" * 32, "b" * 32


def call(call_id: str, business: str, **changes: object) -> CallRecord:
    return ended_record(call_id, business=business, **changes)


@pytest.fixture
def shelf(api: Api) -> Shelf:
    """A store with two calls of two business users, one second apart."""
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(
        call(ACME, "acme"),
        call(RIVAL, "rival", number_dialled=Y, order_id="order-2", received_at=NOW_MS + 1_000, outcome="busy"),
    )
    shelf.follow()
    return shelf


@pytest.mark.usefixtures("shelf")
async def test_a_record_is_shown_masked(api: Api) -> None:
    company = await api.company("acme")
    record = await company.get(f"/v1/calls/{ACME}")
    assert (record["caller"], record["callee"], record["number_dialled"]) == ("138****0001", "139****0002", X)
    assert (record["received_at"], record["duration_ms"]) == ("2026-01-01T00:00:00.000Z", 10_000)
    assert record["caller_leg_call_id"] is None
    clear = await company.get(f"/v1/calls/{ACME}?reveal=true&reason=complaint")
    assert (clear["caller"], clear["callee"], clear["caller_leg_call_id"]) == (A, B, None)
    await company.refused("GET", f"/v1/calls/{RIVAL}", "not_found")
    await company.refused("GET", f"/v1/calls/{'c' * 32}", "not_found")


async def test_the_source_of_a_call_is_for_operators(
    api: Api, operator: Client, relay: dict[str, Callable[..., Json]]
) -> None:
    """A business user never sees it, even with reveal. An operator sees that of an unknown source without reveal."""
    place, strange = "udp:192.0.2.7:5060", "udp:198.51.100.6:5071"
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(
        call(ACME, "acme", source=place),
        ended_record(RIVAL, business=None, binding_id=None, peer_in="", source=strange),
    )
    shelf.follow()
    relay["live"] = lambda **asked: _live(**asked, source=place)
    company = await api.company("acme")
    show = "reveal=true&reason=tax"
    for url in (f"/v1/calls/{ACME}", "/v1/calls", "/v1/calls/live", f"/v1/calls/export?format=jsonl&{SPAN}"):
        answer = await company.http.get(f"{url}{'&' if '?' in url else '?'}{show}")
        assert answer.status_code == 200 and A in answer.text
        assert place not in answer.text
    assert place in (await operator.http.get(f"/v1/calls/{ACME}?{show}")).text
    assert place in (await operator.http.get(f"/v1/calls/live?{show}")).text
    assert place in (await operator.http.get(f"/v1/calls/export?format=jsonl&{SPAN}&{show}")).text
    shown = {item["call_id"]: item["source"] for item in (await operator.get("/v1/calls"))["items"]}
    assert shown == {ACME: None, RIVAL: strange}


async def test_an_order_returns_to_its_business_user_as_sent_and_masked_to_operators(
    api: Api, operator: Client, relay: dict[str, Callable[..., Json]]
) -> None:
    order, masked = "parcel for 138-0000-0001", "parcel for 138****0001"
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(call(ACME, "acme", order_id=order))
    shelf.follow()
    (ringing,) = _live()["calls"]
    relay["live"] = lambda **_: {"calls": [ringing | {"order_id": order}], "total": 1}
    company = await api.company("acme")
    for url in (f"/v1/calls/{ACME}", "/v1/calls", "/v1/calls/live", f"/v1/calls/export?format=jsonl&{SPAN}"):
        assert f'"{order}"' in (await company.http.get(url)).text
        shown = (await operator.http.get(url)).text
        assert f'"{masked}"' in shown and order not in shown
        clear = f"{url}{'&' if '?' in url else '?'}reveal=true&reason=tax"
        assert f'"{order}"' in (await operator.http.get(clear)).text


async def test_an_unknown_outcome_is_refused(operator: Client) -> None:
    (error,) = (await operator.refused("GET", "/v1/calls?outcome=answred", "invalid"))["errors"]
    assert error["field"] == "outcome" and "answered" in error["problem"]


async def test_a_text_message_is_a_record(api: Api, operator: Client) -> None:
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(call(ACME, "acme", kind="message", text_bytes=17, outcome="delivered", answered_at=None))
    shelf.follow()
    (record,) = (await operator.get("/v1/calls?outcome=delivered"))["items"]
    assert (record["kind"], record["text_bytes"], record["callee"]) == ("message", 17, "139****0002")


@pytest.mark.usefixtures("shelf")
async def test_records_are_found_by_each_criterion(api: Api, operator: Client) -> None:
    async def found(query: str) -> list[str]:
        return [item["call_id"] for item in (await operator.get(f"/v1/calls?{query}"))["items"]]

    async def searched(**asked: str) -> list[str]:
        return [item["call_id"] for item in (await operator.post("/v1/calls/search", asked, 200))["items"]]

    assert await found("") == [RIVAL, ACME]
    assert await found(f"number={X}") == [RIVAL, ACME]  # X is in both
    assert await found(f"number={Y}") == await found("order_id=order-2") == await found("business_id=rival") == [RIVAL]
    assert await found("outcome=busy") == await found("since=2026-01-01T00:00:01Z") == [RIVAL]
    assert await found("until=2026-01-01T00:00:01Z") == [ACME]
    assert await searched(party="138 0000 0001") == [RIVAL, ACME]
    assert await searched(party="13700000003") == []
    assert await found("kind=call") == [RIVAL, ACME]
    assert await found("kind=message") == await found("binding_id=0123456789abcdef") == []


async def test_the_calls_of_a_binding_are_found(api: Api, company: Client) -> None:
    made = await company.post("/v1/bindings", {"mode": "AXB", "a": A[2:], "b": B[2:], "order_id": "17"})
    shelf = Shelf(api.backend.path, api.backend.sealer)
    numbers = {"number_dialled": made["x"], "number_shown": made["x"]}
    shelf.add(call(ACME, "acme", binding_id=made["id"], **numbers), call(RIVAL, "acme", **numbers))
    shelf.follow()
    assert [item["call_id"] for item in (await company.get(f"/v1/calls?binding_id={made['id']}"))["items"]] == [ACME]
    rival = await api.company("rival")
    assert (await rival.get(f"/v1/calls?binding_id={made['id']}"))["items"] == []


async def test_the_calls_of_a_binding_with_two_numbers_dial_either(api: Api, company: Client) -> None:
    made = await company.post("/v1/bindings", {"mode": "AXYB", "a": A[2:], "b": B[2:], "order_id": "17"})
    shelf = Shelf(api.backend.path, api.backend.sealer)
    through = {"binding_id": made["id"], "mode": "AXYB", "number_shown": made["y"]}
    refused = {"number_shown": None, "callee": None, "routed_at": None, "outcome": "expired"}
    shelf.add(
        call(ACME, "acme", **through, number_dialled=made["x"]),
        call(RIVAL, "acme", **(through | refused), number_dialled=made["y"], received_at=NOW_MS + 1),
    )
    shelf.follow()
    found = (await company.get(f"/v1/calls?binding_id={made['id']}"))["items"]
    assert [item["call_id"] for item in found] == [RIVAL, ACME]


@pytest.mark.usefixtures("shelf")
async def test_records_are_paginated(operator: Client) -> None:
    first = await operator.get("/v1/calls?limit=1")
    second = await operator.get(f"/v1/calls?limit=1&cursor={first['next']}")
    assert [page["items"][0]["call_id"] for page in (first, second)] == [RIVAL, ACME]


@pytest.mark.usefixtures("shelf")
async def test_a_business_user_lists_its_own_records_only(api: Api) -> None:
    company = await api.company("acme")
    assert [item["call_id"] for item in (await company.get("/v1/calls"))["items"]] == [ACME]
    searched = await company.post("/v1/calls/search", {"party": "13800000001"}, 200)
    assert [item["call_id"] for item in searched["items"]] == [ACME]
    await company.refused("GET", "/v1/calls?business_id=rival", "not_found")


SPAN = "since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z"


@pytest.mark.usefixtures("shelf")
async def test_an_export_is_masked_unless_revealed(api: Api, operator: Client) -> None:
    company = await api.company("acme")
    masked = await company.http.get(f"/v1/calls/export?format=csv&{SPAN}")
    assert (masked.status_code, masked.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    head, line = masked.text.splitlines()
    assert head.startswith("call_id,")
    assert ACME in line and "138****0001" in line and A not in line
    clear = await company.http.get(f"/v1/calls/export?format=jsonl&{SPAN}&reveal=true&reason=tax")
    assert A in clear.text and RIVAL not in clear.text
    parquet = await operator.http.get(f"/v1/calls/export?format=parquet&{SPAN}")
    assert parquet.content[:4] == b"PAR1"
    (line,) = (await operator.get("/v1/audit?action=read"))["items"]
    assert (line["reason"], line["object"]) == ("tax", "calls export")


async def test_an_export_as_parquet_requires_pyarrow(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refusal = await operator.refused("GET", f"/v1/calls/export?format=parquet&{SPAN}", "invalid")
    assert [error["field"] for error in refusal["errors"]] == ["format"]
    assert "relay700[parquet]" in refusal["detail"]


@pytest.mark.usefixtures("shelf")
async def test_an_export_requires_a_period_and_the_scope_to_reveal(api: Api) -> None:
    company = await api.company("acme", ["calls:read"])
    await company.refused("GET", "/v1/calls/export", "invalid")
    await company.refused("GET", f"/v1/calls/export?{SPAN}&reveal=true&reason=tax", "forbidden")


def _live(business: str | None = None, most: int = 1_000, reveal: bool = False, source: str | None = None) -> Json:
    call = ended_record(ACME, business="acme", ended_at=None, outcome=None, source=source)._asdict()
    del call["caller_leg_call_id"], call["callee_leg_call_id"]
    if not reveal:
        call |= {"caller": "138****0001", "callee": "139****0002"}
    return {"calls": [call] if business in (None, "acme") else [], "total": 1}


async def test_live_calls_are_those_of_the_relay(api: Api, relay: dict[str, Callable[..., Json]]) -> None:
    relay["live"] = _live
    company = await api.company("acme")
    shown = await company.get("/v1/calls/live")
    (call,) = shown["items"]
    assert (call["call_id"], call["caller"], call["ended_at"]) == (ACME, "138****0001", None)
    (call,) = (await company.get("/v1/calls/live?reveal=true&reason=help"))["items"]
    assert call["caller"] == A
    rival = await api.company("rival")
    assert (await rival.get("/v1/calls/live"))["items"] == []


async def test_few_different_questions_about_live_calls_reach_the_relay(
    operator: Client, relay: dict[str, Callable[..., Json]]
) -> None:
    """Each takes its time, and one of the last half second is not asked again."""
    asked: list[int] = []

    def live(business: str | None = None, most: int = 0, reveal: bool = False) -> Json:
        asked.append(most)
        return {"calls": _live(reveal=True)["calls"] * 2, "total": 2}

    relay["live"] = live
    for limit, shown in ((1, 1), (2, 2), (50, 2), (51, 2), (500, 2)):
        assert len((await operator.get(f"/v1/calls/live?limit={limit}"))["items"]) == shown
    assert set(asked) == {50, 500}


async def test_a_call_is_hung_up_by_the_relay(api: Api, relay: dict[str, Callable[..., Json]]) -> None:
    def hang_up(call_id: str, business: str | None = None, dry_run: bool = False) -> Json:
        if (call_id, business) != (ACME, "acme"):
            raise Refused("not_found", "", "no such call is up")
        return {"call_id": call_id}

    relay["hang_up"] = hang_up
    company, rival = await api.company("acme"), await api.company("rival")
    await rival.refused("DELETE", f"/v1/calls/live/{ACME}", "not_found")
    assert (await company.ask("DELETE", f"/v1/calls/live/{ACME}", status=202))["status"] == "hanging_up"
    operator = await api.operator()
    assert len((await operator.get("/v1/audit?action=call.hang_up"))["items"]) == 1  # refused ones leave none


async def test_a_ringing_call_is_shown(api: Api, operator: Client, relay: dict[str, Callable[..., Json]]) -> None:
    def call(call_id: str, business: str | None = None, reveal: bool = False) -> Json:
        if call_id != ACME or business not in (None, "acme"):
            raise Refused("not_found", "call_id", "no such call is up")
        (found,) = _live(reveal=reveal, source="udp:192.0.2.7:5060")["calls"]
        return dict(found) | {"answered_at": None}

    relay["call"] = call
    company, rival = await api.company("acme"), await api.company("rival")
    shown = await company.get(f"/v1/calls/{ACME}")
    assert (shown["state"], shown["caller"], shown["source"]) == ("ringing", "138****0001", None)
    clear = await operator.get(f"/v1/calls/{ACME}?reveal=true&reason=help")
    assert (clear["caller"], clear["source"], clear["caller_leg_call_id"]) == (A, "udp:192.0.2.7:5060", None)
    await rival.refused("GET", f"/v1/calls/{ACME}", "not_found")
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(call_record := ended_record(ACME, business="acme"))
    shelf.follow()
    assert call_record.ended_at is not None
    assert (await company.get(f"/v1/calls/{ACME}"))["state"] == "ended"


async def test_an_unknown_call_is_not_found_without_the_relay(api: Api) -> None:
    company = await api.company("acme")
    await api.backend.server.close()
    await company.refused("GET", f"/v1/calls/{ACME}", "not_found")


async def test_hanging_up_over_the_rate_gets_429_with_retry_after(
    api: Api, relay: dict[str, Callable[..., Json]]
) -> None:
    def hang_up(call_id: str, business: str | None = None, dry_run: bool = False) -> Json:
        raise Refused("rate_limited", "", "at most 20 hang-ups per second")

    relay["hang_up"] = hang_up
    company = await api.company("acme")
    answer = await company.http.delete(f"/v1/calls/live/{ACME}")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


async def test_live_calls_are_unavailable_without_the_relay(api: Api) -> None:
    company = await api.company("acme")
    await api.backend.server.close()
    await company.refused("GET", "/v1/calls/live", "relay_unavailable")
    await company.refused("DELETE", f"/v1/calls/live/{ACME}", "relay_unavailable")
