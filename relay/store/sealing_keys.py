"""Which master keys a store was sealed with, and which is in use: the table `sealing_key`.

Whoever writes looks here in the same transaction (`follow_key`), and a node with each beat, so that all turn to another
key at once and no process needs to be told. Each sealed value begins with its key's id: who meets an id that it does
not have reads the key file again. The keys themselves are in that file. Which may be added, used or dropped is the
business of `relay.service.sealing_keys`.
"""

from __future__ import annotations

import hmac
import time
from pathlib import Path
from typing import Final, NamedTuple

from relay.errors import StoreError
from relay.store.act import Act
from relay.store.connection import Connection
from relay.store.outage import Report
from relay.store.sealing import Sealer

IN_USE: Final = "SELECT coalesce(max(id), 0) FROM sealing_key WHERE used_at IS NOT NULL"
_ALL: Final = "SELECT id, proof, added_at, used_at, dropped_at FROM sealing_key ORDER BY id"
_ADD: Final = "INSERT INTO sealing_key (id, proof, added_at, used_at) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
# A node that is not seen for longer is gone, and reads the key file when it starts.
_NODES: Final = """
SELECT name, sealing_keys FROM node
WHERE stopped_at IS NULL AND taken_by IS NULL AND seen_at > now() - make_interval(secs => 60) ORDER BY name
"""


class SealingKey(NamedTuple):
    """One of them. Times are Unix milliseconds."""

    id: int
    proof: bytes
    added_at: int
    used_at: int | None
    dropped_at: int | None


def sealing_keys(connection: Connection) -> list[SealingKey]:
    """In the order of their ids."""
    return [SealingKey(*row) for row in connection.execute(_ALL).fetchall()]


def key_in_use(connection: Connection) -> int:
    """Its id; 0 where somebody has emptied the table, which the next opening of the store fills."""
    (key_id,) = connection.execute(IN_USE).fetchone()
    return int(key_id)


def follow_key(connection: Connection, sealer: Sealer) -> None:
    """Seals with the key in use from now on. Raises StoreError where the key file does not have it."""
    sealer.use(key_in_use(connection))


def add_key(act: Act, key_id: int) -> None:
    """Enters a key of the file, which is not in use yet. One that is entered already stays as it is."""
    act.connection.execute(_ADD, (key_id, act.sealer.proof(key_id), act.now_ms, None))


def set_used(act: Act, key_id: int) -> None:
    act.connection.execute("UPDATE sealing_key SET used_at = ? WHERE id = ?", (act.now_ms, key_id))


def set_dropped(act: Act, key_id: int) -> None:
    act.connection.execute("UPDATE sealing_key SET dropped_at = ? WHERE id = ?", (act.now_ms, key_id))


def nodes_without(connection: Connection, key_id: int) -> list[str]:
    """The nodes of a shared store that run and have not read the key."""
    rows = connection.execute(_NODES).fetchall()
    return [name for name, ids in rows if str(key_id) not in (ids or "").split()]


class Turning:
    """Of what writes calls' records: it turns to the key in use, and goes on with the former where it cannot."""

    def __init__(self, sealer: Sealer, report: Report) -> None:
        self._sealer = sealer
        self._report = report
        self._told = False

    def to(self, key_id: int) -> None:
        """Whatever is sealed with the former key can be opened by all, so no call waits for a key file."""
        try:
            self._sealer.use(key_id)
        except StoreError as error:
            self._tell(error, f"records are sealed with the key {self._sealer.key_id} still")
        else:
            self._told = False

    def known(self) -> str:
        """The ids of the keys that stand in the key file now, as in the table `node`."""
        try:
            self._sealer.refresh()
        except StoreError as error:
            self._tell(error, "it goes on with what it has read")
        return " ".join(map(str, self._sealer.key_ids))

    def _tell(self, error: StoreError, effect: str) -> None:
        if not self._told:
            self._report("sealing_key.missing", {"reason": str(error), "effect": effect})
        self._told = True


def enter_keys(connection: Connection, sealer: Sealer) -> None:
    """In a store that has entered none: all of the file's, at once, or the next process would find fewer."""
    if sealing_keys(connection):
        return  # another process was faster
    now_ms = time.time_ns() // 1_000_000
    for key_id in sealer.key_ids:
        connection.execute(_ADD, (key_id, sealer.proof(key_id), now_ms, now_ms))


def check_keys(connection: Connection, sealer: Sealer, key_file: Path) -> None:
    """At the opening of a store: all that it needs are in the file, and are those. The sealer has the one in use.

    Raises StoreError with the fix.
    """
    at_hand = sealer.key_ids
    for key in sealing_keys(connection):
        if key.id in at_hand and not hmac.compare_digest(sealer.proof(key.id), key.proof):
            raise StoreError(f"the key file {key_file} has another key {key.id} than the store: put the right one back")
        if key.id not in at_hand and key.used_at is not None and key.dropped_at is None:
            raise StoreError(
                f"the key file {key_file} does not have the key {key.id}, which the store needs: put its line in, from"
                " a copy or from another node's"
            )
    follow_key(connection, sealer)
