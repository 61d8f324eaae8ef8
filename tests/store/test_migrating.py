"""Running the scripts of a later version: beside other users, by several processes at once, and after a kill."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from relay.errors import StoreError
from relay.store import database
from relay.store.connection import Connection, Place, PostgresServer
from relay.store.database import connect, connect_reader, one_moment, open_store
from relay.store.scripts import Script, schema_of, scripts_of
from relay.store.sealing import keys as rotation
from relay.store.sealing.sealer import load_key, make_key
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.support import postgres
from tests.support.newer import FILE, SERVER, Newer
from tests.support.relay_process import RelayProcess, Setup

BOTH = ["file", pytest.param("server", marks=pytest.mark.outside)]
ENDLESS = {
    FILE: "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n;\n",
    SERVER: "SELECT count(*) FROM generate_series(1, 1000000000000);\n",
}
TWO = ("CREATE TABLE one (id bigint);\n", "CREATE TABLE two (id bigint);\n")


class Store(NamedTuple):
    place: Place
    key_file: Path
    kind: str  # of scripts

    def open(self) -> None:
        open_store(self.place, self.key_file)

    def ask(self, question: str) -> object:
        with closing(connect_reader(self.place)) as connection:
            return connection.execute(question).fetchall()

    def tables(self) -> set[str]:
        """The tables made by the scripts below."""
        names = "SELECT name FROM sqlite_master" if self.kind == FILE else "SELECT tablename FROM pg_tables"
        found = self.ask(names)
        assert isinstance(found, list)
        return {name for (name,) in found} & {"one", "two"}

    @property
    def seen(self) -> int:
        """The number of scripts seen beyond those of this version."""
        schema = schema_of(self.place)
        with closing(connect_reader(self.place)) as connection:
            return schema.seen(connection) - len(scripts_of(schema))

    def config(self, folder: Path) -> Path:
        folder.mkdir()
        values = {"key_file": str(self.key_file)}
        if isinstance(self.place, PostgresServer):
            values |= {"url": self.place.url, "node": "a"}
        else:
            values |= {"url": f"sqlite:{self.place}"}
        return RelayProcess(folder, Setup(store=values)).config


@pytest.fixture
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store made by this version."""
    key_file = tmp_path / "relay.key"
    if request.param == "file":
        made = Store(tmp_path / "relay.db", key_file, FILE)
        made.open()
        yield made
        return
    place = postgres.new_place(tmp_path)
    made = Store(place, key_file, SERVER)
    made.open()
    yield made
    postgres.drop(place)


def later(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    """Give the version in this process additional scripts."""
    further = [Script("later", text) for text in texts]
    monkeypatch.setattr(database, "scripts_of", lambda schema: [*scripts_of(schema), *further])


def until(condition: Callable[[], object]) -> None:
    for _ in range(1_200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it took more than a minute")


@contextmanager
def killed(command: subprocess.Popen[str]) -> Iterator[None]:
    """Call the functions at the end, also after an error."""
    try:
        yield
    finally:
        command.kill()
        command.communicate()


@pytest.mark.parametrize("store", BOTH, indirect=True)
def test_failed_script_changes_nothing_and_earlier_ones_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    later(monkeypatch, TWO[0], f"{TWO[1]}SELECT nonsense;\n")
    with pytest.raises(StoreError, match="nonsense"):
        store.open()
    assert store.tables() == {"one"}
    assert store.seen == 1
    later(monkeypatch, *TWO)
    store.open()
    assert store.tables() == {"one", "two"}


@pytest.mark.parametrize("store", BOTH, indirect=True)
def test_a_script_puts_no_added_key_in_use(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Writer(store.place, load_key(store.key_file))) as writer:
        assert writer.run(RELAY, lambda unit: rotation.add(unit, store.key_file)) == 2
    later(monkeypatch, TWO[0])
    store.open()
    with closing(connect_reader(store.place)) as reader:
        assert rotation.key_in_use(reader) == 1


@pytest.mark.parametrize("store", BOTH, indirect=True)
def test_key_of_another_store_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    later(monkeypatch, TWO[0])
    right = store.key_file.rename(store.key_file.with_name("right.key"))
    make_key(store.key_file)
    with pytest.raises(StoreError, match="belongs to another store"):
        store.open()
    assert store.tables() == set()
    right.replace(store.key_file)
    store.open()
    assert store.tables() == {"one"}


@pytest.mark.parametrize("store", BOTH, indirect=True)
def test_this_version_uses_a_store_with_later_additions(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as version:
        later(version, *TWO)
        store.open()
    store.open()
    assert store.seen == 2


@pytest.mark.parametrize("store", BOTH, indirect=True)
def test_this_version_refuses_a_store_with_later_changes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as version:
        later(version, "UPDATE schema_least SET least = 900;\n")
        store.open()
    with pytest.raises(StoreError, match="install that version"):
        store.open()


@pytest.mark.outside
def test_relays_that_start_together_on_an_empty_database_create_one_store(tmp_path: Path) -> None:
    place, key_file = postgres.new_place(tmp_path), tmp_path / "relay.key"
    make_key(key_file)
    with ThreadPoolExecutor() as threads:
        for opening in [threads.submit(open_store, place, key_file) for _ in range(4)]:
            opening.result()
    with closing(connect_reader(place)) as connection:
        assert connection.execute("SELECT count(*) FROM business").fetchone() == (1,)
    postgres.drop(place)


@pytest.mark.outside
@pytest.mark.parametrize("store", ["file", "server"], indirect=True)
def test_processes_that_start_together_run_each_script_once(store: Store, tmp_path: Path) -> None:
    newer = Newer(tmp_path / "newer", store.kind, [f"CREATE TABLE later{n} (id bigint);\n" for n in range(50)])
    config = store.config(tmp_path / "c")
    commands = [newer.begin(config, "pools", "list") for _ in range(4)]
    for command in commands:
        _, said = command.communicate(timeout=120)
        assert command.returncode == 0, said
    assert store.seen == 50


@pytest.mark.outside
@pytest.mark.parametrize("store", ["file", "server"], indirect=True)
def test_killed_migration_leaves_the_store_unchanged(store: Store, tmp_path: Path) -> None:
    newer = Newer(tmp_path / "newer", store.kind, [TWO[0], TWO[1] + ENDLESS[store.kind]])
    with killed(newer.begin(store.config(tmp_path / "c"), "pools", "list")):
        until(lambda: store.seen == 1 and _is_locked(store.place))
    until(lambda: not _is_locked(store.place))
    assert store.tables() == {"one"}
    store.open()  # this version can still use it
    Newer(tmp_path / "mended", store.kind, TWO).migrate(store.config(tmp_path / "d"))
    assert store.tables() == {"one", "two"}


def _is_locked(place: Place) -> bool:
    """Whether a write transaction is open."""
    if isinstance(place, PostgresServer):
        with closing(connect_reader(place)) as connection:
            held = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
            here = "datname = current_database() AND locktype = 'advisory'"
            return bool(connection.execute(f"{held} WHERE {here}").fetchone()[0])
    with closing(sqlite3.connect(place, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        return False


# Beside other users of the tables on a server


class Migrating:
    """A migration in a thread."""

    def __init__(self, store: Store) -> None:
        self._threads = ThreadPoolExecutor(1)
        self.done = self._threads.submit(store.open)


def _waiting(store: Store) -> bool:
    """Whether a session waits for a lock."""
    return store.ask("SELECT 1 FROM pg_locks WHERE NOT granted LIMIT 1") == [(1,)]


@pytest.mark.outside
@pytest.mark.parametrize("store", ["server"], indirect=True)
def test_script_waits_for_a_table_in_short_tries(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-ups queue behind each try."""
    later(monkeypatch, "ALTER TABLE binding ADD COLUMN later text;\n")
    monkeypatch.setattr(database, "LOCK_PAUSE_S", 0.2)
    with closing(connect_reader(store.place)) as reader, one_moment(reader):
        reader.execute("SELECT id FROM binding").fetchall()
        migrating = Migrating(store)
        for _ in range(3):
            until(lambda: _waiting(store))
            until(lambda: not _waiting(store))
        assert not migrating.done.done()
    migrating.done.result()
    assert store.ask("SELECT count(later) FROM binding") == [(0,)]


@pytest.mark.outside
@pytest.mark.parametrize("store", ["server"], indirect=True)
def test_script_gives_up_on_a_table_that_stays_in_use(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    later(monkeypatch, "ALTER TABLE binding ADD COLUMN later text;\n")
    monkeypatch.setattr(database, "LOCK_PATIENCE_S", 0.0)
    with closing(connect_reader(store.place)) as reader, one_moment(reader):
        reader.execute("SELECT id FROM binding").fetchall()
        with pytest.raises(StoreError, match="in use by a long transaction"):
            store.open()
    store.open()


@pytest.mark.outside
@pytest.mark.parametrize("store", ["server"], indirect=True)
@pytest.mark.parametrize(("script", "waits"), [("", "300ms"), ("-- CONCURRENTLY\n", "0")])
def test_lock_timeout_of_a_script(store: Store, monkeypatch: pytest.MonkeyPatch, script: str, waits: str) -> None:
    later(monkeypatch, f"{script}CREATE TABLE one AS SELECT current_setting('lock_timeout') AS waits;\n")
    store.open()
    assert store.ask("SELECT waits FROM one") == [(waits,)]


INDEX = "DROP INDEX CONCURRENTLY IF EXISTS later;\nCREATE INDEX CONCURRENTLY later ON call_event (kind);\n"
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('later')"


@pytest.mark.outside
@pytest.mark.parametrize("store", ["server"], indirect=True)
def test_records_are_written_while_an_index_is_created(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    later(monkeypatch, INDEX, TWO[0])
    with closing(connect(store.place)) as other:
        other.execute("BEGIN READ WRITE")  # as the journal does, without the lock of the units of work
        _write(other)
        migrating = Migrating(store)
        until(lambda: store.ask(VALID) == [(False,)])
        with closing(connect(store.place)) as journal:
            _write(journal)
        assert not migrating.done.done()  # it waits for the other transaction to end
        other.execute("COMMIT")
    migrating.done.result()
    assert store.ask(VALID) == [(True,)]
    assert store.tables() == {"one"}


@pytest.mark.outside
@pytest.mark.parametrize("store", ["server"], indirect=True)
def test_index_left_by_a_killed_script_is_created_again(store: Store, tmp_path: Path) -> None:
    newer = Newer(tmp_path / "newer", SERVER, [INDEX])
    config = store.config(tmp_path / "c")
    with closing(connect(store.place)) as other:
        other.execute("BEGIN READ WRITE")
        _write(other)
        with killed(newer.begin(config, "pools", "list")):
            until(lambda: store.ask(VALID) == [(False,)])
        until(lambda: not _waiting(store))
        other.execute("COMMIT")
    assert store.ask(VALID) == [(False,)]
    assert store.seen == 0
    newer.migrate(config)
    assert store.ask(VALID) == [(True,)]


def _write(connection: Connection) -> None:
    connection.execute("INSERT INTO call_event (call_id, kind, sealed) VALUES ('c', 'ringing', ?)", (b"x",))
