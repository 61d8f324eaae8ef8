"""The backend beside a running relay: it serves, is restarted, stops with the relay, and never delays a call."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from relay.backend import BackendProcess, _RingingWriter
from relay.config import parse_config
from relay.errors import Refused
from relay.log import configure
from relay.net.bell import Bell
from relay.net.control import ControlClient
from relay.store.chain import AnchorFile, read_anchor
from relay.store.database import connect_reader, open_store
from relay.store.sealing.sealer import load_key
from relay.store.unit_of_work import RELAY as OURS
from relay.store.unit_of_work import Actor, UnitOfWork
from tests.support.addresses import RELAY, free
from tests.support.certificates import write_certificate
from tests.support.live_call import Call, call
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, B, RelayProcess, Setup, X
from tests.support.waiting import until_seen

pytestmark = pytest.mark.outside

PATIENCE_S = 20.0


@contextmanager
def running(folder: Path, setup: Setup) -> Iterator[RelayProcess]:
    process = RelayProcess(folder, setup)
    process.start()
    process.bind()
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    with running(tmp_path, Setup(sip={"drain_s": 60}, api=free(RELAY))) as process:
        process.wait_for_event("api.listening")
        yield process


def get(relay: RelayProcess, path: str) -> httpx.Response:
    return httpx.get(f"http://{relay.setup.api}{path}", trust_env=False, timeout=PATIENCE_S)


def control(relay: RelayProcess) -> ControlClient:
    return ControlClient(relay.folder / "relay.db.control")


def backend_pid(relay: RelayProcess, after: int = 0) -> int:
    return int(relay.wait_for_event("backend.started", after=after)["pid"])


def lines(relay: RelayProcess) -> int:
    return len(relay.log().splitlines())


def wait_until_gone(pid: int) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < until_s, f"process {pid} is still alive"
        time.sleep(0.02)


def test_http_is_served_while_the_relay_runs(relay: RelayProcess) -> None:
    assert get(relay, "/healthz").json() == {"status": "ok"}
    assert get(relay, "/readyz").status_code == 200
    assert "relay700_up 1.0" in get(relay, "/metrics").text


def test_metrics_say_that_the_store_cannot_be_read(relay: RelayProcess) -> None:
    store, aside = relay.folder / "relay.db", relay.folder / "aside.db"
    assert "relay700_store_up 1.0" in get(relay, "/metrics").text
    store.rename(aside)
    answer = get(relay, "/metrics")
    assert answer.status_code == 200
    assert "relay700_store_up 0.0" in answer.text
    assert "relay700_up 1.0" in answer.text
    assert "relay700_outbox_waiting" not in answer.text
    aside.rename(store)
    assert "relay700_store_up 1.0" in get(relay, "/metrics").text


async def test_captures_that_cannot_be_read_hide_nothing_of_the_store(tmp_path: Path) -> None:
    backend = BackendProcess(
        parse_config(Setup(api=free(RELAY)).toml(tmp_path), "relay.toml"), configure("json", "info")
    )
    try:
        assert b"relay700_captures_stored 0.0" in await backend.metrics()
        (tmp_path / "relay.db.captures").symlink_to(tmp_path / "relay.db")
        metrics = await backend.metrics()
    finally:
        await backend.close()
    assert b"relay700_store_up 1.0" in metrics and b"relay700_outbox_waiting 0.0" in metrics
    assert b"relay700_captures_stored" not in metrics


def test_no_backend_starts_when_the_api_is_disabled(tmp_path: Path) -> None:
    with running(tmp_path, Setup()) as relay:
        assert relay.stop() == 0
        assert not [event for event in relay.events() if event["event"].startswith("backend.")]


async def test_no_call_events_are_stored_without_a_backend(tmp_path: Path) -> None:
    with running(tmp_path, Setup()) as relay:
        assert relay.command("business", "limits", "default", "--live-events").returncode == 0
        async with call(relay) as up:
            await up.hang_up()
        with closing(sqlite3.connect(tmp_path / "relay.db")) as connection:
            assert connection.execute("SELECT count(*) FROM call_event").fetchone() == (0,)


def test_the_backend_stops_with_the_relay(relay: RelayProcess) -> None:
    pid = backend_pid(relay)
    assert relay.stop() == 0
    wait_until_gone(pid)
    assert [event for event in relay.events() if event["level"] in ("warning", "error")] == []
    assert not (relay.folder / "relay.db.control").exists()


def test_the_backend_exits_when_the_relay_is_killed_and_the_next_relay_starts_another(relay: RelayProcess) -> None:
    pid = backend_pid(relay)
    relay.kill()
    wait_until_gone(pid)
    mark = lines(relay)
    relay.start()
    assert backend_pid(relay, mark) != pid
    relay.wait_for_event("api.listening", after=mark)
    assert get(relay, "/readyz").status_code == 200


async def test_a_killed_backend_is_restarted_without_disturbing_calls(relay: RelayProcess) -> None:
    mark = lines(relay)
    async with call(relay) as up:
        os.kill(backend_pid(relay), signal.SIGKILL)
        await asyncio.to_thread(relay.wait_for_event, "backend.ended", after=mark)
        await up.hang_up()
        another = Call(relay, up.caller, up.callee)
        await another.answer()
        await another.hang_up()
    await asyncio.to_thread(relay.wait_for_event, "api.listening", after=mark)
    assert get(relay, "/readyz").status_code == 200
    assert "relay700_backend_starts_total 2.0" in get(relay, "/metrics").text
    assert [record["outcome"] for record in relay.calls()] == ["answered", "answered"]


async def test_the_backend_does_not_work_on_a_store_that_was_put_back(relay: RelayProcess) -> None:
    """It would give out the numbers of bindings that the store lacks. Calls go on until the relay sees a change."""
    path = relay.folder / "relay.db"
    file = AnchorFile(path, load_key(relay.folder / "relay.key"))
    pid = backend_pid(relay)
    os.kill(pid, signal.SIGSTOP)  # it writes the file, too
    with closing(connect_reader(path)) as connection:
        later = read_anchor(connection, load_key(relay.folder / "relay.key"))
    file.write(later._replace(revision=later.revision + 1))
    mark = lines(relay)
    os.kill(pid, signal.SIGKILL)
    await until_seen(lambda: [event["status"] for event in relay.events(mark) if event["event"] == "backend.ended"][1:])
    assert "an earlier copy of the store was put in its place" in relay.log()
    assert all(event["event"] != "api.listening" for event in relay.events(mark))
    async with call(relay) as up:
        await up.hang_up()
    assert relay.stop() == 0
    assert file.read() == later._replace(revision=later.revision + 1)


async def test_the_backend_exits_when_its_writer_fails(tmp_path: Path) -> None:
    """The relay then starts another one; this one could answer no request."""

    class Bug(BaseException):
        pass

    def die(_: UnitOfWork) -> None:
        raise Bug

    backend = BackendProcess(
        parse_config(Setup(api=free(RELAY)).toml(tmp_path), "relay.toml"), configure("json", "info")
    )
    served = asyncio.ensure_future(backend.run(asyncio.Event()))
    waits = asyncio.ensure_future(backend.writer.run(OURS, die))
    try:
        assert await asyncio.wait_for(served, PATIENCE_S) == 1
    finally:
        waits.cancel()
        await backend.close()


def test_the_backend_has_its_own_session(relay: RelayProcess) -> None:
    assert os.getsid(backend_pid(relay)) != os.getsid(relay.pid)


async def test_during_a_drain_the_api_serves_but_is_not_ready(relay: RelayProcess) -> None:
    async with call(relay) as up:
        os.kill(relay.pid, signal.SIGTERM)
        await asyncio.to_thread(relay.wait_for_event, "relay.draining")
        assert get(relay, "/readyz").status_code == 503
        assert get(relay, "/healthz").status_code == 200
        assert (await control(relay).ask("state"))["state"] == "draining"
        await up.hang_up()
    await asyncio.to_thread(relay.wait_for_event, "relay.stopped")


async def test_a_live_call_is_listed_masked_and_can_be_hung_up(relay: RelayProcess) -> None:
    ask = control(relay).ask
    async with call(relay) as up:
        [shown] = (await ask("live"))["calls"]
        assert (shown["caller"], shown["callee"], shown["business"]) == ("138****0001", "139****0002", "default")
        assert "caller_leg_call_id" not in shown
        assert A not in json.dumps(shown) and B not in json.dumps(shown)
        [revealed] = (await ask("live", business="default", reveal=True))["calls"]
        assert (revealed["caller"], revealed["callee"]) == (f"86{A}", f"86{B}")
        assert await ask("call", call_id=shown["call_id"], business="default") == shown
        with pytest.raises(Refused):
            await ask("call", call_id=shown["call_id"], business="another")
        assert await ask("hang_up", call_id=shown["call_id"], dry_run=True) == {"call_id": shown["call_id"]}
        assert [one["call_id"] for one in (await ask("live"))["calls"]] == [shown["call_id"]]
        assert await ask("live", business="another") == {"calls": [], "total": 0}
        for wrong in ({"call_id": "no such call"}, {"call_id": shown["call_id"], "business": "another"}):
            with pytest.raises(Refused) as refused:
                await ask("hang_up", **wrong)
            assert refused.value.kind == "not_found"
        assert await ask("hang_up", call_id=shown["call_id"], business="default") == {"call_id": shown["call_id"]}
        for phone, leg in ((up.caller, up.leg), (up.callee, up.called)):
            await leg.answer(await phone.expect("BYE"), 200)
    await until_seen(lambda: relay.calls()[0]["ended_by"])  # BYE goes out before the record is closed
    [record] = relay.calls()
    assert (record["ended_by"], record["end_reason"]) == ("relay", "hung_up")
    assert (await ask("live"))["calls"] == []


async def test_refusals_are_counted_by_outcome(relay: RelayProcess) -> None:
    relay.command("business", "suspend", "default", "--reason", "a test")
    async with Phone(relay.setup.caller) as phone:
        leg = Leg.calling(phone, relay.setup.relay, A, X)
        branch = await leg.request("INVITE", body=SDP)
        await phone.expect(403, "INVITE")
        await leg.request("ACK", branch=branch, cseq=1)
    assert 'relay700_refused_total{outcome="business_suspended"} 1.0' in get(relay, "/metrics").text


def test_an_api_address_in_use_is_reported_once_and_retried(relay: RelayProcess, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    with running(folder, Setup(api=relay.setup.api)) as second:
        told = second.wait_for_event("api.cannot_listen")
        assert (told["port"], told["reason"]) == (relay.setup.api.port, "Address already in use")  # type: ignore[union-attr]
        assert "api.listen" in told["effect"]
        relay.stop()
        second.wait_for_event("api.listening")
        assert get(second, "/healthz").status_code == 200
        assert [event["event"] for event in second.events()].count("api.cannot_listen") == 1


def test_https_is_served_with_a_certificate(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    setup = Setup(api=free(RELAY), api_more={"certificate": str(certificate), "key": str(key)})
    with running(tmp_path, setup) as relay:
        relay.wait_for_event("api.listening")
        context = ssl.create_default_context(cafile=str(certificate))
        secret = relay.answer("keys", "make", "--operator", "--json")["secret"]
        headers = {"authorization": f"Bearer {secret}"}
        with httpx.Client(base_url=f"https://{setup.api}", verify=context, trust_env=False, headers=headers) as client:
            assert client.get("/healthz").json() == {"status": "ok"}
            assert [one["id"] for one in client.get("/v1/businesses").json()["items"]] == ["default"]
        with pytest.raises(httpx.TransportError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"https://{setup.api}/healthz", trust_env=False, timeout=PATIENCE_S)
        with pytest.raises(httpx.TransportError):
            get(relay, "/healthz")


def test_a_certificate_renewed_in_place_is_served_after_a_reload(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    setup = Setup(api=free(RELAY), api_more={"certificate": str(certificate), "key": str(key)})
    assert setup.api is not None
    with running(tmp_path, setup) as relay:
        relay.wait_for_event("api.listening")
        assert ssl.get_server_certificate(setup.api, timeout=PATIENCE_S) == certificate.read_text()
        write_certificate(tmp_path)
        assert relay.command("reload").returncode == 0
        relay.wait_for_event("backend.reloaded")
        assert ssl.get_server_certificate(setup.api, timeout=PATIENCE_S) == certificate.read_text()


async def test_a_change_of_a_client_rings_for_the_deliverer_and_the_relays_own_do_not(tmp_path: Path) -> None:
    bell, path = Bell(), tmp_path / "relay.db"
    writer = _RingingWriter(path, open_store(path, tmp_path / "relay.key"), bell)
    try:
        await writer.run(OURS, lambda unit: None)
        assert not bell._rung.is_set()
        await writer.run(Actor("key:1", "default", frozenset()), lambda unit: None)
        assert bell._rung.is_set()
    finally:
        await writer.close()
