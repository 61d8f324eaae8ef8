"""The rules of sealing keys: a key is added, read by every process, then used; an old one is dropped last.

No process may seal with a key that another has not read yet, and no key may be dropped while a row needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from relay.errors import Refused
from relay.store.sealing.keys import SealingKey, add_key, key_in_use, sealing_keys, set_dropped, set_used
from relay.store.sealing.sealer import LAST_ID, new_master, read_key_file, write_key_file
from relay.store.unit_of_work import UnitOfWork


def add(act: UnitOfWork, key_file: Path) -> int:
    """Make a key in the key file and register it in the store, not in use yet. Returns its id.

    After a crash in between, the key that only the file has is registered instead. Raises Refused, and StoreError if
    the file cannot be written.
    """
    act.sealer.refresh()
    keys = sealing_keys(act.connection)
    ids = [key.id for key in keys]
    if lacking := [key.id for key in keys if key.dropped_at is None and key.id not in act.sealer.key_ids]:
        raise Refused("conflict", "", f"{key_file} lacks the key {lacking[0]}: copy it from the node that added it")
    new = next((key_id for key_id in act.sealer.key_ids if key_id not in ids), None)
    if new is None:
        new = max(ids) + 1
        if new > LAST_ID:
            raise Refused("quota", "", f"limited to {LAST_ID} keys in the life of a store, and all of them are used up")
        masters = read_key_file(key_file).masters
        write_key_file(key_file, masters | {new: new_master()}, act.sealer.hash_keys)
        act.sealer.refresh()
    add_key(act, new)
    act.audit("sealing_key.add", str(new))
    return new


def use(act: UnitOfWork, key_id: int, unaware: Sequence[str]) -> None:
    """Make this the sealing key of all processes. `unaware`: names of those that have not read it. Raises Refused."""
    key = _find(act, key_id)
    act.sealer.refresh()
    now = key_in_use(act.connection)
    if key_id == now:
        raise Refused("conflict", "", f"the key {key_id} is already in use")
    if key_id < now or key.dropped_at is not None:
        raise Refused("conflict", "", f"the key {key_id} was replaced or dropped: add a new one")
    if key_id not in act.sealer.key_ids or act.sealer.proof(key_id) != key.proof:
        raise Refused(
            "conflict", "", f"the key file of this node lacks the key {key_id}: copy it from the node that added it"
        )
    if unaware:
        names = ", ".join(unaware)
        raise Refused("conflict", "", f"{names} does not have the key {key_id} yet: copy the key file there")
    set_used(act, key_id)
    act.sealer.use(key_id)
    act.audit("sealing_key.use", str(key_id), details={"before": now})


def drop(act: UnitOfWork, key_id: int, needs: Mapping[str, int]) -> None:
    """Drop a key from the store. `needs`: the count of rows that still need it, by table. Raises Refused."""
    key = _find(act, key_id)
    if key.dropped_at is not None:
        return
    if key_id == key_in_use(act.connection):
        raise Refused("conflict", "", f"the key {key_id} is in use: add and use another first")
    if needs:
        rows = ", ".join(f"{table} ({count})" for table, count in sorted(needs.items()))
        raise Refused("conflict", "", f"the key {key_id} is still needed by rows of {rows}")
    set_dropped(act, key_id)
    act.audit("sealing_key.drop", str(key_id))


def forget(key_file: Path, key_id: int, hashes: tuple[bytes, bytes]) -> bool:
    """Remove a dropped key from the file. Returns whether it was there. Raises StoreError."""
    masters = read_key_file(key_file).masters
    if key_id not in masters:
        return False
    write_key_file(key_file, {other: master for other, master in masters.items() if other != key_id}, hashes)
    return True


def _find(act: UnitOfWork, key_id: int) -> SealingKey:
    found = next((key for key in sealing_keys(act.connection) if key.id == key_id), None)
    if found is None:
        raise Refused("not_found", "", f"the store has no key {key_id}: add one with `relay700 seal-key add`")
    return found
