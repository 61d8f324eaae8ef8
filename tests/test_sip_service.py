"""The service's work each second; its key of nonces; tokens are random, long enough, and unique across pools."""

from __future__ import annotations

import asyncio
import re
from itertools import islice
from pathlib import Path

import pytest

from relay import sip_service
from relay.config import load_config
from relay.sip_service import DIGITS, SipService, tokens
from relay.store.journal.attempts import AttemptFile
from relay.store.sealing.sealer import Sealer
from relay.store.sqlite.journal import sqlite_journal
from tests.net.support import Log
from tests.support.addresses import RELAY, free
from tests.support.places import new_store


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


def test_tokens_are_hexadecimal_random_in_each_digit_and_unique() -> None:
    several = list(islice(tokens(), 2000))
    assert all(re.fullmatch(f"[0-9a-f]{{{DIGITS}}}", token) for token in several)
    assert len(set(several)) == len(several)
    for place in range(DIGITS):
        assert {token[place] for token in several} == set("0123456789abcdef")
