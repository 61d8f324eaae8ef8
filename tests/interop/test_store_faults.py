"""The store of a running relay fails: calls go on, or are refused where nobody can be looked up, until it is over.

Nothing that was promised is lost, and the log says once what it is.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.addresses import RELAY, free
from tests.support.relay_process import RelayProcess, Setup
from tests.support.store_faults import FAULTS, mount_small, outlives, reran_with_own_disk

pytestmark = pytest.mark.outside


@pytest.fixture
def folder() -> Iterator[Path]:
    """Of the store alone, on a disk: in memory an immutable file that is open takes writes."""
    with tempfile.TemporaryDirectory(prefix="relay700-", dir="/var/tmp", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.fixture
def relay(tmp_path: Path, folder: Path) -> Iterator[RelayProcess]:
    made = RelayProcess(tmp_path, Setup(api=free(RELAY), store_in=folder))
    yield made
    made.stop_if_running()


def _prepare(folder: Path, needs: str) -> None:
    if needs == "small":
        mount_small(folder)
    elif needs == "attributes":
        probe = folder / "probe"
        probe.touch()
        for sign in "+-":
            if subprocess.run(["chattr", f"{sign}i", str(probe)], check=False, capture_output=True).returncode:
                pytest.skip("files cannot be made immutable here")
        probe.unlink()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", FAULTS)
async def test_calls_go_on_or_are_refused_and_nothing_is_lost(
    request: pytest.FixtureRequest, relay: RelayProcess, folder: Path, name: str
) -> None:
    fault = FAULTS[name]
    if reran_with_own_disk(request, fault):
        return
    _prepare(folder, fault.needs)
    await asyncio.to_thread(relay.start)
    await asyncio.to_thread(relay.bind)
    await asyncio.to_thread(relay.wait_for_event, "backend.ready")
    await outlives(relay, fault)
    assert await asyncio.to_thread(relay.stop) == 0
    _check_log(relay, fault.tells)


def _check_log(relay: RelayProcess, tells: bool | None) -> None:
    """Each cause once, with the store, why, and what comes of it."""
    errors = [event for event in relay.events() if event["level"] in ("warning", "error", "critical")]
    assert tells is None or bool(errors) == tells
    told = Counter((event["event"], event.get("reason")) for event in errors)
    assert set(told.values()) <= {1}, told
    for event in errors:
        if event["event"] in ("journal.write_failed", "lookup.failed"):
            assert event["store"], event
            assert event["reason"], event
            assert event["effect"], event
    assert "Traceback" not in relay.log()
    recovered = [event for event in relay.events() if event["event"] == "journal.recovered"]
    assert tells is None or len(recovered) == int(tells)


async def test_the_commands_say_what_is_missing_and_make_nothing_in_its_place(
    relay: RelayProcess, folder: Path
) -> None:
    await asyncio.to_thread(relay.start)
    await asyncio.to_thread(relay.bind)
    for name, words in (
        ("key_gone", "is missing: put it back"),
        ("moved", "there is no store"),
        ("emptied", "is empty"),
    ):
        undo = FAULTS[name].happens(folder)
        said = await asyncio.to_thread(relay.command, "bindings", "list")
        assert (said.returncode, said.stdout) == (1, "")
        assert words in said.stderr
        undo()
    said = await asyncio.to_thread(relay.command, "bindings", "list")
    assert said.returncode == 0
    assert "700100000010001" in said.stdout
