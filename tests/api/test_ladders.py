"""The ladder of a call over HTTP: who sees which side of it, and what is said when there is none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing

import pytest

from relay.api.places import DOWNLOADS
from relay.model.capture import CapturedCall
from relay.store.sqlite.captures import CaptureFile
from relay.store.writer import now_ms
from tests.api.conftest import Api, Client, Json
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST
from tests.support.shelf import Shelf
from tests.support.stored import A, B, ended_record
from tests.trace.test_ladder_join import basic

CALL = "a" * 32
URL = f"/v1/calls/{CALL}/ladder"
CLEAR = "?reveal=true&reason=case%207"


@pytest.fixture(scope="module")
def captured() -> CapturedCall:
    return basic().captured()._replace(call_id=CALL)


@pytest.fixture
def shelf(api: Api, captured: CapturedCall) -> None:
    """A call of acme, with its capture."""
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(ended_record(CALL, business="acme", direction="a_to_b"))
    shelf.follow()
    api.backend.captures.save([captured])


@pytest.mark.usefixtures("shelf")
async def test_operators_see_both_sides_masked(operator: Client) -> None:
    ladder = await operator.get(URL)
    assert (ladder["masked"], ladder["side"], len(ladder["messages"])) == (True, None, 13)
    assert [lane["peer"] for lane in ladder["lanes"]] == ["pbx", "carrier"]
    invite = ladder["messages"][2]
    assert (invite["what"], invite["made_from"]) == ("INVITE", 0)
    assert {"name": "Via", "verdict": "rewritten", "lines": 1} in invite["crossings"]
    text = str(ladder)
    assert not [word for word in (A[2:], B[2:], CALLER_HOST, CALLEE_HOST) if word in text]


@pytest.mark.usefixtures("shelf")
async def test_a_capture_that_was_swapped_is_named_as_such(api: Api, operator: Client, company: Client) -> None:
    """The store is well, and to try again would not help."""
    other = basic().captured()._replace(call_id="b" * 32)
    api.backend.captures.save([other])
    with closing(CaptureFile(api.backend.path).connect()) as thief:
        (sealed,) = thief.execute("SELECT sealed FROM capture WHERE call_id = ?", (other.call_id,)).fetchone()
        thief.execute("UPDATE capture SET sealed = ? WHERE call_id = ?", (sealed, CALL))
    for client in (operator, company):
        problem = await client.refused("GET", URL, "state_conflict")
        assert problem["detail"].startswith("the capture of this call was altered, or made with another key")


@pytest.mark.usefixtures("shelf")
async def test_reveal_shows_every_byte_and_is_audited(operator: Client, captured: CapturedCall) -> None:
    ladder = await operator.get(URL + CLEAR)
    assert [each["text"] for each in ladder["messages"]] == [each.data.decode() for each in captured.messages]
    lines = (await operator.get("/v1/audit"))["items"]
    assert [(line["action"], line["object"], line["reason"]) for line in lines[:1]] == [
        ("read", f"ladder {CALL}", "case 7")
    ]
    await operator.refused("GET", f"{URL}?reveal=true", "invalid")


@pytest.mark.usefixtures("shelf")
async def test_a_business_user_sees_its_own_side_and_no_peer(api: Api) -> None:
    acme, rival = await api.company("acme"), await api.company("rival")
    ladder = await acme.get(URL)
    assert (ladder["side"], ladder["masked"]) == ("caller", True)
    assert {each["lane"] for each in ladder["messages"]} == {0}
    for url in (URL, URL + CLEAR, f"{URL}{CLEAR}&format=html", f"{URL}{CLEAR}&format=pcap"):
        answer = await acme.http.get(url)
        assert answer.status_code == 200
        hidden = (B[2:], CALLER_HOST, CALLEE_HOST, "carrier", "pbx")
        assert not [word for word in hidden if word.encode() in answer.content]
    assert A in (await acme.http.get(URL + CLEAR)).text
    await rival.refused("GET", URL, "not_found")
    limited = await api.company("acme", {"calls:read"})
    await limited.refused("GET", URL + CLEAR, "forbidden")
    await (await api.company("acme", {"bindings:read"})).refused("GET", URL, "forbidden")


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize(("name", "begin"), [("html", b"<!doctype html>"), ("pcap", b"\xd4\xc3\xb2\xa1")])
async def test_files(operator: Client, name: str, begin: bytes) -> None:
    answer = await operator.http.get(f"{URL}?format={name}")
    assert answer.content.lstrip()[: len(begin)] in (begin, begin[::-1])
    assert A[2:].encode() not in answer.content


async def test_a_call_that_is_up_has_the_messages_so_far(
    api: Api, operator: Client, captured: CapturedCall, relay: dict[str, Callable[..., Json]]
) -> None:
    def call(call_id: str, business: str | None = None, reveal: bool = False) -> Json:
        record = ended_record(call_id, business="acme", ended_at=None, outcome=None, direction="b_to_a")
        return record._replace(caller=A if reveal else "138****0001", source=None)._asdict()

    relay["call"] = call
    api.backend.pending[CALL] = captured._replace(messages=captured.messages[:8])
    assert len((await operator.get(URL))["messages"]) == 8
    acme = await api.company("acme")
    assert (await acme.get(URL + CLEAR))["side"] == "callee"


async def test_registrations_of_a_peer_are_for_operators(api: Api, operator: Client, captured: CapturedCall) -> None:
    url = "/v1/calls/register:carrier/ladder"
    answer = await operator.refused("GET", url, "not_found")
    assert "capture arm --peer" in answer["detail"]
    first = captured._replace(call_id="register:carrier", messages=captured.messages[:2])
    api.backend.captures.save([first])
    api.backend.pending["register:carrier"] = first._replace(messages=captured.messages[2:3])
    assert len((await operator.get(url))["messages"]) == 3
    await (await api.company("acme")).refused("GET", url, "forbidden")


@pytest.mark.parametrize(
    ("keep", "record", "says"),
    [
        ("off", {}, "nothing is captured"),
        ("failed", {}, "only failed calls are kept"),
        ("failed", {"outcome": "busy"}, "the call has just ended"),
        ("all", {"ended_at": now_ms() - 3_600_000}, "[capture] max_mb"),
        ("failed", {"outcome": "failed", "end_reason": "lost_at_restart"}, "the relay stopped during the call"),
        ("armed", {}, "capture arm"),
        ("all", {"ended_at": 1_000}, "deleted after 7d"),
    ],
)
async def test_a_call_without_capture_says_why(api: Api, operator: Client, keep: str, record: Json, says: str) -> None:
    api.backend.capture = api.backend.capture._replace(keep=keep)  # type: ignore[arg-type]
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(ended_record(CALL, **{"ended_at": now_ms(), "end_reason": "bye"} | record))
    shelf.follow()
    answer = await operator.refused("GET", URL, "not_found")
    assert says in answer["detail"]
    answer = await operator.refused("GET", URL.replace("a", "b"), "not_found")


@pytest.mark.usefixtures("shelf")
async def test_many_ladders_do_not_make_other_reads_wait(
    api: Api, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, begun = threading.Event(), threading.Semaphore(0)

    def slow(*_: object) -> None:
        begun.release()
        over.wait(20)

    monkeypatch.setattr(api.backend.captures, "load", slow)
    reading = [asyncio.create_task(operator.http.get(URL)) for _ in range(DOWNLOADS.most_of_one)]
    for _ in range(DOWNLOADS.workers_of_one):
        assert await asyncio.to_thread(begun.acquire, timeout=10)
    async with asyncio.timeout(10):
        assert (await operator.get("/v1/calls"))["items"]
    over.set()
    assert {answer.status_code for answer in await asyncio.gather(*reading)} == {404}
