"""The master keys that a store was sealed with, and the key in use: the table `sealing_key`.

Each writer reads the key in use in its transaction (`follow_key`), and a node with each heartbeat, so that all switch
at once without a message. Each sealed value begins with the id of its key; a process that meets an unknown id reads the
key file again. The keys themselves are only in that file.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from relay.errors import Refused, Report, StoreError
from relay.store.connection import Connection
from relay.store.sealing.sealer import LAST_ID, Sealer, new_master, read_key_file, write_key_file
from relay.store.unit_of_work import UnitOfWork

_USED: Final = "SELECT coalesce(max(id), 0) FROM sealing_key WHERE used_at IS NOT NULL"
# The key that sealed the head of the ledger has been in use, whatever the table says by now: a rotation that could be
# undone in the database would have today's rows sealed with the key that it replaced.
IN_USE: Final = f"SELECT greatest(({_USED}), coalesce((SELECT get_byte(sealed, 0) FROM ledger_head), 0))"  # of a server
_IN_USE: Final = f"SELECT ({_USED}), (SELECT substr(sealed, 1, 1) FROM ledger_head)"
_ALL: Final = "SELECT id, proof, added_at, used_at, dropped_at FROM sealing_key ORDER BY id"
_ADD: Final = "INSERT INTO sealing_key (id, proof, added_at, used_at) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
# A node that is silent for longer is down, and reads the key file when it starts.
_NODES: Final = """
SELECT name, sealing_keys FROM node
WHERE stopped_at IS NULL AND taken_by IS NULL AND seen_at > now() - make_interval(secs => 60) ORDER BY name
"""


class SealingKey(NamedTuple):
    """A row of the table. Times are Unix milliseconds."""

    id: int
    proof: bytes
    added_at: int
    used_at: int | None
    dropped_at: int | None


def sealing_keys(connection: Connection) -> list[SealingKey]:
    """All keys, by id."""
    return [SealingKey(*row) for row in connection.execute(_ALL).fetchall()]


def key_in_use(connection: Connection) -> int:
    """The id of the key in use; 0 in a new store."""
    used, sealed_with = connection.execute(_IN_USE).fetchone()
    return int(max(used, *(sealed_with or b"\0")))


def follow_key(connection: Connection, sealer: Sealer) -> None:
    """Switch the sealer to the key in use. Raises StoreError if the key file does not have it."""
    sealer.use(key_in_use(connection))


def nodes_without(connection: Connection, key_id: int) -> list[str]:
    """The running nodes of a shared store that do not have the key, or another one with its id."""
    proof = next((key.proof for key in sealing_keys(connection) if key.id == key_id), b"")
    rows = connection.execute(_NODES).fetchall()
    return [name for name, known in rows if not _has(known or "", key_id, proof)]


def _has(known: str, key_id: int, proof: bytes) -> bool:
    """Whether this is one of the keys of `KeySwitch.known`."""
    return _proven(key_id, proof) in known.split()


def _proven(key_id: int, proof: bytes) -> str:
    return f"{key_id}:{proof.hex()}"


class KeySwitch:
    """The switch of a journal to another key. If that key is missing, the journal goes on with the former one."""

    def __init__(self, sealer: Sealer, report: Report) -> None:
        self._sealer = sealer
        self._report = report
        self._reported = False

    def to(self, key_id: int) -> None:
        """Switch to a key. If it is missing, report that and go on with the former key, which every process has."""
        try:
            self._sealer.use(key_id)
        except StoreError as error:
            self._report_once(error, f"records are still sealed with the key {self._sealer.key_id}")
        else:
            self._reported = False

    def known(self) -> str:
        """The keys in the key file, as in the table `node`: each id with its proof."""
        try:
            self._sealer.refresh()
        except StoreError as error:
            self._report_once(error, "the keys read earlier stay in use")
        return " ".join(_proven(key_id, self._sealer.proof(key_id)) for key_id in self._sealer.key_ids)

    def _report_once(self, error: StoreError, effect: str) -> None:
        if not self._reported:
            self._report("sealing_key.missing", {"reason": str(error), "effect": effect})
        self._reported = True


def enter_keys(connection: Connection, sealer: Sealer) -> None:
    """Enter all keys of the file in a store that has none, in one transaction."""
    if sealing_keys(connection):
        return  # another process was faster
    now_ms = time.time_ns() // 1_000_000
    for key_id in sealer.key_ids:
        connection.execute(_ADD, (key_id, sealer.proof(key_id), now_ms, now_ms))


def check_keys(connection: Connection, sealer: Sealer, key_file: Path) -> None:
    """At the opening of a store: check that the key file has all keys that it needs, and switch to the key in use.

    Raises StoreError with the fix.
    """
    at_hand = sealer.key_ids
    for key in sealing_keys(connection):
        if key.id in at_hand and not hmac.compare_digest(sealer.proof(key.id), key.proof):
            raise StoreError(f"the key file {key_file} has another key {key.id} than the store: put the right one back")
        if key.id not in at_hand and key.used_at is not None and key.dropped_at is None:
            raise StoreError(
                f"the key file {key_file} does not have the key {key.id}, which the store needs: add its line, from a"
                " backup or from another node"
            )
    follow_key(connection, sealer)


# -- Rotation: a key is added, read by every process, then used; an old one is dropped last
#
# No process may seal with a key that another has not read yet, and no key may be dropped while a row needs it.


def add(unit: UnitOfWork, key_file: Path) -> int:
    """Make a key in the key file and register it in the store, not in use yet. Returns its id.

    After a crash in between, the key that only the file has is registered instead. Raises Refused, and StoreError if
    the file cannot be written.
    """
    unit.sealer.refresh()
    keys = sealing_keys(unit.connection)
    ids = [key.id for key in keys]
    if lacking := [key.id for key in keys if key.dropped_at is None and key.id not in unit.sealer.key_ids]:
        raise Refused("conflict", "", f"{key_file} lacks the key {lacking[0]}: copy it from the node that added it")
    new = next((key_id for key_id in unit.sealer.key_ids if key_id not in ids), None)
    if new is None:
        new = max(ids) + 1
        if new > LAST_ID:
            raise Refused("quota", "", f"limited to {LAST_ID} keys in the life of a store, and all of them are used up")
        masters = read_key_file(key_file).masters
        write_key_file(key_file, masters | {new: new_master()}, unit.sealer.hash_keys)
        unit.sealer.refresh()
    unit.connection.execute(_ADD, (new, unit.sealer.proof(new), unit.now_ms, None))
    unit.audit("sealing_key.add", str(new))
    return new


def use(unit: UnitOfWork, key_id: int, unaware: Sequence[str]) -> None:
    """Make this the sealing key of all processes. `unaware`: names of those that have not read it. Raises Refused."""
    key = _find(unit, key_id)
    unit.sealer.refresh()
    now = key_in_use(unit.connection)
    if key_id == now:
        raise Refused("conflict", "", f"the key {key_id} is already in use")
    if key_id < now or key.dropped_at is not None:
        raise Refused("conflict", "", f"the key {key_id} was replaced or dropped: add a new one")
    if key_id not in unit.sealer.key_ids or unit.sealer.proof(key_id) != key.proof:
        raise Refused(
            "conflict", "", f"the key file of this node lacks the key {key_id}: copy it from the node that added it"
        )
    if unaware:
        names = ", ".join(unaware)
        raise Refused("conflict", "", f"{names} does not have the key {key_id} yet: copy the key file there")
    unit.connection.execute("UPDATE sealing_key SET used_at = ? WHERE id = ?", (unit.now_ms, key_id))
    unit.sealer.use(key_id)
    unit.audit("sealing_key.use", str(key_id), details={"before": now})


def drop(unit: UnitOfWork, key_id: int, needs: Mapping[str, int]) -> None:
    """Drop a key from the store. `needs`: the count of rows that still need it, by table. Raises Refused."""
    key = _find(unit, key_id)
    if key.dropped_at is not None:
        return
    if key_id == key_in_use(unit.connection):
        raise Refused("conflict", "", f"the key {key_id} is in use: add and use another first")
    if needs:
        rows = ", ".join(f"{table} ({count})" for table, count in sorted(needs.items()))
        raise Refused("conflict", "", f"the key {key_id} is still needed by rows of {rows}")
    unit.connection.execute("UPDATE sealing_key SET dropped_at = ? WHERE id = ?", (unit.now_ms, key_id))
    unit.audit("sealing_key.drop", str(key_id))


def forget(key_file: Path, key_id: int, hashes: tuple[bytes, bytes]) -> bool:
    """Remove a dropped key from the file. Returns whether it was there. Raises StoreError."""
    masters = read_key_file(key_file).masters
    if key_id not in masters:
        return False
    write_key_file(key_file, {other: master for other, master in masters.items() if other != key_id}, hashes)
    return True


def _find(unit: UnitOfWork, key_id: int) -> SealingKey:
    found = next((key for key in sealing_keys(unit.connection) if key.id == key_id), None)
    if found is None:
        raise Refused("not_found", "", f"the store has no key {key_id}: add one with `relay700 seal-key add`")
    return found
