"""Sealing of what a stolen database must not show, and the keyed hashes that find it again (DESIGN 3).

It owns the key file and every use of the key. It knows nothing of tables.

A sealed blob is: key id (1 byte), salt (12), nonce (12), AES-256-GCM ciphertext and tag (16). The key is derived from
the salt, which each Sealer draws for itself and anew after a million blobs; the nonce counts them. So no nonce comes
twice under one key, and no key serves long (NIST SP 800-38D 8). Making a key costs twice what sealing a record does.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from relay.errors import StoreError

KEY_ID: Final = 1
_ID: Final = bytes([KEY_ID])
BLOBS_PER_SALT = 1 << 20
_SALT_END: Final = 13
_NONCE_END: Final = 25
_KEY_LINE: Final = re.compile(r"relay700-key 1 ([0-9a-f]{64})\n?")


class Sealer:
    """One master key of 32 bytes and its subkeys: for sealing, look-up hashes, the chain of records, MACs of rows."""

    def __init__(self, master: bytes) -> None:
        self._sealing = _subkey(master, b"relay700 sealing")
        self._lookup = hashlib.blake2b(key=_subkey(master, b"relay700 lookup"), digest_size=16)
        self._cipher = lru_cache(maxsize=256)(self._derive)  # the blobs of one run or one import share their salt
        self._blobs_left = 0
        self._process = 0
        self._chain = hashlib.blake2b(key=_subkey(master, b"relay700 chain"), digest_size=32)
        self._evidence = _subkey(master, b"relay700 evidence")
        self._files = _subkey(master, b"relay700 files")
        self._row = hashlib.blake2b(key=_subkey(master, b"relay700 row"), digest_size=16)

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Encrypts; opens only with the same `context`, which says where the blob belongs."""
        if not self._blobs_left or self._process != os.getpid():  # a fork must not count on from the same number
            self._process = os.getpid()
            self._salt = os.urandom(12)
            self._blobs_left = BLOBS_PER_SALT
        self._blobs_left -= 1
        nonce = self._blobs_left.to_bytes(12)
        return _ID + self._salt + nonce + self._cipher(self._salt).encrypt(nonce, plaintext, context)

    def open_(self, blob: bytes, context: bytes) -> bytes:
        """The plaintext of a blob. Raises StoreError where blob, context or key are not those it was sealed with."""
        if blob[:1] != _ID:
            raise StoreError("a sealed value was made with another key, or is damaged")
        try:
            cipher = self._cipher(blob[1:_SALT_END])
            return cipher.decrypt(blob[_SALT_END:_NONCE_END], blob[_NONCE_END:], context)
        except (InvalidTag, ValueError):
            raise StoreError("a sealed value was altered, or made with another key") from None

    def lookup_hash(self, number: str) -> bytes:
        """17 bytes, equal for equal numbers under one key: the key id and a keyed BLAKE2b."""
        keyed = self._lookup.copy()
        keyed.update(number.encode())
        return _ID + keyed.digest()

    def chain_hash(self, predecessor: bytes, record: bytes) -> bytes:
        """33 bytes: the key id and a keyed BLAKE2b over the predecessor's hash and an encoded record."""
        keyed = self._chain.copy()
        keyed.update(predecessor)
        keyed.update(record)
        return _ID + keyed.digest()

    def row_mac(self, data: bytes) -> bytes:
        """16 bytes over what must stand together in a row. No look-up hash, of whatever text, is ever one of these."""
        keyed = self._row.copy()
        keyed.update(data)
        return keyed.digest()

    def file_key(self, salt: bytes) -> bytes:
        """32 bytes for one file alone, whose random salt (16 bytes) stands in it."""
        return hashlib.blake2b(salt, key=self._files, digest_size=32).digest()

    def sign(self, data: bytes) -> bytes:
        """64 bytes: an Ed25519 signature (RFC 8032) that anybody can check with `public_key`."""
        return Ed25519PrivateKey.from_private_bytes(self._evidence).sign(data)

    def public_key(self) -> bytes:
        """32 bytes: what signatures are checked with. It stays the same as long as the key file does."""
        return Ed25519PrivateKey.from_private_bytes(self._evidence).public_key().public_bytes_raw()

    def _derive(self, salt: bytes) -> AESGCM:
        return AESGCM(hashlib.blake2b(salt, key=self._sealing, digest_size=32).digest())


def _subkey(master: bytes, purpose: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, purpose).derive(master)


def load_key(path: Path) -> Sealer:
    """Reads a key file. Raises StoreError where it is missing, malformed, or open to other users."""
    try:
        with path.open(encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(200)
    except FileNotFoundError:
        raise StoreError(f"the key file {path} is missing: put it back, the store cannot be read without it") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"the key file {path} cannot be read: {_reason(error)}") from None
    if mode & 0o077:
        raise StoreError(f"the key file {path} is open to other users (mode {mode:04o}): chmod 600 {path}")
    match = _KEY_LINE.fullmatch(text)
    if match is None:
        raise StoreError(f"the key file {path} is damaged: put the right one back")
    return Sealer(bytes.fromhex(match[1]))


def make_key(path: Path) -> None:
    """Makes a key file, mode 0600, durable before it is used; leaves one alone that another process just made."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, f"relay700-key {KEY_ID} {secrets.token_hex(32)}\n".encode())
            os.fsync(descriptor)
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            os.close(descriptor)
            os.unlink(temporary)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"the key file {path} cannot be made: {_reason(error)}") from None


def sync_folder(folder: Path) -> None:
    """Makes durable what was made or renamed in it. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "it is no text"
