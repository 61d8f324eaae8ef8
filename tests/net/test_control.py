"""The admin socket over a real Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.defence.bans import Ban, Bans, KnownAddresses
from relay.errors import Refused
from relay.model.settings import Limits
from relay.net.control import (
    LOGGED_PER_S,
    Answer,
    BanAnswers,
    BanLog,
    ControlClient,
    ControlServer,
    SharedAnswers,
    control_path,
    read_source,
)
from tests.net.support import Log


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
    ("name", "fields", "kind", "field"),
    [
        ("hang_up", {"call_id": "c2"}, "not_found", "call_id"),
        ("nonsense", {}, "unknown", ""),
        ("hang_up", {}, "invalid", ""),
        ("state", {"surplus": 1}, "invalid", ""),
    ],
)
async def test_refusals_are_returned_with_kind_and_field(
    client: ControlClient, name: str, fields: dict[str, object], kind: str, field: str
) -> None:
    with pytest.raises(Refused) as refused:
        await client.ask(name, **fields)
    assert (refused.value.kind, refused.value.field) == (kind, field)


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


# -- Bans as operators see them: log lines and control-socket commands

BAD, GOOD = "192.0.2.66", "192.0.2.10"


@pytest.fixture
def bans() -> Bans:
    made = Bans(Limits(ban_after=10))
    made.spare(lambda: KnownAddresses([], [GOOD]))
    return made


def refused(answers: BanAnswers, *asked: object) -> tuple[str, str]:
    with pytest.raises(Refused) as error:
        answers.ban(*asked) if len(asked) > 1 else answers.unban(*asked)  # type: ignore[arg-type]
    return error.value.kind, error.value.field


def test_start_and_end_of_a_ban_are_logged(bans: Bans) -> None:
    log = Log()
    bans.listeners.append(BanLog(log.logger))
    for host in (BAD, GOOD):
        for _ in range(10):
            bans.offend(host, "stranger", 1000.0, proven=True)
    bans.expire(5000.0)
    told = [{name: value for name, value in event.items() if name != "timestamp"} for event in log.events()]
    assert told == [
        {"event": "source.banned", "level": "warning", "source": BAD, "reason": "stranger", "for_s": 600},
        {"event": "source.spared", "level": "warning", "source": GOOD, "reason": "stranger"},
        {"event": "source.unbanned", "level": "info", "source": BAD, "reason": "stranger"},
    ]


def test_ban_log_lines_are_rate_limited() -> None:
    log = Log()
    tell = BanLog(log.logger)
    began = time.monotonic()
    for number in range(10_000):
        tell("banned", Ban(f"10.0.{number // 256}.{number % 256}", "stranger", 1.0, 2.0))
    assert len(log.events()) <= LOGGED_PER_S * (time.monotonic() - began + 1)


def test_the_number_of_left_out_lines_is_logged() -> None:
    log = Log()
    tell = BanLog(log.logger)
    ban = Ban(BAD, "stranger", 1.0, 2.0)
    told: list[int] = []
    while not told:
        tell("banned", ban)
        told = [event["left_out"] for event in log.events() if "left_out" in event]
    assert told[0] > 0


def test_an_operator_bans_lists_and_lifts(bans: Bans) -> None:
    answers = BanAnswers(bans)
    before = time.time() * 1000
    made = answers.ban(BAD, 3600.0)
    assert abs(made["until"] - before - 3_600_000) < 60_000
    (shown,) = answers.bans()["bans"]
    assert (shown["address"], shown["reason"]) == (BAD, "operator")
    assert abs(shown["since"] - before) < 60_000
    assert bans.holds(BAD)
    assert answers.unban(BAD) == {"lifted": [BAD]}
    assert not bans.holds(BAD)
    assert answers.bans() == {"bans": []}


def test_a_second_ban_changes_the_end_of_the_first(bans: Bans) -> None:
    answers = BanAnswers(bans)
    answers.ban(BAD, 3600.0)
    later = answers.ban(BAD, 60.0)
    (shown,) = answers.bans()["bans"]
    assert abs(shown["until"] - later["until"]) < 1000


def test_all_bans_can_be_lifted_at_once(bans: Bans) -> None:
    answers = BanAnswers(bans)
    for number in range(3):
        answers.ban(f"192.0.2.{number}", 60.0 + number)
    assert answers.unban() == {"lifted": ["192.0.2.0", "192.0.2.1", "192.0.2.2"]}
    assert answers.unban() == {"lifted": []}


def test_an_address_in_a_banned_network_lifts_the_network(bans: Bans) -> None:
    answers = BanAnswers(bans)
    answers.ban("2001:db8::/64", 60.0)
    assert bans.holds("2001:db8::1")
    assert answers.unban("2001:db8::7") == {"lifted": ["2001:db8::/64"]}
    answers.ban("2001:db8::1", 60.0)
    assert (bans.holds("2001:db8::1"), bans.holds("2001:db8::2")) == (True, False)


def test_impossible_bans_are_refused(bans: Bans) -> None:
    answers = BanAnswers(bans)
    assert refused(answers, GOOD, 60.0) == ("state_conflict", "address")
    assert refused(answers, BAD, 0.0) == refused(answers, BAD, 1e9) == ("invalid", "for_s")
    assert refused(answers, BAD) == ("not_found", "address")


@pytest.mark.parametrize("text", ["carrier.example", "", "192.0.2.0/24", "2001:db8::/48", "2001:db8::1/64", "1.2.3.4;"])
def test_an_invalid_address_is_refused(text: str) -> None:
    with pytest.raises(Refused) as error:
        read_source(text)
    assert (error.value.kind, error.value.field) == ("invalid", "address")


def test_a_dry_run_reports_and_changes_nothing(bans: Bans) -> None:
    answers = BanAnswers(bans)
    assert answers.ban(BAD, 60.0, dry_run=True) == {}
    assert not bans.holds(BAD)
    for asked in ((GOOD, 60.0), (BAD, 0.0)):
        with pytest.raises(Refused):
            answers.ban(*asked, dry_run=True)
    with pytest.raises(Refused):
        answers.unban(BAD, dry_run=True)
    answers.ban(BAD, 60.0)
    assert answers.unban(BAD, dry_run=True) == answers.unban(dry_run=True) == {"lifted": [BAD]}
    assert bans.holds(BAD)
