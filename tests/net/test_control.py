"""The control socket over a real Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.errors import Refused
from relay.net.control import Answer, ControlClient, ControlServer, SharedAnswers, control_path


def hang_up(call_id: str) -> dict[str, Any]:
    if call_id != "c1":
        raise Refused("not_found", "call_id", "no such call is up")
    return {"call_id": call_id}


async def later() -> Answer:
    await asyncio.sleep(0)
    return {"when": "later"}


HANDLERS = {
    "state": lambda: {"state": "serving"},
    "hang_up": hang_up,
    "much": lambda: {"text": "x" * 1_000_000},
    "later": later,
}


@contextlib.asynccontextmanager
async def serving(path: Path) -> AsyncIterator[ControlClient]:
    server = ControlServer(path, HANDLERS)
    await server.open()
    try:
        yield ControlClient(path)
    finally:
        await server.close()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[ControlClient]:
    async with serving(control_path(tmp_path / "relay.db")) as client:
        yield client


async def test_a_request_is_answered(client: ControlClient) -> None:
    assert await client.ask("state") == {"state": "serving"}
    assert await client.ask("later") == {"when": "later"}
    assert await client.ask("hang_up", call_id="c1") == {"call_id": "c1"}


async def test_a_long_answer_arrives_whole(client: ControlClient) -> None:
    assert len((await client.ask("much"))["text"]) == 1_000_000


async def test_concurrent_requests_are_answered(client: ControlClient) -> None:
    answers = await asyncio.gather(*(client.ask("state") for _ in range(50)))
    assert answers == [{"state": "serving"}] * 50


@pytest.mark.parametrize(
    ("name", "fields", "kind"),
    [
        ("hang_up", {"call_id": "c2"}, "not_found"),
        ("nonsense", {}, "unknown"),
        ("hang_up", {}, "invalid"),
        ("state", {"surplus": 1}, "invalid"),
    ],
)
async def test_refusals_are_returned_with_their_kind(
    client: ControlClient, name: str, fields: dict[str, object], kind: str
) -> None:
    with pytest.raises(Refused) as refused:
        await client.ask(name, **fields)
    assert refused.value.kind == kind


@pytest.mark.parametrize("line", [b"\n", b"no json\n", b"[]\n", b'{"ask": 5}\n', b'{"no": 1}\n'])
async def test_an_invalid_request_is_answered_with_an_error(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "relay.db.control"
    async with serving(path):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(line)
        assert b'"error"' in await reader.readline()
        writer.close()


async def test_a_line_above_the_limit_closes_the_connection(tmp_path: Path) -> None:
    path = tmp_path / "relay.db.control"
    async with serving(path) as client:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"x" * 300_000)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert await client.ask("state") == {"state": "serving"}


async def test_only_the_owner_may_open_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "relay.db.control"
    async with serving(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_a_socket_left_by_a_crash_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "relay.db.control"
    left = ControlServer(path, HANDLERS)
    await left.open()
    async with serving(path) as client:
        assert await client.ask("state") == {"state": "serving"}
    await left.close()


async def test_the_path_may_be_longer_than_a_unix_address(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / ("deeper" * 20)
    folder.mkdir(parents=True)
    async with serving(folder / "relay.db.control") as client:
        assert await client.ask("state") == {"state": "serving"}


async def test_without_a_relay_a_request_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "relay.db.control", tmp_path / "no folder" / "relay.db.control"):
        with pytest.raises(Refused) as refused:
            await ControlClient(path).ask("state")
        assert refused.value.kind == "relay_unavailable"


async def test_a_relay_that_does_not_answer_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.net.control.ANSWER_S", 0.05)
    path = tmp_path / "relay.db.control"
    server = await asyncio.start_unix_server(lambda reader, writer: asyncio.sleep(60), str(path))
    with pytest.raises(Refused) as refused:
        await ControlClient(path).ask("state")
    assert refused.value.kind == "relay_unavailable"
    server.close()


class Counting(ControlClient):
    """A client that counts its requests."""

    def __init__(self) -> None:
        self.asked = 0

    async def ask(self, name: str, **fields: object) -> Answer:
        self.asked += 1
        await asyncio.sleep(0)
        if name == "refused":
            raise Refused("relay_unavailable", "", "away")
        return {"number": self.asked}


async def test_concurrent_equal_requests_are_sent_once() -> None:
    client = Counting()
    shared = SharedAnswers(client, {"live": 60.0})
    answers = await asyncio.gather(*(shared.ask("live", business="b1") for _ in range(9)))
    assert answers == [{"number": 1}] * 9
    assert await shared.ask("live", business="b2") == {"number": 2}
    assert await shared.ask("live", business="b1") == {"number": 1}


async def test_expired_and_uncached_answers_are_requested_again() -> None:
    client = Counting()
    shared = SharedAnswers(client, {"live": 0.0})
    assert [await shared.ask(name) for name in ("live", "live", "hang_up", "hang_up")] == [
        {"number": number} for number in (1, 2, 3, 4)
    ]


async def test_a_refusal_is_cached_too() -> None:
    client = Counting()
    shared = SharedAnswers(client, {"refused": 60.0})
    for _ in range(3):
        with pytest.raises(Refused):
            await shared.ask("refused")
    assert client.asked == 1


async def test_a_cancelled_request_does_not_cancel_the_others() -> None:
    shared = SharedAnswers(Counting(), {"live": 60.0})
    first, second = (asyncio.create_task(shared.ask("live")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == {"number": 1}
