"""Opening, migrating and keying a store."""

from __future__ import annotations

import os
import re
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from relay.errors import Refused, StoreError
from relay.store.connection import Connection
from relay.store.database import (
    MOST_KEPT,
    Reader,
    connect,
    connect_reader,
    one_moment,
    open_store,
    store_errors,
    transaction,
    why_unfit,
)
from tests.store.conftest import Disk, opened
from tests.support.limits import soft_limit
from tests.support.namespace import reran_with_own_mounts
from tests.support.postgres import database_of, drop, new_place


@pytest.mark.usefixtures("leaves_deleted")
def test_what_is_deleted_does_not_stay_in_the_file(disk: Disk) -> None:
    with closing(connect(disk.path)) as connection:
        connection.execute("CREATE TABLE gone (text)")
        connection.execute("INSERT INTO gone VALUES ('deleted later')")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert b"deleted later" in disk.path.read_bytes()
        connection.execute("DELETE FROM gone")
    assert b"deleted later" not in disk.path.read_bytes()


def test_new_store_is_private_complete_and_in_wal_mode(disk: Disk) -> None:
    assert disk.path.stat().st_mode & 0o777 == 0o600
    assert disk.path.parent.stat().st_mode & 0o777 == 0o700
    with closing(connect(disk.path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert connection.execute("SELECT id, state FROM business").fetchall() == [("default", "approved")]
        assert [file.stat().st_mode & 0o777 for file in disk.path.parent.glob("relay.db-*")] == [0o600, 0o600]


def test_the_log_gives_its_room_back_after_a_long_reading(disk: Disk) -> None:
    log = disk.path.with_name("relay.db-wal")
    with closing(connect(disk.path)) as connection, closing(connect_reader(disk.path)) as reader:
        connection.execute("CREATE TABLE noted (a)")
        with one_moment(reader):
            reader.execute("SELECT * FROM noted").fetchall()
            for _ in range(80):
                connection.execute("INSERT INTO noted VALUES (zeroblob(1000000))")
            assert log.stat().st_size > 80_000_000
        for _ in range(3):  # a checkpoint; the log begins anew
            connection.execute("INSERT INTO noted VALUES (1)")
        assert log.stat().st_size <= 64 << 20


def test_opening_again_changes_nothing(disk: Disk) -> None:
    again = open_store(disk.path, disk.key_file)
    assert again.lookup_hash("1") == disk.sealer.lookup_hash("1")


def test_opening_again_leaves_the_locks_of_open_connections(disk: Disk) -> None:
    """Without its lock another process takes itself for the last one, and deletes the log with what is in it."""
    with closing(connect(disk.path)) as connection:
        connection.execute("CREATE TABLE noted (a)")
        open_store(disk.path, disk.key_file)
        read = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT * FROM noted')"
        subprocess.run([sys.executable, "-c", read, disk.path], check=True)
        assert disk.path.with_name("relay.db-wal").exists()


def test_lost_key_is_not_replaced(disk: Disk) -> None:
    disk.key_file.unlink()
    with pytest.raises(StoreError, match="put it back"):
        open_store(disk.path, disk.key_file)
    assert not disk.key_file.exists()


@pytest.mark.parametrize("lost", [Path.unlink, lambda path: os.truncate(path, 0)], ids=["missing", "empty"])
async def test_lost_store_that_was_served_is_not_replaced(disk: Disk, lost: Callable[[Path], None]) -> None:
    async with opened(disk):
        pass
    lost(disk.path)
    with pytest.raises(StoreError, match=r"was served before.*relay\.db\.lock to begin a new one"):
        open_store(disk.path, disk.key_file)
    assert not disk.path.exists() or not disk.path.stat().st_size
    disk.path.with_name("relay.db.lock").unlink()
    open_store(disk.path, disk.key_file)


def test_key_of_another_store_is_refused(disk: Disk, tmp_path: Path) -> None:
    open_store(tmp_path / "other.db", tmp_path / "other.key")
    with pytest.raises(StoreError, match="belongs to another store"):
        open_store(disk.path, tmp_path / "other.key")


def test_store_opens_while_another_process_writes(disk: Disk) -> None:
    with closing(connect(disk.path)) as other, transaction(other):
        assert open_store(disk.path, disk.key_file).key_id == disk.sealer.key_id


def test_store_with_additions_of_a_newer_version_opens(disk: Disk) -> None:
    with closing(connect(disk.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    open_store(disk.path, disk.key_file)
    with closing(connect(disk.path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)


def test_store_that_requires_a_newer_version_is_refused(disk: Disk) -> None:
    with closing(connect(disk.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute("UPDATE schema_least SET least = 99")
    with pytest.raises(StoreError, match=r"another relay700 \(schema 99\)"):
        open_store(disk.path, disk.key_file)


def test_file_that_is_not_a_store_is_refused_and_unchanged(disk: Disk, tmp_path: Path) -> None:
    strange = tmp_path / "strange.db"
    strange.write_bytes(b"no database at all, and long enough for a header" * 50)
    strange.chmod(0o600)
    before = strange.read_bytes()
    with pytest.raises(StoreError, match=r"strange\.db failed"):
        open_store(strange, disk.key_file)
    assert strange.read_bytes() == before


def test_error_names_a_folder_that_cannot_be_created(disk: Disk) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(disk.path / "below" / "relay.db", disk.key_file)


def _fill(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA max_page_count = 1")
    connection.execute("INSERT INTO pool (id, area, created_at) VALUES ('p', ?, 0)", ("x" * 100_000,))


def _write(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO pool (id, area, created_at) VALUES ('p', '', 0)")


@pytest.mark.parametrize(
    ("open_", "deed", "said"),
    [
        (connect, _fill, "database or disk is full: make room on its disk"),
        (connect_reader, _write, "attempt to write a readonly database: "),
    ],
)
def test_error_says_what_to_do(
    disk: Disk, open_: Callable[[Path], sqlite3.Connection], deed: Callable[[sqlite3.Connection], None], said: str
) -> None:
    with pytest.raises(StoreError) as failed, store_errors(disk.path), closing(open_(disk.path)) as connection:
        deed(connection)
    assert str(failed.value).startswith(f"the store {disk.path} failed: {said}")


@pytest.mark.parametrize("open_", [connect, connect_reader])
def test_error_says_that_the_file_system_is_read_only(
    request: pytest.FixtureRequest, disk: Disk, open_: Callable[[Path], sqlite3.Connection]
) -> None:
    if reran_with_own_mounts(request):
        return
    folder = str(disk.path.parent)
    for options in (["--bind", folder], ["-o", "remount,bind,ro"]):
        subprocess.run(["mount", *options, folder], check=True)
    with pytest.raises(StoreError) as failed, store_errors(disk.path), closing(open_(disk.path)) as connection:
        connection.execute("SELECT * FROM business").fetchall()
    fault = f"the store {disk.path} failed: unable to open database file"
    assert str(failed.value) == f"{fault}: its file system is read-only: mount it for writing"


def test_error_says_that_no_descriptors_are_left(disk: Disk) -> None:
    with pytest.raises(StoreError) as failed, soft_limit(resource.RLIMIT_NOFILE, 3), store_errors(disk.path):
        connect(disk.path)
    assert "unable to open database file: no file descriptors are left: raise the limit" in str(failed.value)


def test_error_of_a_damaged_store_advises_a_backup(disk: Disk) -> None:
    disk.path.write_bytes(b"\xff" * 8_192)
    with pytest.raises(StoreError, match="put a backup in its place"), store_errors(disk.path):
        connect(disk.path)


def test_reader_cannot_write_and_sees_each_commit(disk: Disk) -> None:
    with closing(connect(disk.path)) as writer, closing(connect_reader(disk.path)) as reader:
        with pytest.raises(sqlite3.OperationalError):
            reader.execute("DELETE FROM business")
        with transaction(writer):
            writer.execute("INSERT INTO cursor VALUES ('a', 1)")
            assert reader.execute("SELECT count(*) FROM cursor").fetchone() == (0,)
        assert reader.execute("SELECT count(*) FROM cursor").fetchone() == (1,)


def test_failed_transaction_leaves_nothing(disk: Disk) -> None:
    with closing(connect(disk.path)) as connection:
        with pytest.raises(sqlite3.IntegrityError), transaction(connection):
            connection.execute("INSERT INTO cursor VALUES ('a', 1)")
            connection.execute("INSERT INTO cursor VALUES ('a', 1)")
        assert connection.execute("SELECT count(*) FROM cursor").fetchone() == (0,)


# -- The read connection that survives faults of the store


def businesses(connection: sqlite3.Connection) -> list[tuple[str]]:
    return connection.execute("SELECT id FROM business").fetchall()


def test_reader_reconnects_after_an_error(disk: Disk) -> None:
    with closing(Reader(disk.path)) as reader, closing(connect(disk.path)) as saboteur:
        assert reader.read(businesses) == [("default",)]
        saboteur.execute("ALTER TABLE business RENAME TO gone")
        with pytest.raises(StoreError, match="no such table"):
            reader.read(businesses)
        assert not reader._idle
        saboteur.execute("ALTER TABLE gone RENAME TO business")
        assert reader.read(businesses) == [("default",)]


def test_query_sees_one_snapshot(disk: Disk) -> None:
    """A row and its proof must belong together."""
    with closing(Reader(disk.path)) as reader, closing(connect(disk.path)) as writer:

        def twice(connection: sqlite3.Connection) -> list[list[tuple[str]]]:
            first = businesses(connection)
            writer.execute("UPDATE business SET id = 'other'")
            return [first, businesses(connection)]

        assert reader.read(twice) == [[("default",)]] * 2
        assert reader.read(businesses) == [("other",)]


def test_missing_store_is_not_created(disk: Disk) -> None:
    disk.path.unlink()
    with closing(Reader(disk.path)) as reader, pytest.raises(StoreError, match="unable to open"):
        reader.read(businesses)
    assert not disk.path.exists()


# -- The backup command of docs/STORE.md: the copy is private and can be restored


(COMMAND,) = re.findall(r"^.*\.backup copy\.db.*$", Path("docs/STORE.md").read_text(), re.MULTILINE)


@contextmanager
def committing(path: Path) -> Iterator[None]:
    """A store of 40 MB with a writer that commits all the time, as under traffic."""
    fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) "
    is_over = threading.Event()

    def work() -> None:
        with closing(connect(path)) as writer:
            while not is_over.is_set():
                writer.execute("UPDATE cursor SET at = at + 1 WHERE name = 'a'")

    with closing(connect(path)) as connection:
        connection.execute(f"{fill} INSERT INTO cursor SELECT printf('%01000d', i), 0 FROM n")
        connection.execute("INSERT INTO cursor VALUES ('a', 0)")
        with ThreadPoolExecutor() as threads:
            working = threads.submit(work)
            try:
                yield
            finally:
                is_over.set()
            working.result()


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs sqlite3 (apt install sqlite3)")
def test_documented_backup_command_makes_a_private_restorable_copy(disk: Disk, tmp_path: Path) -> None:
    with committing(disk.path):
        command = ["bash", "-c", f"umask 022; {COMMAND}"]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=20)
    assert (done.stdout, done.stderr) == (b"", b"")
    copy = tmp_path / "copy.db"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    copy.rename(disk.path)
    for suffix in ("-wal", "-shm"):
        disk.path.with_name(disk.path.name + suffix).unlink(missing_ok=True)
    open_store(disk.path, disk.key_file)


def test_queries_at_once_have_a_connection_each_and_later_ones_take_these(disk: Disk) -> None:
    reader = Reader(disk.path)
    outer, inner = reader.read(lambda one: (one, reader.read(lambda other: other)))
    assert outer is not inner
    with ThreadPoolExecutor() as threads:
        assert threads.submit(reader.read, lambda one: one).result() is outer
    with pytest.raises(Refused):
        reader.read(_refuse)
    assert reader.read(lambda one: one) is outer
    reader.close()


def test_few_connections_are_kept(disk: Disk) -> None:
    with closing(Reader(disk.path)) as reader:

        def nested(depth: int) -> None:
            if depth:
                reader.read(lambda _: nested(depth - 1))

        nested(MOST_KEPT + 2)
        assert len(reader._idle) == MOST_KEPT


def test_reader_tells_of_each_commit(disk: Disk) -> None:
    reader = Reader(disk.path)
    with closing(reader), closing(connect(disk.path)) as writer:
        seen = reader.changes()
        assert reader.changes() == seen
        reader.read(businesses)
        assert reader.changes() == seen
        with transaction(writer):
            writer.execute("INSERT INTO cursor VALUES ('a', 1)")
            assert reader.changes() == seen
        assert reader.changes() != seen
        seen = reader.changes()
        reader.close()
        assert reader.changes() != seen


def _refuse(_: Connection) -> None:
    raise Refused("not_found", "", "")


# -- Servers that are no PostgreSQL


POSTGRESQL = (
    "PostgreSQL 17.0 (Debian 17.0-1.pgdg120+1) on x86_64-pc-linux-gnu, compiled by gcc (Debian 12.2.0-14), 64-bit"
)
COCKROACH = "CockroachDB CCL v24.3.1 (x86_64-pc-linux-gnu, built 2024/12/09 19:08:18, go1.22.8)"
YUGABYTE = "PostgreSQL 15.2-YB-2025.1.0.0-b0 on x86_64-pc-linux-gnu, compiled by clang version 17.0.6, 64-bit"


@pytest.mark.parametrize(
    ("version", "name"), [(POSTGRESQL, None), (COCKROACH, "CockroachDB"), (YUGABYTE, "YugabyteDB")]
)
def test_servers_that_lack_what_the_store_relies_on_are_known_by_name(version: str, name: str | None) -> None:
    why = why_unfit(version)
    assert (why is None) is (name is None)
    assert name is None or str(why).startswith(f"it is {name}, ")


@pytest.mark.parametrize(("version", "name"), [(COCKROACH, "CockroachDB"), (YUGABYTE, "YugabyteDB")])
def test_such_a_server_is_refused_at_the_start_and_left_as_it_is(tmp_path: Path, version: str, name: str) -> None:
    """A PostgreSQL that calls itself so: `version` of a schema before the server's own."""
    place = new_place(tmp_path)
    try:
        with psycopg.connect(place.url, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA other")
            for statement in (
                f"CREATE FUNCTION other.version() RETURNS text LANGUAGE sql AS $$ SELECT '{version}' $$",
                f'ALTER DATABASE "{database_of(place)}" SET search_path = other, pg_catalog, public',
            ):
                connection.execute(statement.encode())
        with pytest.raises(StoreError, match=f"cannot be used: it is {name}, .*: use PostgreSQL 15 or later$"):
            open_store(place, tmp_path / "relay.key")
        assert not (tmp_path / "relay.key").exists()
        with psycopg.connect(place.url) as connection:
            query = "SELECT count(*) FROM pg_class WHERE relnamespace = CAST('public' AS regnamespace)"
            assert connection.execute(query).fetchone() == (0,)
    finally:
        drop(place)
