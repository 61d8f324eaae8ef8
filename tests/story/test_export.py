"""Exports and reports of real calls: the same by command and over HTTP."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from relay.operations.shapes import api_named
from tests.interop.conftest import running_relay
from tests.story.calls import Ends, call, refused
from tests.support.addresses import RELAY, free
from tests.support.papers import PAPER_OPTIONS
from tests.support.phone import Phone
from tests.support.relay_process import A, B, Setup, X

pytestmark = pytest.mark.outside

STRANGER = "13800000009"
PREFIX = X[:11]
DAY = timedelta(days=1)


class Shop(NamedTuple):
    """A relay with two calls between acme's parties and a failed one of a stranger."""

    ends: Ends
    http: httpx.AsyncClient
    began: datetime


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    setup = Setup(api=free(RELAY))
    began = datetime.now(UTC)
    with running_relay(tmp_path, setup, (A, B, STRANGER)) as relay:
        for arguments in (
            ("business", "apply", "acme", "--name", "Acme", *PAPER_OPTIONS),
            ("business", "approve", "acme", "--reason", "papers complete"),
            ("bind", "AXB", "--a", A, "--b", B, "--x", X, "--business", "acme", "--order", "17"),
        ):
            assert relay.command(*arguments).returncode == 0
        scopes = [f"--scope={scope}" for scope in ("operator", "calls:read", "reports", "parties:read")]
        key = relay.answer("keys", "make", "--operator", *scopes, "--json")["secret"]
        relay.wait_for_event("api.listening")
        async with (
            Phone(setup.caller) as left,
            Phone(setup.callee) as right,
            httpx.AsyncClient(
                base_url=f"http://{setup.api}", headers={"authorization": f"Bearer {key}"}, trust_env=False, timeout=20
            ) as http,
        ):
            ends = Ends(relay, left, right)
            await call(ends, A, X)
            await call(ends, B, X)
            assert (await refused(ends, STRANGER, X)).status == 403
            yield Shop(ends, http, began)


def read(format_: str, data: bytes) -> list[dict[str, Any]]:
    match format_:
        case "csv":
            return list(csv.DictReader(io.StringIO(data.decode())))
        case _:
            return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize("format_", ["csv", "jsonl"])  # scripts/run installs nothing that writes Parquet
async def test_records_are_exported_by_time_and_business(shop: Shop, format_: str) -> None:
    relay, file = shop.ends.relay, shop.ends.relay.folder / "calls"
    records = [(record["call_id"], record["outcome"]) for record in relay.calls()]
    assert [outcome for _, outcome in records] == ["answered", "answered", "no_binding"]

    def by_command(*options: str) -> list[dict[str, Any]]:
        assert relay.command("calls", "export", str(file), "--format", format_, *options).returncode == 0
        return read(format_, file.read_bytes())

    async def over_http(**options: str) -> list[dict[str, Any]]:
        span = {"since": (shop.began - DAY).isoformat(), "until": (shop.began + DAY).isoformat()}
        answer = await shop.http.get("/v1/calls/export", params={"format": format_, **span, **options})
        assert answer.status_code == 200, answer.text
        return read(format_, answer.content)

    everything = by_command()
    assert [(row["call_id"], row["outcome"]) for row in everything] == records
    assert everything == await over_http()
    assert {row["caller"] for row in everything} == {"138****0001", "139****0002", "138****0009"}
    of_acme = by_command("--business", "acme")
    assert [row["call_id"] for row in of_acme] == [call_id for call_id, _ in records[:2]]
    assert of_acme == await over_http(business_id="acme")
    assert by_command("--until", (shop.began - DAY).isoformat()) == by_command("--business", "nobody") == []
    assert await over_http(until=shop.began.isoformat()) == []
    clear = by_command("--reveal", "--reason", "tax")
    assert [row["caller"] for row in clear] == [f"86{A}", f"86{B}", f"86{STRANGER}"]
    assert clear == await over_http(reveal="true", reason="tax")
    file.unlink()


async def test_the_daily_report_is_the_same_as_file_and_over_http(shop: Shop) -> None:
    relay, file = shop.ends.relay, shop.ends.relay.folder / "day.csv"
    day = (shop.began + timedelta(hours=8)).date().isoformat()
    assert relay.command("report", "complaints", day, "acme", PREFIX, "2").returncode == 0
    expected = {
        "day": day, "business": "acme", "prefix": PREFIX, "attempts": 2, "answered": 2, "unanswered": 0, "refused": {},
        "parties": 2, "complaints": 2,
    }  # fmt: skip
    nobodys = {
        "day": day, "business": "", "prefix": PREFIX, "attempts": 1, "answered": 0, "unanswered": 0,
        "refused": {"no_binding": 1}, "parties": 1, "complaints": 0,
    }  # fmt: skip
    answer = (await shop.http.get("/v1/reports/daily", params={"day": day})).json()["items"]
    told = [{name: line[name] for name in api_named(expected)} for line in answer]
    assert told == [api_named(nobodys), api_named(expected)]
    assert all(0 <= line["minutes"] < 5 for line in answer)
    (of_acme,) = (await shop.http.get("/v1/reports/daily", params={"day": day, "business_id": "acme"})).json()["items"]
    assert of_acme == answer[1] == api_named(relay.answer("report", "daily", day, "--business", "acme", "--json"))
    assert relay.command("report", "daily", day, "--out", str(file)).returncode == 0
    nobody, acme = read("csv", file.read_bytes())
    texts = {name: str(value) for name, value in expected.items()} | {"refused": ""}
    assert {name: acme[name] for name in texts} == texts
    assert (nobody["business"], nobody["refused"]) == ("", "no_binding=1")
