"""Arms: orders to capture the calls of somebody for a while. Each is sealed and ends by itself.

Owns the table `capture_arm`. `relay.service.capture` has the rules.
"""

from __future__ import annotations

import threading
from typing import Any, Final, NamedTuple, cast

import msgspec

from relay.errors import Report, StoreError
from relay.model.capture import Arm, ArmKind
from relay.store.connection import Connection, Place
from relay.store.database import connect_reader, one_moment, store_errors
from relay.store.ledger import require_proofs
from relay.store.sealing.keys import follow_key
from relay.store.sealing.rows import SealedRows
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms

_ADD: Final = "INSERT INTO capture_arm (id, kind, sealed, armed_at, armed_by, expires_at) VALUES (?, ?, ?, ?, ?, ?)"
_SELECT: Final = "SELECT id, kind, sealed, armed_at, armed_by, expires_at FROM capture_arm"
_IN_FORCE: Final = f"{_SELECT} WHERE expires_at > ? AND id > ? ORDER BY id LIMIT ?"
_FIND: Final = f"{_SELECT} WHERE id = ?"
_DELETE: Final = "DELETE FROM capture_arm WHERE id = ?"
_COUNT: Final = "SELECT count(*) FROM capture_arm WHERE expires_at > ?"
_PURGE: Final = "DELETE FROM capture_arm WHERE id IN (SELECT id FROM capture_arm WHERE expires_at <= ? LIMIT ?)"

MOST_ARMS: Final = 200  # in force

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(str).decode


class StoredArm(NamedTuple):
    """An arm, and who made it when. Times are Unix milliseconds."""

    arm: Arm
    armed_at: int
    armed_by: str


# -- inside a unit of work


def add_arm(unit: UnitOfWork, arm: Arm) -> StoredArm:
    sealed = unit.sealer.seal(_encode(arm.value), _context(arm.id, arm.kind))
    row = (arm.id, arm.kind, sealed, unit.now_ms, unit.actor.name, arm.until_ms)
    unit.connection.execute(_ADD, row)
    return StoredArm(arm, unit.now_ms, unit.actor.name)


def delete_arm(unit: UnitOfWork, arm_id: str) -> None:
    unit.connection.execute(_DELETE, (arm_id,))


def count_arms(unit: UnitOfWork) -> int:
    """The number of arms in force."""
    (count,) = unit.connection.execute(_COUNT, (unit.now_ms,)).fetchone()
    return int(count)


def purge_arms(unit: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete at most `most` arms that expired before `before_ms`. Return their number."""
    return unit.connection.execute(_PURGE, (before_ms, most)).rowcount


# -- reading


def find_arm(connection: Connection, sealer: Sealer, arm_id: str) -> StoredArm | None:
    row = connection.execute(_FIND, (arm_id,)).fetchone()
    return None if row is None else _opened(sealer, row)


def list_arms(connection: Connection, sealer: Sealer, at_ms: int, after: str, most: int) -> list[StoredArm]:
    """A page of the arms in force, after the id `after`."""
    return [_opened(sealer, row) for row in connection.execute(_IN_FORCE, (at_ms, after, most)).fetchall()]


class Arms:
    """Reads what is armed, from any thread; each reading follows a change of the sealing key."""

    def __init__(self, place: Place, sealer: Sealer, report: Report) -> None:
        self._place = place
        self._sealer = sealer
        self._report = report
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._reported: set[str] = set()

    def __call__(self) -> list[Arm]:
        """The arms in force. One whose row does not prove itself is left out, and reported once. Raises StoreError."""
        with self._lock:
            try:
                with store_errors(self._place):
                    if self._connection is None:
                        self._connection = connect_reader(self._place, check_same_thread=False)
                    with one_moment(self._connection):
                        follow_key(self._connection, self._sealer)
                        return self._read(self._connection)
            except StoreError:
                self._disconnect()
                raise

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _read(self, connection: Connection) -> list[Arm]:
        found = []
        for row in connection.execute(_IN_FORCE, (now_ms(), "", MOST_ARMS)).fetchall():
            try:
                require_proofs(connection, self._sealer, "capture_arm", [row[0]])
                found.append(_opened(self._sealer, row).arm)
            except StoreError as error:
                if row[0] not in self._reported:
                    self._reported.add(row[0])
                    self._report("capture.arm_altered", {"arm": row[0], "reason": str(error)})
        return found

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _opened(sealer: Sealer, row: tuple[Any, ...]) -> StoredArm:
    arm_id, kind, sealed, armed_at, armed_by, expires_at = row
    try:
        value = _decode(sealer.open_(sealed, _context(arm_id, kind)))
    except msgspec.DecodeError:
        raise StoreError(f"the capture arm {arm_id} cannot be decoded") from None
    return StoredArm(Arm(arm_id, cast(ArmKind, kind), value, expires_at), armed_at, armed_by)


def _context(arm_id: str, kind: str) -> bytes:
    return f"capture arm {arm_id} {kind}".encode()


SEALED_ARMS = SealedRows("capture_arm", ("id",), ("id", "kind"), _context)
