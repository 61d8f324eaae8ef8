"""The service's work each second; tokens are random, long enough, and unique across pools."""

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
from relay.store.sqlite.journal import sqlite_journal
from tests.net.support import Log
from tests.support.addresses import RELAY, free
from tests.support.places import new_store


async def test_exception_in_a_tick_is_logged_and_the_next_one_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, key_file, written = tmp_path / "relay.db", tmp_path / "relay.key", tmp_path / "relay.toml"
    store = f'[store]\nurl = "sqlite:{path}"\nkey_file = "{key_file}"\n'
    written.write_text(f'[sip]\nlisten = ["udp:{free(RELAY)}"]\n{store}[api]\nenabled = false\n')
    sealer, log = new_store(path, key_file), Log()
    journal = sqlite_journal(path, sealer, lambda *_: None)
    attempts = AttemptFile(tmp_path / "relay.db.attempts", sealer, lambda *_: None)
    service = SipService(load_config(written), sealer, journal.queue, attempts, log.logger)
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
