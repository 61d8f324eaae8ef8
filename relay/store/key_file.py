"""The key file: the master keys of a store with their ids, one per line, in the order of their addition.

    relay700-key 1 HEX
    relay700-key 2 HEX
    relay700-hashes HEX HEX

The last line is present from the second key on: the keys of look-up hashes and row MACs, which stay those derived from
the first key. Owns the file format. `relay.store.sealing` uses the keys.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final, NamedTuple

from relay.errors import StoreError
from relay.store.files import sync_folder

FIRST_ID: Final = 1
LAST_ID: Final = 255
_MOST_BYTES: Final = 32_768
_KEY: Final = re.compile(r"relay700-key ([1-9][0-9]{0,2}) ([0-9a-f]{64})")
_HASHES: Final = re.compile(r"relay700-hashes ([0-9a-f]{64}) ([0-9a-f]{64})")


class Stamp(NamedTuple):
    """The identity and state of a file, to notice a change."""

    inode: int
    size: int
    changed_ns: int


class KeyFile(NamedTuple):
    """The content of a key file."""

    masters: dict[int, bytes]  # by id, in the order of the file
    hashes: tuple[bytes, bytes] | None  # keys of look-up hashes and row MACs; None: derived from the only master
    stamp: Stamp


def read_key_file(path: Path) -> KeyFile:
    """Read a key file. Raises StoreError if it is missing, malformed, or open to other users."""
    try:
        with path.open(encoding="ascii") as file:
            found = os.fstat(file.fileno())
            text = file.read(_MOST_BYTES)
    except FileNotFoundError:
        raise StoreError(f"the key file {path} is missing: put it back, the store cannot be read without it") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"the key file {path} cannot be read: {_reason(error)}") from None
    if (mode := stat.S_IMODE(found.st_mode)) & 0o077:
        raise StoreError(f"the key file {path} is open to other users (mode {mode:04o}): chmod 600 {path}")
    return _parsed(path, text, _stamp(found))


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a file; None if it cannot be read."""
    try:
        return _stamp(path.stat())
    except OSError:
        return None


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def _parsed(path: Path, text: str, stamp: Stamp) -> KeyFile:
    masters: dict[int, bytes] = {}
    hashes: tuple[bytes, bytes] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if key := _KEY.fullmatch(line):
            key_id = int(key[1])
            if key_id > LAST_ID:
                raise StoreError(f"the key file {path}, line {number}: the key id {key_id} is not in 1 to {LAST_ID}")
            if key_id in masters:
                raise StoreError(f"the key file {path} has two keys {key_id}: delete the line that is not the store's")
            masters[key_id] = bytes.fromhex(key[2])
        elif (both := _HASHES.fullmatch(line)) and hashes is None:
            hashes = (bytes.fromhex(both[1]), bytes.fromhex(both[2]))
        else:
            raise StoreError(f"the key file {path} is damaged in line {number}: put the right one back")
    if not masters or (hashes is None and list(masters) != [FIRST_ID]):
        raise StoreError(f"the key file {path} is damaged, a line is missing: put the right one back")
    return KeyFile(masters, hashes, stamp)


def new_master() -> bytes:
    """32 random bytes."""
    return secrets.token_bytes(32)


def make_key(path: Path) -> None:
    """Create a key file, mode 0600, durably. One that another process has just created is left alone."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = _written(path, _key_line(FIRST_ID, new_master()))
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"the key file {path} cannot be created: {_reason(error)}") from None


def write_key_file(path: Path, masters: dict[int, bytes], hashes: tuple[bytes, bytes]) -> None:
    """Replace the key file, atomically and durably; mode and owner stay. Raises StoreError."""
    lines = [_key_line(key_id, master) for key_id, master in masters.items()]
    text = "".join(lines) + f"relay700-hashes {hashes[0].hex()} {hashes[1].hex()}\n"
    path = path.resolve()
    try:
        owner = path.stat()
        temporary = _written(path, text)
        try:
            os.chown(temporary, owner.st_uid, owner.st_gid)
            temporary.replace(path)
        except BaseException:
            temporary.unlink()
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"the key file {path} cannot be written: {_reason(error)}") from None


def _written(path: Path, text: str) -> Path:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return temporary


def _key_line(key_id: int, master: bytes) -> str:
    return f"relay700-key {key_id} {master.hex()}\n"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "it is not a text file"
