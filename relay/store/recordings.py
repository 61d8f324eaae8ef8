"""A recording at rest: a file of sealed chunks, written and read as a stream, never whole in memory.

The head is a line, the cipher (1 byte), the id of a key of the store (1 byte) and a random salt (16), from which the
key of the file is derived. Version 1 has no id; its key is 1. Then follow chunks: length (4 bytes), ciphertext and tag
(16). The nonce is the chunk number. Each chunk is bound to the head, the call, its number, and whether it is the last,
so none can be changed, moved, added or removed. SM4 is the block cipher of GB/T 32907, in the same mode (GCM, NIST SP
800-38D).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Literal, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.errors import StoreError
from relay.store.connection import Connection
from relay.store.files import sync_folder
from relay.store.ledger import require_proofs
from relay.store.records import LAST_MS
from relay.store.sealing.sealer import FIRST_ID, Sealer
from relay.store.unit_of_work import UnitOfWork

CipherName = Literal["aes-256-gcm", "sm4-gcm"]
Channels = Literal["mono", "stereo"]  # of a WAV file: both sides mixed, or the caller left and the callee right
CHUNK: Final = 1 << 20  # bytes of plaintext
TAG: Final = 16
_MAGIC: Final = b"relay700 recording 2\n"
_MAGIC_1: Final = b"relay700 recording 1\n"  # of the same length
_NAMES: Final[dict[int, CipherName]] = {1: "aes-256-gcm", 2: "sm4-gcm"}  # by the cipher byte of the head
_IDS: Final = {name: number for number, name in _NAMES.items()}
_HEAD: Final = len(_MAGIC) + 2 + 16


class Recordings(NamedTuple):
    """The folders of recordings."""

    kept_in: Path
    spools: tuple[Path, ...] = ()  # the recording-dir of each rtpengine; empty: nothing is recorded
    cipher: CipherName = "aes-256-gcm"


class _Aead(Protocol):
    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes: ...
    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes: ...


class _Sm4:
    """SM4-GCM with the interface of AESGCM. Uses the first half of the key."""

    def __init__(self, key: bytes) -> None:
        self._key = algorithms.SM4(key[:16])

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        encryptor = Cipher(self._key, modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(associated_data)
        return encryptor.update(data) + encryptor.finalize() + encryptor.tag

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        decryptor = Cipher(self._key, modes.GCM(nonce, data[-TAG:])).decryptor()
        decryptor.authenticate_additional_data(associated_data)
        return decryptor.update(data[:-TAG]) + decryptor.finalize()


_CIPHERS: Final[dict[CipherName, Callable[[bytes], _Aead]]] = {"aes-256-gcm": AESGCM, "sm4-gcm": _Sm4}


def has_cipher(name: CipherName) -> bool:
    """Whether the installed OpenSSL has the cipher."""
    try:
        _CIPHERS[name](bytes(32)).encrypt(bytes(12), b"", b"")
    except UnsupportedAlgorithm:
        return False
    return True


def file_of(kept_in: Path, call_id: str) -> Path:
    """The file of a call's recording. A folder holds some hours of calls: a call id begins with its time."""
    return kept_in / call_id[:6] / f"{call_id}.sealed"


def seal_file(path: Path, sealer: Sealer, cipher: CipherName, call_id: str, parts: Iterable[bytes]) -> None:
    """Write the file durably, replacing an existing one atomically.

    Raises OSError, such as for a full disk, and removes the partial file. The next attempt overwrites what a killed
    process left.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            _seal(file, sealer, cipher, call_id, parts)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    sync_folder(path.parent.parent)  # the folder itself may be new


def _seal(file: BinaryIO, sealer: Sealer, cipher: CipherName, call_id: str, parts: Iterable[bytes]) -> None:
    head = _MAGIC + bytes([_IDS[cipher], sealer.key_id]) + os.urandom(16)
    aead = _aead(sealer, head)
    file.write(head)
    for number, chunk, last in _numbered(parts):
        sealed = aead.encrypt(_nonce(number), chunk, _bound(head, call_id, number, last))
        file.write(len(sealed).to_bytes(4) + sealed)


def open_file(path: Path, sealer: Sealer, call_id: str) -> Iterator[bytes]:
    """The plaintext, chunk by chunk. Raises StoreError if the file is unreadable, altered, or of another call."""
    try:
        with path.open("rb") as file:
            yield from _open(file, sealer, call_id)
    except OSError as error:
        raise StoreError(f"the recording of the call {call_id} cannot be read: {path}: {error.strerror}") from None
    except (InvalidTag, ValueError):
        raise StoreError(f"the recording of the call {call_id} was altered, or made with another key") from None


def _open(file: BinaryIO, sealer: Sealer, call_id: str) -> Iterator[bytes]:
    head = file.read(len(_MAGIC))
    head += file.read(_HEAD - len(_MAGIC) - (head == _MAGIC_1))
    aead = _aead(sealer, head)
    size, number = file.read(4), 0
    while size:
        length = int.from_bytes(size)
        if length > CHUNK + TAG or len(sealed := file.read(length)) < length:
            raise ValueError("the length of a chunk is wrong")
        size = file.read(4)
        yield aead.decrypt(_nonce(number), sealed, _bound(head, call_id, number, last=not size))
        number += 1
    if not number:
        raise ValueError("no chunk")


def _aead(sealer: Sealer, head: bytes) -> _Aead:
    """The cipher of a file. Raises ValueError if the head is not that of a recording, StoreError without its key."""
    first = head.startswith(_MAGIC_1)
    if len(head) != _HEAD - first or not (first or head.startswith(_MAGIC)):
        raise ValueError("not a recording")
    name = _NAMES.get(head[len(_MAGIC)])
    if name is None:
        raise ValueError("an unknown cipher")
    return _CIPHERS[name](sealer.file_key(head[-16:], FIRST_ID if first else head[len(_MAGIC) + 1]))


def _numbered(parts: Iterable[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """Chunks as (number, data, whether it is the last); at least one, which may be empty."""
    number, waiting = 0, bytearray()
    for part in parts:
        waiting += part
        while len(waiting) > CHUNK:
            yield number, bytes(waiting[:CHUNK]), False
            number += 1
            del waiting[:CHUNK]
    yield number, bytes(waiting), True


def _nonce(number: int) -> bytes:
    return number.to_bytes(12)


def _bound(head: bytes, call_id: str, number: int, last: bool) -> bytes:
    return b"%b%b %d %d" % (head, call_id.encode(), number, last)


# -- The recordings of calls

_COLUMNS = "call_id, business, taken_at, length_ms, size, sha256, purged_at"
_ADD = f"INSERT INTO recording ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
_FIND = f"SELECT {_COLUMNS} FROM recording WHERE call_id = ?"
_LIST = f"""
SELECT {_COLUMNS} FROM recording
WHERE taken_at >= :since AND taken_at < :until AND (taken_at, call_id) < (:taken_at, :call_id)
AND (:business IS NULL OR business = :business)
ORDER BY taken_at DESC, call_id DESC LIMIT :most
"""
_KEPT = f"SELECT {_COLUMNS} FROM recording WHERE purged_at IS NULL AND call_id > ? ORDER BY call_id LIMIT ?"
_OLD = """
SELECT taken_at, call_id, business FROM recording
WHERE purged_at IS NULL AND taken_at < ? AND (taken_at, call_id) > (?, ?) ORDER BY taken_at, call_id LIMIT ?
"""
_COUNT_OLD = "SELECT count(*) FROM recording WHERE purged_at IS NULL AND taken_at < ?"
_PURGED = "UPDATE recording SET purged_at = ? WHERE call_id = ?"
_FORGET = """
DELETE FROM recording WHERE call_id IN (
    SELECT call_id FROM recording WHERE taken_at < ? AND purged_at IS NOT NULL LIMIT ?)
"""

_is_recording = re.compile(r"[0-9a-f]{32}\.(sealed|part)").fullmatch

NEWEST = (LAST_MS, "")  # the position before all recordings
_PAGE = 500


class Recording(NamedTuple):
    """The recording of a call. Times are Unix milliseconds."""

    call_id: str
    business: str  # "" if there is none
    taken_at: int
    length_ms: int  # from the first packet to the last
    size: int  # bytes of plaintext
    sha256: str  # of the plaintext, in hex
    purged_at: int | None = None  # when its file was deleted, on demand or at the end of its retention


class RecordingQuery(NamedTuple):
    """A filter of recordings: taken over from `since_ms` to before `until_ms`, of one business or all."""

    business: str | None = None
    since_ms: int = 0
    until_ms: int = LAST_MS


def add_recording(unit: UnitOfWork, recording: Recording) -> None:
    """Add a recording. Raises one of DATABASE_ERRORS if the call has one already."""
    unit.connection.execute(_ADD, recording)


def find_recording(connection: Connection, sealer: Sealer, call_id: str) -> Recording | None:
    """The recording of a call. Raises StoreError if the proof of its row does not hold."""
    row = connection.execute(_FIND, (call_id,)).fetchone()
    require_proofs(connection, sealer, "recording", [call_id])
    return None if row is None else Recording(*row)


def list_recordings(
    connection: Connection, query: RecordingQuery, after: tuple[int, str], most: int
) -> list[Recording]:
    """A page of recordings, newest first. `after`: (taken_at, call_id) of the last one seen, or NEWEST."""
    taken_at, call_id = after
    business, since_ms, until_ms = query
    place = {"since": since_ms, "until": until_ms, "taken_at": taken_at, "call_id": call_id}
    return [Recording(*row) for row in connection.execute(_LIST, place | {"business": business, "most": most})]


def kept_recordings(connection: Connection) -> Iterator[Recording]:
    """All recordings not purged, read in pages. No transaction stays open between pages.

    The rows are not proven. One with a call id of another type is left out.
    """
    after = ""
    while rows := connection.execute(_KEPT, (after, _PAGE)).fetchall():
        yield from (Recording(*row) for row in rows if isinstance(row[0], str))
        after = rows[-1][0]


class RecordingWalk(NamedTuple):
    """The progress of a walk through old recordings."""

    after: tuple[int, str]  # (taken_at, call_id) of the last one read
    seen: int
    call_ids: list[str]  # marked as deleted


def purge_recordings(
    unit: UnitOfWork, before_ms: int, kept_in: Path, after: tuple[int, str], most: int
) -> RecordingWalk:
    """Mark recordings taken over before `before_ms` as deleted; `delete_file` must follow, once this is committed.

    Reads the next `most` after `after`; if there are fewer, the walk is done. Each one marked has an entry in the audit
    log. One whose file is not in `kept_in` here stays as it is: the machine of another node may have it.
    """
    old = unit.connection.execute(_OLD, (before_ms, *after, most)).fetchall()
    here = [(call_id, business) for _, call_id, business in old if file_of(kept_in, call_id).exists()]
    for call_id, business in here:
        unit.connection.execute(_PURGED, (unit.now_ms, call_id))
        unit.audit("recording.purge", call_id, business=business or None)
    return RecordingWalk(old[-1][:2] if old else after, len(old), [call_id for call_id, _ in here])


def files_before(kept_in: Path, before_ms: int) -> list[Path]:
    """The files of recordings last written before `before_ms`. Other files in the folder are ignored."""
    found = []
    for path in kept_in.glob("*/*"):
        if _is_recording(path.name) and path.with_suffix(".sealed") == file_of(kept_in, path.stem):
            with contextlib.suppress(FileNotFoundError):  # just renamed, or deleted by another purge
                if path.stat().st_mtime_ns // 1_000_000 < before_ms:
                    found.append(path)
    return found


def purge_stray(unit: UnitOfWork, path: Path) -> bool:
    """Delete a file that has no row, or whose row says so, such as after a crash or a restored backup, with an entry in
    the audit log.

    Return whether it had none. Raises StoreError if the file cannot be deleted.
    """
    call_id = path.stem
    found = find_recording(unit.connection, unit.sealer, call_id)
    if found is not None and found.purged_at is None and path == file_of(path.parents[1], call_id):
        return False
    _delete(path)
    unit.audit("recording.purge", call_id, details={"file": path.name, "known": found is not None})
    return True


def mark_deleted(unit: UnitOfWork, recording: Recording) -> None:
    """Note when the file of a recording was deleted, or is about to be."""
    unit.connection.execute(_PURGED, (recording.purged_at, recording.call_id))


def delete_file(path: Path) -> None:
    """Delete the file of a recording, durably. Raises StoreError if that fails."""
    _delete(path)
    try:
        sync_folder(path.parent if path.parent.exists() else path.parents[1])
    except OSError as error:
        raise StoreError(f"the deletion of the recording {path} may be undone: {error.strerror}") from None


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        if path.parent.exists() and not any(path.parent.iterdir()):
            path.parent.rmdir()
    except OSError as error:
        raise StoreError(f"the recording {path} cannot be deleted: {error.strerror}") from None


def count_recordings(connection: Connection, before_ms: int) -> int:
    """The number of files that purges would delete, each where it is."""
    (count,) = connection.execute(_COUNT_OLD, (before_ms,)).fetchone()
    return int(count)


def forget_recordings(unit: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete at most `most` rows of purged recordings taken over before `before_ms`. Return their number."""
    return unit.connection.execute(_FORGET, (before_ms, most)).rowcount
