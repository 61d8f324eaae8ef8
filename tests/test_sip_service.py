"""The service's work each second; its key of nonces; tokens are random, long enough, and unique across pools."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from relay import sip_service
from relay.config import load_config
from relay.model.actions import Commit
from relay.model.call import CallRecord
from relay.sip_service import SipService
from relay.store.journal.attempts import AttemptFile
from relay.store.sealing.sealer import Sealer
from relay.store.sqlite.journal import sqlite_journal
from relay.store.sqlite.lookup import GrantedCall, granted_since
from relay.store.writer import now_ms
from tests.net.support import Log
from tests.store.conftest import Waiter
from tests.support.addresses import RELAY, free
from tests.support.places import new_store
from tests.support.stored import ended_record


def made(folder: Path, sealer: Sealer, log: Log) -> SipService:
    """A service that is not opened yet, on the store in that folder."""
    path, written = folder / "relay.db", folder / "relay.toml"
    store = f'[store]\nurl = "sqlite:{path}"\nkey_file = "{folder / "relay.key"}"\n'
    written.write_text(f'[sip]\nlisten = ["udp:{free(RELAY)}"]\n{store}[api]\nenabled = false\n')
    journal = sqlite_journal(path, sealer, lambda *_: None)
    attempts = AttemptFile(folder / "relay.db.attempts", sealer, lambda *_: None)
    return SipService(load_config(written), sealer, journal.queue, attempts, log.logger)


async def test_nonces_of_an_earlier_process_are_known(tmp_path: Path) -> None:
    sealer = new_store(tmp_path / "relay.db", tmp_path / "relay.key")
    before, after = (made(tmp_path, sealer, Log()) for _ in range(2))
    nonce = before._engine._logins._nonces.make("192.0.2.1", "0" * 16, 1.0)
    assert after._engine._logins._nonces.is_ours(nonce, "192.0.2.1")
    assert not after._engine._logins._nonces.is_fresh(nonce, 1.0)
    for service in (before, after):
        await service.close()


async def test_exception_in_a_tick_is_logged_and_the_next_one_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealer, log = new_store(tmp_path / "relay.db", tmp_path / "relay.key"), Log()
    service = made(tmp_path, sealer, log)
    ticks, again = [], asyncio.Event()

    def look() -> None:
        ticks.append(None)
        if len(ticks) == 1:
            raise ValueError("a bug")
        again.set()

    monkeypatch.setattr(sip_service, "TICK_S", 0.01)
    monkeypatch.setattr(service._reader, "look", look)
    await service.open([], [], {}, [])
    try:
        async with asyncio.timeout(20):
            await again.wait()
    finally:
        await service.close()
    assert any("a bug" in event.get("exception", "") for event in log.events())


async def test_calls_that_new_caps_count_are_read_beside_the_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be 100,000 within the memory of the caps; in the loop are read only those since the reading began."""
    path, key_file, written = tmp_path / "relay.db", tmp_path / "relay.key", tmp_path / "relay.toml"
    store = f'[store]\nurl = "sqlite:{path}"\nkey_file = "{key_file}"\n[api]\nenabled = false\n'
    listen = f'[sip]\nlisten = ["udp:{free(RELAY)}"]\n'
    written.write_text(f"{listen}{store}[policy]\ncaller_caps = []\nnumber_caps = []\n")
    sealer, log = new_store(path, key_file), Log()
    journal = sqlite_journal(path, sealer, lambda *_: None)
    attempts = AttemptFile(tmp_path / "relay.db.attempts", sealer, lambda *_: None)
    await journal.open()
    waiter, at_ms = Waiter(), now_ms() - 60_000
    for token in range(1, 4):
        record = ended_record(f"c{token}", received_at=at_ms, ended_at=at_ms)
        journal.queue.append(Commit(token, record, None), waiter)
    await waiter.until(lambda: len(waiter.tokens) == 3)
    service = SipService(load_config(written), sealer, journal.queue, attempts, log.logger)
    reads = []

    def read(place: Path, sealer: Sealer, since_ms: int, known: Iterable[CallRecord]) -> list[GrantedCall]:
        found = granted_since(place, sealer, since_ms, known)
        reads.append((threading.current_thread() is threading.main_thread(), len(found)))
        return found

    monkeypatch.setattr(sip_service, "granted_since", read)
    await service.open([], [], {}, [])
    try:
        written.write_text(f'{listen}{store}[policy]\ncaller_caps = []\nnumber_caps = ["9/5m"]\n')
        await service.reload(load_config(written), dict)
        assert reads == [(False, 3), (True, 0)]
        assert len(service._policy.recent) == 6  # by caller and by number
        await service.reload(load_config(written), dict)
        assert len(reads) == 2
    finally:
        await service.close()
        await journal.close()
