"""Relays that run for a test, and are checked when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.support.relay_process import A, B, RelayProcess, Setup

if TYPE_CHECKING:
    from tests.support.console_browser import Room

StartRelay = Callable[..., RelayProcess]
PASSWORD = "open-sesame"


@contextmanager
def running_relay(folder: Path, setup: Setup, real_numbers: Sequence[str] = (A, B)) -> Iterator[RelayProcess]:
    """Started; stopped and checked at the end, also where the test failed."""
    relay = RelayProcess(folder, setup, real_numbers)
    relay.start()
    try:
        yield relay
    except BaseException:
        relay.stop()
        print(relay.log_tail())
        raise
    relay.stop_and_check()


@pytest.fixture
def start_relay(tmp_path: Path) -> Iterator[StartRelay]:
    """Starts one relay for the test. Called as `start_relay(setup, real_numbers)`."""
    relays: list[RelayProcess] = []

    def start(setup: Setup | None = None, real_numbers: Sequence[str] = (A, B)) -> RelayProcess:
        relay = RelayProcess(tmp_path, setup or Setup(), real_numbers)
        relays.append(relay)
        relay.start()
        return relay

    yield start
    for relay in relays:
        relay.stop_and_check()


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.touch(0o600)
    path.write_text(f"{PASSWORD}\n")
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def room(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Room]:
    """The console's relay and a browser, for a module. Imported late: only its tests need Playwright."""
    from tests.support.console import ground
    from tests.support.console_browser import Room, chromium

    async with chromium() as browser, ground(tmp_path_factory.mktemp("console")) as made:
        yield Room(made, browser, {})
