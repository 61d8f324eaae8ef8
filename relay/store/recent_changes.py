"""The covered rows that were changed or deleted lately, so that an older proof of theirs is known as put back.

Each transaction that changes such rows adds a row to `ledger_change`, which names them and the ledger's revision. It
has a MAC, and the sealed head of the ledger counts the named rows: one that was altered or removed shows. Each process
learns once a second which rows others have changed, and its own changes when it commits (`Sealer.outdate`).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from relay.store.connection import Connection, Statement, any_text
from relay.store.sealing.sealer import KEPT_CHANGES, Sealer

_TRIM_EACH: Final = 1_000  # named rows
_PUT: Final = """
INSERT INTO ledger_change (seq, revision, named, mac) VALUES (?, ?, ?, ?)
ON CONFLICT (seq) DO UPDATE SET revision = excluded.revision, named = excluded.named, mac = excluded.mac
"""
_TRIM: Final = "DELETE FROM ledger_change WHERE seq <= ?"
DELETE_CHANGES: Final = "DELETE FROM ledger_change"
_SELECT: Final = "SELECT seq, revision, named, mac FROM ledger_change WHERE seq > {} AND seq <= {} ORDER BY seq"
_NEWER: Final = _SELECT.format("?", "?")
NEWER_BY_ASYNCPG: Final = _SELECT.format("$1", "$2")

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[tuple[str, str]]).decode

Row = tuple[int, int, bytes, bytes]


class ChangeCount(NamedTuple):
    """How many changed rows were named so far, as the head of the ledger has it."""

    begun: int = 0  # those up to this one are not kept
    named: int = 0


def note_changes(
    sealer: Sealer, changes: ChangeCount, revision: int, rows: Sequence[tuple[str, str]]
) -> tuple[ChangeCount, list[Statement]]:
    """Name rows, as (table, key), that are changed at this revision. Returns the new counts, and the statements."""
    if not rows:
        return changes, []
    count = changes.named + len(rows)
    named = _encode(rows)
    written: list[Statement] = []
    if count // _TRIM_EACH > changes.named // _TRIM_EACH:
        written.append((_TRIM, (count - KEPT_CHANGES,)))
    written.append((_PUT, (count, revision, named, _mac(sealer, count, revision, named))))
    return changes._replace(named=count), written


def learn_changes(connection: Connection, sealer: Sealer, changes: ChangeCount) -> None:
    """Have the sealer know the rows that were named since it last learned. `changes`: of an opened head."""
    if wanted := newer_changes(sealer, changes):
        with any_text(connection):
            take_changes(sealer, changes, connection.execute(_NEWER, wanted).fetchall())


def newer_changes(sealer: Sealer, changes: ChangeCount) -> tuple[int, int] | None:
    """The parameters of the SELECT whose rows `take_changes` takes; None if there are none."""
    learned = sealer.learned_changes
    if learned == changes.named:
        return None
    return learned if learned < changes.named else 0, changes.named  # 0: they are counted anew


def take_changes(sealer: Sealer, changes: ChangeCount, rows: Iterable[Row]) -> None:
    """Altered rows are left out: the check of the whole store names them."""
    for row in rows:
        _, revision, named, _ = row
        if _is_written(sealer, row):
            sealer.outdate(_decode(named), revision)
    sealer.learned_changes = changes.named


def change_faults(connection: Connection, sealer: Sealer, changes: ChangeCount) -> Iterator[str]:
    """Why the kept rows are not those that relay700 wrote."""
    at: int | None = None  # the names up to here are kept
    for row in connection.execute(_NEWER, (0, changes.named)).fetchall():
        seq, _, named, _ = row
        if not _is_written(sealer, row):
            yield f"row {seq} was altered"
            return
        begin = seq - len(_decode(named))
        if begin != at and (at is not None or begin > max(changes.begun, changes.named - KEPT_CHANGES)):
            break
        at = seq
    if (changes.begun if at is None else at) != changes.named:
        yield "rows were removed"


def _is_written(sealer: Sealer, row: Row) -> bool:
    seq, revision, named, mac = row
    # A file can be made to hold values of other types.
    return isinstance(mac, bytes) and hmac.compare_digest(mac, _mac(sealer, seq, revision, named))


def _mac(sealer: Sealer, seq: int, revision: int, named: bytes) -> bytes:
    return sealer.row_mac(_encode(("changed", seq, revision, named)))
