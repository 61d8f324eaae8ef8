"""The partitions of captures on a server: one a day, made on demand and dropped when they are past."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.store.captures import Captures
from relay.store.connection import PostgresServer, one_moment
from relay.store.database import connect
from relay.store.ledger_check import ledger_faults
from relay.store.sealing.sealer import Sealer
from tests.support.captured import captured
from tests.support.places import new_server_store
from tests.support.postgres import drop, shared_server
from tests.support.stored import NOW_MS

DAY_MS = 86_400_000
MIDNIGHT_MS = NOW_MS // DAY_MS * DAY_MS
BIG = 1 << 40


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[PostgresServer, Sealer]]:
    place, sealer = new_server_store(tmp_path)
    yield place, sealer
    drop(place)


def partitions(place: PostgresServer) -> list[str]:
    query = "SELECT tablename FROM pg_tables WHERE tablename LIKE 'capture%2%' ORDER BY 1"
    with closing(connect(place)) as connection:
        return [name for (name,) in connection.execute(query).fetchall()]


def test_a_day_has_a_partition_and_loses_it(server: tuple[PostgresServer, Sealer]) -> None:
    with closing(Captures(*server)) as captures:
        captures.save([captured(day, MIDNIGHT_MS + day * DAY_MS) for day in range(4)])
        captures.save([captured(9, MIDNIGHT_MS + 4 * DAY_MS - 1)])
        assert len(made := partitions(server[0])) == 4
        assert captures.trim(BIG, MIDNIGHT_MS + 2 * DAY_MS) == 2
        assert partitions(server[0]) == made[2:]
        assert captures.trim(BIG, MIDNIGHT_MS + 9 * DAY_MS) == 3
        assert partitions(server[0]) == []
        captures.save([captured(1)])
        assert captures.sizes().rows == 1


def test_name_of_a_partition_is_run_as_no_statement(server: tuple[PostgresServer, Sealer]) -> None:
    with closing(Captures(*server)) as captures, closing(connect(server[0])) as thief:
        captures.save([captured(1, MIDNIGHT_MS)])
        name = '"capture; CREATE TABLE evil ()"'
        thief.execute(f"CREATE TABLE {name} PARTITION OF capture FOR VALUES FROM (0) TO (1)")
        captures.trim(BIG, MIDNIGHT_MS)
        assert thief.execute("SELECT to_regclass('evil')").fetchone() == (None,)


def test_a_dump_without_captures_is_a_whole_store(server: tuple[PostgresServer, Sealer], tmp_path: Path) -> None:
    """With the option that the manual names."""
    place, sealer = server
    options = {*re.findall(r"(--exclude-table\S*)='([^']+)'", Path("docs/STORE.md").read_text())}
    with closing(Captures(*server)) as captures:
        captures.save([captured(1)])
    copy = place._replace(url=shared_server().url(shared_server().new_database()))
    dump = str(tmp_path / "store.dump")
    subprocess.run(["pg_dump", *map("=".join, options), "--format=custom", f"--file={dump}", place.url], check=True)
    subprocess.run(["pg_restore", "--exit-on-error", f"--dbname={copy.url}", dump], check=True)
    with closing(connect(copy)) as connection, one_moment(connection):
        assert [str(fault) for fault in ledger_faults(connection, sealer)] == []
    with closing(Captures(copy, sealer)) as captures:
        assert captures.sizes().rows == 0
    drop(copy)


def test_nodes_may_make_a_partition_at_once(server: tuple[PostgresServer, Sealer]) -> None:
    start = threading.Barrier(4)
    failed: list[Exception] = []

    def save(number: int) -> None:
        with closing(Captures(*server)) as captures:
            captures.sizes()  # connects
            start.wait(20)
            try:
                captures.save([captured(number)])
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with closing(Captures(*server)) as captures:
        assert captures.sizes().rows == 4
