"""The overview: figures of own calls, attention, charts; where a search leads."""

from __future__ import annotations

import json
from collections.abc import Callable

from relay.console.streams import Streams
from relay.model.call import Kind
from relay.store.call_counts import count_calls
from tests.api.conftest import Api, Client, Json
from tests.console.conftest import Console, text_of, urls_of
from tests.support.relay_process import A
from tests.support.shelf import Shelf, call
from tests.support.stored import ended_record

WIDE = {ord("0") + digit: ord("０") + digit for digit in range(10)}
FOREIGN = "447700900123"  # as records show it, without "+"
PEERS: Json = {
    "peers": [
        {
            "peer": "carrier",
            "calls_in": 1,
            "calls_out": 2,
            "registered": None,
            "targets": [{"target": "udp:192.0.2.10:5060", "state": "down", "failures": 3, "aside_until": None}],
        }
    ]
}


async def count(
    api: Api,
    *outcomes: str,
    business: str = "acme",
    ago_s: float = 60,
    kind: Kind = "call",
    ringing_ms: int = 800,
    **more: str,
) -> None:
    """Calls that ended some time ago, as the follower counts them."""
    ended_ms = int((api.now() - ago_s) * 1000)
    times = {"received_at": ended_ms - 2_000, "ringing_at": ended_ms - 2_000 + ringing_ms, "ended_at": ended_ms}
    whose = {"business": business, "kind": kind, **more}
    records = [ended_record(f"{n}", **times, **whose, outcome=each) for n, each in enumerate(outcomes)]
    await api.run(lambda unit: count_calls(unit.connection, records, unit.now_ms))


async def test_what_is_looked_for_leads_to_its_page(console: Console, operator: Client) -> None:
    browser = await console.of(operator)
    page = await browser.see("/calls")
    for text, to in (
        ("a" * 32, f"/calls/{'a' * 32}"),
        ("700100000010001", "/calls?number=700100000010001"),
        ("order 17", "/calls?order_id=order+17"),
    ):
        answer = await browser.send(page, "/find", q=text)
        assert answer.headers["location"] == f"/console{to}"
    assert (await browser.http.get("/console/find", params={"q": A})).headers["location"] == "/console/calls"


async def test_a_real_number_is_looked_for_as_a_party_and_is_in_no_url(
    console: Console, api: Api, operator: Client
) -> None:
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(call(0, business="acme", order_id="order-7"))
    shelf.follow()
    browser = await console.of(operator)
    for written in (A, "+86 138-0000-0001", A.translate(WIDE)):
        answer = await browser.send(await browser.see("/calls"), "/find", q=written)
        assert answer.status_code == 200 and "order-7" in answer.text
        assert written not in urls_of(answer.text)
    for order in (FOREIGN, "1128001"):
        answer = await browser.send(await browser.see("/calls"), "/find", q=order)
        place = answer.headers["location"].removeprefix("/console")
        assert place.startswith("/calls?order_id=") and order not in place and order in await browser.see(place)
    masked = await console.of(await api.company("acme", ["calls:read"]))
    answer = await masked.send(await masked.see("/calls"), "/find", q=A)
    assert answer.status_code == 303 and A not in answer.headers["location"]
    assert "order-7" not in await masked.see(answer.headers["location"].removeprefix("/console"))


async def test_an_operator_sees_all_calls_and_a_business_user_its_own(
    console: Console, api: Api, operator: Client, relay: dict[str, Callable[..., Json]]
) -> None:
    relay |= {"peers": lambda: PEERS, "live": lambda **asked: {"calls": [], "total": 7 if asked["business"] else 412}}
    await count(api, "answered", "answered", "busy", "no_binding")
    await count(api, "answered", business="rival")
    company = await api.company("acme")
    seen = {}
    for client in (operator, company):
        browser = await console.of(client)
        seen[client] = (await browser.http.get("/console/?format=json")).json()
    assert [seen[each]["figures"]["live"] for each in seen] == [412, 7]
    assert [seen[each]["figures"]["answered"] for each in seen] == [60.0, 50.0]
    assert [seen[each]["figures"]["refused"] for each in seen] == [20.0, 25.0]
    assert [sum(bar["good"] for bar in seen[each]["bars"]) for each in seen] == [3, 2]
    assert [row["name"] for row in seen[operator]["businesses"]] == ["acme", "rival"]
    assert seen[operator]["businesses"][0]["often"] == "no_binding"
    assert (seen[company]["businesses"], seen[company]["peers"]) == ([], [])
    page = await browser.see("/?range=7d")
    assert "rival" not in page and "carrier" not in page and "<rect" in page


async def test_calls_from_a_peer_are_its_calls_as_well(
    console: Console, api: Api, operator: Client, relay: dict[str, Callable[..., Json]]
) -> None:
    relay |= {"peers": lambda: PEERS, "live": lambda **_: {"calls": [], "total": 0}}
    await count(api, "answered", "busy", "no_binding", "busy", peer_in="carrier", peer_out="other")
    browser = await console.of(operator)
    (row,) = (await browser.http.get("/console/?format=json")).json()["peers"]
    assert (row["calls_in"], row["calls"], row["answered"]) == (4, 0, 25)
    await count(api, "answered", peer_in="other", peer_out="carrier")
    (row,) = (await browser.http.get("/console/?format=json")).json()["peers"]
    assert (row["calls_in"], row["calls"], row["answered"]) == (4, 1, 100)


async def test_faults_are_the_main_reason_of_a_business_as_refusals_are(
    console: Console, api: Api, operator: Client, relay: dict[str, Callable[..., Json]]
) -> None:
    relay |= {"peers": lambda: PEERS, "live": lambda **_: {"calls": [], "total": 0}}
    await count(api, *["answered"] * 11, *["unreachable"] * 7, "no_binding", "no_binding")
    (row,) = (await (await console.of(operator)).http.get("/console/?format=json")).json()["businesses"]
    assert (row["often"], row["failed"], row["refused"]) == ("unreachable", 35, 10)


async def test_the_outcomes_of_today_are_those_until_now(console: Console, api: Api) -> None:
    api.ahead_s = (1_800 - api.now()) % 3_600  # half an hour into an hour
    await count(api, "answered", "busy")
    await count(api, *["answered"] * 4, ago_s=7 * 86_400)
    browser = await console.of(await api.company("acme"))
    outcomes = (await browser.http.get("/console/?format=json")).json()["outcomes"]
    assert {each["outcome"]: (each["today"], each["before"]) for each in outcomes} == {
        "answered": (1, 2),
        "busy": (1, 0),
    }


async def test_text_messages_are_not_in_the_answer_rate(console: Console, api: Api) -> None:
    await count(api, *["answered"] * 5)
    await count(api, *["delivered"] * 5, kind="message")
    browser = await console.of(await api.company("acme"))
    assert (await browser.http.get("/console/?format=json")).json()["figures"]["answered"] == 100


async def test_what_is_down_wants_attention(
    console: Console, api: Api, operator: Client, relay: dict[str, Callable[..., Json]]
) -> None:
    relay |= {"peers": lambda: PEERS, "live": lambda **_: {"calls": [], "total": 0}}
    browser = await console.of(operator)
    assert "carrier: udp:192.0.2.10:5060 does not answer" in text_of(await browser.see("/"))
    api.backend.counts = {"outbox_dead": 3, "short_pools": {"express": 3}, "leak_check": 1, "loop_lag_seconds": 2}
    api.backend.counts["node_up"] = {"a": 1, "b": 0}
    text = text_of(await browser.see("/"))
    assert "Node a" not in text
    for said in (
        "Node b is missing",
        "3 dead letters",
        "Pool express has 3% free",
        "The leak check stopped 1",
        "The relay is slow",
    ):
        assert said in text
    assert "dead letters" not in text_of(await (await console.of(await api.company("acme"))).see("/"))


async def test_without_calls_and_faults_it_says_so(console: Console, api: Api) -> None:
    browser = await console.of(await api.company("acme"))
    text = text_of(await browser.see("/"))
    assert "All is well: nothing needs attention." in text
    assert "No call has ended today, nor a week ago until this time of day." in text


async def test_a_time_within_the_first_range_of_counts_is_shown_as_at_most_its_bound(
    console: Console, api: Api
) -> None:
    await count(api, "answered", ringing_ms=1)
    text = text_of(await (await console.of(await api.company("acme"))).see("/"))
    assert "≤ 0.1 s / ≤ 0.1 s" in text


async def test_a_stopped_relay_is_said_and_the_page_stays(console: Console, api: Api, operator: Client) -> None:
    browser = await console.of(operator)
    await api.backend.server.close()
    api.backend.counts = {"up": 0}
    text = text_of(await browser.see("/"))
    assert "The relay does not answer" in text and "No peers, or the relay does not answer" in text


async def test_a_key_without_the_right_to_calls_sees_no_figures(console: Console, api: Api) -> None:
    await count(api, "answered")
    browser = await console.of(await api.company("acme", ["numbers:read"]))
    page = await browser.see("/")
    assert "<svg class" not in page and "answer rate" not in page
    found = (await browser.http.get("/console/?format=json")).json()
    assert not any(bar["good"] for bar in found["bars"]) and not found["outcomes"]
    console.streams.finish()
    assert "100.0%" not in (await browser.http.get("/console/stream/overview")).text


async def test_parts_of_the_overview_follow_by_a_stream(
    console: Console, operator: Client, relay: dict[str, Callable[..., Json]]
) -> None:
    relay |= {"peers": lambda: PEERS, "live": lambda **_: {"calls": [], "total": 412}}
    streams: Streams = console.streams
    streams.finish()
    browser = await console.of(operator)
    answer = await browser.http.get("/console/stream/overview?range=1h")
    parts = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data")]
    assert [part["id"] for part in parts] == ["attention", "figures", "peers"]
    assert "412" in parts[1]["html"]
