"""A recording at rest: a file of sealed chunks, written and read as a stream, never whole in memory.

The head is a line, the cipher (1 byte), the id of a key of the store (1 byte) and a random salt (16), from which the
key of the file is derived. Version 1 has no id; its key is 1. Then follow chunks: length (4 bytes), ciphertext and tag
(16). The nonce is the chunk number. Each chunk is bound to the head, the call, its number, and whether it is the last,
so none can be changed, moved, added or removed. SM4 is the block cipher of GB/T 32907, in the same mode (GCM, NIST SP
800-38D).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Literal, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.errors import StoreError
from relay.store.files import sync_folder
from relay.store.key_file import FIRST_ID
from relay.store.sealing import Sealer

CipherName = Literal["aes-256-gcm", "sm4-gcm"]
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
