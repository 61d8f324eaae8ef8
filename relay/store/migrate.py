"""Moves a store from its SQLite file to a PostgreSQL server: every row unchanged, sealed with the same key.

No relay may serve the file meanwhile, and no call may be up: a node only resumes its own calls.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from relay.errors import StoreError
from relay.store.audit import verify_audit
from relay.store.chain import AnchorFile
from relay.store.connection import Connection, Place, PostgresServer, quote_identifier
from relay.store.database import (
    connect,
    is_newer,
    is_there,
    one_moment,
    open_store,
    reading,
    store_errors,
    transaction,
)
from relay.store.files import open_lock, try_lock
from relay.store.journal.attempts import AttemptFile, with_records
from relay.store.journal.overflow import Overflow
from relay.store.ledger import sign_all
from relay.store.ledger_check import ledger_faults
from relay.store.record_rows import insert
from relay.store.records import verify_records
from relay.store.sealing.sealer import Sealer, load_key

# A business comes before its bindings, which reference it.
COPIED: Final = (
    *("business", "business_change", "api_key", "pool", "prefix", "number", "party_group", "group_member"),
    *("past_member", "binding", "binding_change", "past_party", "route", "list_entry", "last_caller", "idempotency"),
    *("audit", "audit_head", "checkpoint", "call_record", "chain_head", "call_event", "record_index", "cursor"),
    *("webhook", "outbox", "complaint", "recording", "sealing_key", "filing", "call_count", "capture_arm"),
    *("configuration", "filing_change", "hook", "business_count", "user_account"),
    *("paper", "paper_part"),
)
LEFT_OUT: Final = ("key_check", "schema_least", "live_call", "ledger", "ledger_touch", "ledger_head", "ledger_change")
_COUNTED: Final = ("call_event", "outbox")  # tables with a generated `seq`
_ROWS: Final = 1_000  # rows in memory


class MigrationResult(NamedTuple):
    """The result of a migration."""

    rows: dict[str, int]  # by table
    records: int  # call records verified afterwards


def migrate(file: Path, server: PostgresServer, key_file: Path) -> MigrationResult:
    """Copy all rows in one transaction. Raises StoreError, and copies nothing, if the file is not as relay700 wrote it.

    Both chains are verified again in the copy.
    """
    if not is_there(file):
        raise StoreError(f"there is no store at {file.absolute()}")
    sealer = load_key(key_file)
    if is_there(server):
        raise StoreError(f"there is a store in {server} already: name an empty database")
    lock = open_lock(file, ".lock")
    try:
        if not try_lock(lock):
            raise StoreError(f"a relay serves {file}: stop it first, so that no more is written to the file")
        open_store(file, key_file)  # migrates its tables to this version, and checks the key
        if is_newer(file):
            raise StoreError(f"a newer relay700 has changed the store {file}: move it with that version")
        _verify(file, sealer)
        if left := _overflowed(file, sealer) + _without_record(file, sealer):
            raise StoreError(
                f"{left} calls are in files beside {file}, and not in it yet: start and stop the relay, which adds them"
            )
        rows = _copy(file, sealer, server, key_file)
        return MigrationResult(rows, _verify(server, sealer))
    finally:
        os.close(lock)


def _overflowed(file: Path, sealer: Sealer) -> int:
    """The number of entries in the overflow log."""
    path = file.with_name(f"{file.name}.overflow")
    if not path.exists():
        return 0
    try:
        with closing(Overflow(path, sealer)) as overflow:
            overflow.open()
            return len(overflow.read().commits)
    except OSError as error:
        raise StoreError(f"the overflow log {path} cannot be read: {error.strerror}") from None


def _without_record(file: Path, sealer: Sealer) -> int:
    """The number of attempts that were under way when the relay was killed."""
    path = file.with_name(f"{file.name}.attempts")
    if not path.exists():
        return 0
    with closing(AttemptFile(path, sealer, lambda *_: None)) as attempts:
        return sum(attempt.stored is None for attempt in with_records(file, sealer, attempts.open(), ()))


def _copy(file: Path, sealer: Sealer, server: PostgresServer, key_file: Path) -> dict[str, int]:
    with reading(file) as source, one_moment(source):
        AnchorFile(file, sealer).check(source)
        for fault in ledger_faults(source, sealer):
            raise StoreError(
                f"{fault}. `relay700 verify` lists what is wrong in {file}, and `--accept --reason …` vouches for it"
            )
        (up,) = source.execute("SELECT count(*) FROM live_call").fetchone()
        if up:
            raise StoreError(f"{up} calls are up: let the relay drain, or start and stop it to end them")
        open_store(server, key_file)
        with store_errors(server), closing(connect(server)) as target, _proving(target, key_file):
            target.execute("DELETE FROM business")  # rows that every new store has
            target.execute("DELETE FROM pool")
            target.execute("DELETE FROM sealing_key")
            rows = {table: _copy_table(source, target, table) for table in COPIED}
            for table in _COUNTED:
                target.execute(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'seq'), (SELECT max(seq) FROM {table}) + 1)"
                )
    return rows


@contextmanager
def _proving(target: Connection, key_file: Path) -> Iterator[None]:
    """A transaction that proves all rows before it commits: those of the file were found to be proven."""
    with transaction(target):
        yield
        sign_all(target, load_key(key_file))


def _copy_table(source: Connection, target: Connection, table: str) -> int:
    columns = ", ".join(quote_identifier(row[1]) for row in source.execute(f"PRAGMA table_info({table})").fetchall())
    waiting: list[tuple[Any, ...]] = []
    copied = 0
    for row in source.execute(f"SELECT {columns} FROM {table}"):
        waiting.append(row)
        if len(waiting) == _ROWS:
            copied += _put(target, table, columns, waiting)
    return copied + _put(target, table, columns, waiting)


def _put(target: Connection, table: str, columns: str, waiting: list[tuple[Any, ...]]) -> int:
    count = len(waiting)
    insert(target, f"INSERT INTO {table} ({columns}) VALUES", waiting)
    waiting.clear()
    return count


def _verify(place: Place, sealer: Sealer) -> int:
    """Verify both chains. Return the number of call records. Raises StoreError."""
    with reading(place) as connection:
        verdict = verify_records(connection, sealer)
        audit = verify_audit(connection, sealer)
    if broken := verdict.broken or audit.broken:
        raise StoreError(f"the store {place} is damaged: {broken}")
    return verdict.intact
