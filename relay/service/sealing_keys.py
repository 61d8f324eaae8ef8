"""The rules of sealing keys: a key is added, then known to every process, then used; an old one is dropped last.

Nobody may seal with a key that another process cannot have read yet, and none may go that something still needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from relay.errors import Refused
from relay.store.act import Act
from relay.store.key_file import LAST_ID, new_master, read_key_file, write_key_file
from relay.store.sealing_keys import (
    SealingKey,
    add_key,
    key_in_use,
    sealing_keys,
    set_dropped,
    set_used,
)


def add(act: Act, key_file: Path) -> int:
    """Makes a key, first in the file, and enters it in the store. It is not in use yet. Returns its id.

    A key that the file has and the store has not, as after a crash, is entered instead. Raises Refused, and StoreError
    if the file cannot be written.
    """
    act.sealer.refresh()
    keys = sealing_keys(act.connection)
    ids = [key.id for key in keys]
    if lacking := [key.id for key in keys if key.dropped_at is None and key.id not in act.sealer.key_ids]:
        raise Refused("conflict", "", f"{key_file} does not have the key {lacking[0]}: copy it from where it was added")
    new = next((key_id for key_id in act.sealer.key_ids if key_id not in ids), None)
    if new is None:
        new = max(ids) + 1
        if new > LAST_ID:
            raise Refused("quota", "", f"a store has {LAST_ID} keys in its life, and this one has had them all")
        masters = read_key_file(key_file).masters
        write_key_file(key_file, masters | {new: new_master()}, act.sealer.hash_keys)
        act.sealer.refresh()
    add_key(act, new)
    act.audit("sealing_key.add", str(new))
    return new


def use(act: Act, key_id: int, unaware: Sequence[str]) -> None:
    """Has all seal with this key from now on. `unaware`: who serves and has not read it. Raises Refused."""
    key = _find(act, key_id)
    act.sealer.refresh()
    now = key_in_use(act.connection)
    if key_id == now:
        raise Refused("conflict", "", f"the key {key_id} is in use already")
    if key_id < now or key.dropped_at is not None:
        raise Refused("conflict", "", f"the key {key_id} was in use before the key {now}: add a new one")
    if key_id not in act.sealer.key_ids or act.sealer.proof(key_id) != key.proof:
        raise Refused(
            "conflict", "", f"the key file here does not have the key {key_id}: copy it from where it was added"
        )
    if unaware:
        names = ", ".join(unaware)
        raise Refused("conflict", "", f"{names} does not have the key {key_id} yet: copy the key file there")
    set_used(act, key_id)
    act.sealer.use(key_id)
    act.audit("sealing_key.use", str(key_id), details={"before": now})


def drop(act: Act, key_id: int, needs: Mapping[str, int]) -> None:
    """Has the store do without this key. `needs`: how many rows of which table still need it. Raises Refused."""
    key = _find(act, key_id)
    if key.dropped_at is not None:
        return
    if key_id == key_in_use(act.connection):
        raise Refused("conflict", "", f"the key {key_id} is in use: add another and use that first")
    if needs:
        rows = ", ".join(f"{table} {count}" for table, count in sorted(needs.items()))
        raise Refused("conflict", "", f"the key {key_id} is needed still, by {rows}")
    set_dropped(act, key_id)
    act.audit("sealing_key.drop", str(key_id))


def forget(key_file: Path, key_id: int, hashes: tuple[bytes, bytes]) -> bool:
    """Takes a dropped key out of the file. Returns whether it was there. Raises StoreError."""
    masters = read_key_file(key_file).masters
    if key_id not in masters:
        return False
    write_key_file(key_file, {other: master for other, master in masters.items() if other != key_id}, hashes)
    return True


def _find(act: Act, key_id: int) -> SealingKey:
    found = next((key for key in sealing_keys(act.connection) if key.id == key_id), None)
    if found is None:
        raise Refused("not_found", "", f"the store has no key {key_id}: `relay700 seal-key add` makes one")
    return found
