"""Sealing of what a stolen database must not show, and the keyed hashes that find it again (DESIGN 3).

It owns every use of the keys. It knows nothing of tables, nor of the form of the key file (`relay.store.key_file`).

A sealed blob is: key id (1 byte), salt (12), nonce (12), AES-256-GCM ciphertext and tag (16). The key is derived from
the salt, which each Sealer draws for itself and anew after a million blobs; the nonce counts them. So no nonce comes
twice under one key, and no key serves long (NIST SP 800-38D 8). Making a key costs twice what sealing a record does.

There may be several master keys: each opens and verifies what was made with it, and one, the key in use, makes all that
is new but look-up hashes and MACs of rows. Those stay under keys of their own, or equal numbers would not be found.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from relay.errors import StoreError
from relay.store.key_file import FIRST_ID, KeyFile, Stamp, read_key_file, stamp_of

_HASH_ID: Final = b"\x01"  # of the keys of look-up hashes
BLOBS_PER_SALT = 1 << 20
_SALT_END: Final = 13
_NONCE_END: Final = 25


class _Master:
    """One master key and its subkeys: for sealing, the chain of records, evidence, files."""

    def __init__(self, key_id: int, master: bytes) -> None:
        self.id = bytes([key_id])
        self._sealing = _subkey(master, b"relay700 sealing")
        self.cipher = lru_cache(maxsize=256)(self._derive)  # the blobs of one run or one import share their salt
        self.chain = hashlib.blake2b(key=_subkey(master, b"relay700 chain"), digest_size=32)
        self.evidence = _subkey(master, b"relay700 evidence")
        self.files = _subkey(master, b"relay700 files")
        self.proof = _subkey(master, b"relay700 proof")

    def _derive(self, salt: bytes) -> AESGCM:
        return AESGCM(hashlib.blake2b(salt, key=self._sealing, digest_size=32).digest())


class _Run:
    """The blobs that one process seals under one salt."""

    def __init__(self, master: _Master) -> None:
        self.process = os.getpid()
        self.left = BLOBS_PER_SALT
        salt = os.urandom(12)
        self.head = master.id + salt
        self.cipher = master.cipher(salt)


class Sealer:
    """The keys of one store."""

    def __init__(self, keys: bytes | KeyFile, key_file: Path | None = None) -> None:
        """One key of 32 bytes, with the id 1; or those of a file, the last of which is in use until `use` says else.

        With `key_file` what is missing is looked for there again.
        """
        if isinstance(keys, bytes):
            keys = KeyFile({FIRST_ID: keys}, None, Stamp(0, 0, 0))
        self._key_file = key_file
        self._stamp = keys.stamp
        self._masters = {bytes([key_id]): _Master(key_id, master) for key_id, master in keys.masters.items()}
        self.hash_keys = _hash_keys(keys)  # of look-up hashes and of rows' MACs
        self._lookup = hashlib.blake2b(key=self.hash_keys[0], digest_size=16)
        self._row = hashlib.blake2b(key=self.hash_keys[1], digest_size=16)
        self.sum_key = hashlib.blake2b(b"relay700 ledger sum", key=self.hash_keys[1], digest_size=32).digest()
        self._use(list(self._masters.values())[-1])

    def _use(self, master: _Master) -> None:
        self._in_use = master
        self._run = _Run(master)

    # -- which keys there are

    @property
    def key_id(self) -> int:
        """Of the key in use."""
        return self._in_use.id[0]

    @property
    def key_ids(self) -> list[int]:
        """In the order of the key file."""
        return [key_id[0] for key_id in self._masters]

    def proof(self, key_id: int) -> bytes:
        """32 bytes that tell whether two keys with this id are the same, and no more of it."""
        return self._master(bytes([key_id])).proof

    def use(self, key_id: int) -> None:
        """Seals, chains and signs with this key from now on. Raises StoreError where the key file has none of it."""
        if key_id != self.key_id:
            self._use(self._master(bytes([key_id])))

    def refresh(self) -> bool:
        """Reads the key file anew if it is another one than last time, and tells whether. Raises StoreError."""
        if self._key_file is None or stamp_of(self._key_file) == self._stamp:
            return False
        self.follow(read_key_file(self._key_file))
        return True

    def follow(self, file: KeyFile) -> None:
        """Has the keys of this file from now on, and the one in use as long as it is.

        Raises StoreError for the file of another store.
        """
        if _hash_keys(file) != self.hash_keys:
            raise StoreError(f"the key file {self._key_file} belongs to another store now: put the right one back")
        masters = {bytes([key_id]): _Master(key_id, master) for key_id, master in file.masters.items()}
        for key_id, master in masters.items():
            known = self._masters.get(key_id)
            if known is not None and known.proof != master.proof:
                raise StoreError(
                    f"the key file {self._key_file} has another key {key_id[0]} than before: put the right one back"
                )
        masters.setdefault(self._in_use.id, self._in_use)
        self._masters = masters
        self._stamp = file.stamp

    def _found(self, key_id: bytes) -> _Master | None:
        """One that the key file did not have when it was read may be there now. Raises StoreError for a bad file."""
        master = self._masters.get(key_id)
        if master is None and self.refresh():
            master = self._masters.get(key_id)
        return master

    def _master(self, key_id: bytes) -> _Master:
        """Raises StoreError where there is none."""
        master = self._found(key_id)
        if master is not None:
            return master
        if self._key_file is None or not key_id:
            raise StoreError("a sealed value was altered, or made with another key")
        raise StoreError(
            f"a value was altered, or made with the key {key_id[0]}, which the key file {self._key_file} does not have:"
            " put its line in, from a copy or from another node's"
        )

    # -- what they do

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Encrypts; opens only with the same `context`, which says where the blob belongs."""
        run = self._run
        if not run.left or run.process != os.getpid():  # a fork must not count on from the same number
            run = self._run = _Run(self._in_use)
        run.left -= 1
        nonce = run.left.to_bytes(12)
        return run.head + nonce + run.cipher.encrypt(nonce, plaintext, context)

    def open_(self, blob: bytes, context: bytes) -> bytes:
        """The plaintext of a blob. Raises StoreError where blob, context or key are not those it was sealed with."""
        master = self._masters.get(blob[:1]) or self._master(blob[:1])
        try:
            cipher = master.cipher(blob[1:_SALT_END])
            return cipher.decrypt(blob[_SALT_END:_NONCE_END], blob[_NONCE_END:], context)
        except (InvalidTag, ValueError):
            raise StoreError("a sealed value was altered, or made with another key") from None

    def lookup_hash(self, number: str) -> bytes:
        """17 bytes, equal for equal numbers of one store: the id of its hashes' keys and a keyed BLAKE2b."""
        keyed = self._lookup.copy()
        keyed.update(number.encode())
        return _HASH_ID + keyed.digest()

    def chain_hash(self, predecessor: bytes, record: bytes, like: bytes = b"") -> bytes:
        """33 bytes: the key id and a keyed BLAKE2b over the predecessor's hash and an encoded record.

        With the key that the hash `like` names, so that both can be compared; with the one in use where it names none.
        """
        master = (self._found(like[:1]) if like else None) or self._in_use
        keyed = master.chain.copy()
        keyed.update(predecessor)
        keyed.update(record)
        return master.id + keyed.digest()

    def row_mac(self, data: bytes) -> bytes:
        """16 bytes over what must stand together in a row. No look-up hash, of whatever text, is ever one of these."""
        keyed = self._row.copy()
        keyed.update(data)
        return keyed.digest()

    def file_key(self, salt: bytes, key_id: int) -> bytes:
        """32 bytes for one file alone, whose random salt (16 bytes) stands in it. Raises StoreError for no key."""
        return hashlib.blake2b(salt, key=self._master(bytes([key_id])).files, digest_size=32).digest()

    def sign(self, data: bytes) -> bytes:
        """64 bytes: an Ed25519 signature (RFC 8032) that anybody can check with `public_key`."""
        return Ed25519PrivateKey.from_private_bytes(self._in_use.evidence).sign(data)

    def public_key(self, key_id: int = 0) -> bytes:
        """32 bytes: what signatures of a key are checked with; 0: of the key in use. Raises StoreError."""
        master = self._master(bytes([key_id])) if key_id else self._in_use
        return Ed25519PrivateKey.from_private_bytes(master.evidence).public_key().public_bytes_raw()


def _subkey(master: bytes, purpose: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, purpose).derive(master)


def load_key(path: Path) -> Sealer:
    """The keys of a key file. Raises StoreError where it is missing, malformed, or open to other users."""
    return Sealer(read_key_file(path), path)


def _hash_keys(file: KeyFile) -> tuple[bytes, bytes]:
    if file.hashes is not None:
        return file.hashes
    (master,) = file.masters.values()
    return _subkey(master, b"relay700 lookup"), _subkey(master, b"relay700 row")
