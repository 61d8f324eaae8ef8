"""Sealing of data that a stolen database must not reveal, the keyed hashes that searches use, and the key file.

Owns every use of the keys. Knows no tables.

A sealed blob: key id (1 byte), salt (12), nonce (12), AES-256-GCM ciphertext and tag (16). The key is derived from the
salt, which each Sealer draws at random, again after each million blobs; the nonce counts the blobs. So no nonce repeats
under one key, and no key is used for long (NIST SP 800-38D 8). Deriving a key costs twice as much as sealing a record.

There may be several master keys. Each opens and verifies what was made with it; one, the key in use, makes everything
new except look-up hashes and row MACs. Those have separate keys that never change, or equal numbers would not match.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from relay.errors import StoreError
from relay.store.files import check_key_mode, make_once, sync_folder, written_beside

_HASH_ID: Final = b"\x01"  # the id of the look-up hash key
BLOBS_PER_SALT = 1 << 20
_SALT_END: Final = 13
_NONCE_END: Final = 25

KEPT_CHANGES: Final = 20_000  # changed rows of each table that a process remembers; of all tables, that the store keeps
_SPARE_CHANGES: Final = 5_000  # more than those before the oldest are dropped

_ALTERED: Final = "a sealed value was altered, or made with another key"


class _Master:
    """One master key and its subkeys: for sealing, the chains, evidence, files."""

    def __init__(self, key_id: int, master: bytes) -> None:
        self.id = bytes([key_id])
        self._sealing = _subkey(master, b"relay700 sealing")
        self.cipher = lru_cache(maxsize=256)(self._derive)  # blobs sealed by one process share a salt
        self.chain = hashlib.blake2b(key=_subkey(master, b"relay700 chain"), digest_size=32)
        self.evidence = _subkey(master, b"relay700 evidence")
        self.files = _subkey(master, b"relay700 files")
        self.proof = _subkey(master, b"relay700 proof")

    def _derive(self, salt: bytes) -> AESGCM:
        return AESGCM(hashlib.blake2b(salt, key=self._sealing, digest_size=32).digest())


class _Run:
    """The run of blobs that one process seals under one salt."""

    def __init__(self, master: _Master) -> None:
        self.process = os.getpid()
        self.nonces = iter(range(BLOBS_PER_SALT))  # threads that share it never get the same one
        salt = os.urandom(12)
        self.head = master.id + salt
        self.cipher = master.cipher(salt)


class Sealer:
    """The keys of one store."""

    def __init__(self, keys: bytes | KeyFile, key_file: Path | None = None) -> None:
        """`keys`: one key of 32 bytes, which gets the id 1, or a key file, whose last key is in use until `use`.

        `key_file`: the file to read again when an unknown key id is met.
        """
        if isinstance(keys, bytes):
            keys = KeyFile({FIRST_ID: keys}, None, Stamp(0, 0, 0))
        self._key_file = key_file
        self._stamp = keys.stamp
        self._masters = {bytes([key_id]): _Master(key_id, master) for key_id, master in keys.masters.items()}
        self.hash_keys = _hash_keys(keys)  # for look-up hashes and row MACs
        self._lookup = hashlib.blake2b(key=self.hash_keys[0], digest_size=16)
        self._row = hashlib.blake2b(key=self.hash_keys[1], digest_size=16)
        self.sum_key = hashlib.blake2b(b"relay700 ledger sum", key=self.hash_keys[1], digest_size=32).digest()
        # One key of digest nonces for all processes of the store: a phone that comes back is known after a restart.
        self.nonce_key = hashlib.blake2b(b"relay700 nonce", key=self.hash_keys[1], digest_size=32).digest()
        self._use(list(self._masters.values())[-1])
        # The rows refused until an operator has accepted them, as the head of the ledger last had them: by table and
        # key ("" is the whole table) the revision up to which no proof counts.
        self.refused: dict[str, dict[str, int]] = {}
        self._refused_at = 0
        self._of_head = self.refused
        self._found_here: dict[str, dict[str, int]] = {}  # by this process, and not yet in the head
        self.stopped = ""  # why nothing is granted, as `relay.store.schema_look` found
        # The same of rows that were changed or deleted since this process began, or shortly before: an older proof of
        # theirs was put back. Each table has its latest ones.
        self.outdated: dict[str, dict[str, int]] = {}
        self.outdated_to = 0  # the latest revision of such a change: what is read from now on has them all
        # When each was known, by `time.monotonic_ns`; for reads that began before.
        self._known_at: deque[tuple[int, int]] = deque(maxlen=KEPT_CHANGES)
        self.learned_changes = 0  # `relay.store.recent_changes`
        self._outdating = threading.Lock()

    def refuse(self, rows: dict[str, dict[str, int]], revision: int) -> None:
        """Take over the refused rows of the ledger's head with this revision, unless a later one was seen."""
        if revision >= self._refused_at:
            self._of_head, self._refused_at = rows, revision
            self._join()

    def refuse_here(self, rows: Iterable[tuple[str, str]]) -> None:
        """Refuse these rows, as (table, key), in this process, beside those of the head and no others."""
        before, self._found_here = self._found_here, {}
        for table, row_key in rows:
            revision = before.get(table, {}).get(row_key, self._refused_at)
            self._found_here.setdefault(table, {})[row_key] = revision
        self._join()

    def outdate(self, rows: Iterable[tuple[str, str]], revision: int) -> None:
        """These rows, as (table, key), were changed or deleted at this revision, which is committed."""
        with self._outdating:
            for table, row_key in rows:
                known = self.outdated.setdefault(table, {})
                known[row_key] = max(known.pop(row_key, 0), revision - 1)  # becomes the last
                if len(known) > KEPT_CHANGES + _SPARE_CHANGES:
                    for oldest in list(islice(known, _SPARE_CHANGES)):
                        del known[oldest]
            if revision > self.outdated_to:
                self.outdated_to = revision
                self._known_at.append((time.monotonic_ns(), revision))

    def outdated_before(self, begun_ns: int) -> int:
        """As `outdated_to`, at that moment. 0 if it is too long ago."""
        with self._outdating:
            return next((revision for known_ns, revision in reversed(self._known_at) if known_ns < begun_ns), 0)

    def _join(self) -> None:
        joined = dict(self._of_head)
        for table, rows in self._found_here.items():
            joined[table] = rows | joined.get(table, {})
        self.refused = joined

    def _use(self, master: _Master) -> None:
        self._in_use = master
        self._run = _Run(master)

    # -- the keys

    @property
    def key_id(self) -> int:
        """The id of the key in use."""
        return self._in_use.id[0]

    @property
    def key_ids(self) -> list[int]:
        """The ids of all keys, in the order of the key file."""
        return [key_id[0] for key_id in self._masters]

    def proof(self, key_id: int) -> bytes:
        """32 bytes that show whether two keys with this id are equal, and reveal nothing else of the key."""
        return self._master(bytes([key_id])).proof

    def use(self, key_id: int) -> None:
        """Seal, chain and sign with this key from now on. Raises StoreError if the key file does not have it."""
        if key_id != self.key_id:
            self._use(self._master(bytes([key_id])))

    def refresh(self) -> bool:
        """Read the key file again if it has changed. Return whether it had. Raises StoreError."""
        if self._key_file is None or stamp_of(self._key_file) == self._stamp:
            return False
        self.follow(read_key_file(self._key_file))
        return True

    def follow(self, file: KeyFile) -> None:
        """Switch to the keys of this file. The key in use stays available even if the file lacks it.

        Raises StoreError if the file belongs to another store.
        """
        if _hash_keys(file) != self.hash_keys:
            raise StoreError(f"the key file {self._key_file} belongs to another store now: put the right one back")
        masters = {bytes([key_id]): _Master(key_id, master) for key_id, master in file.masters.items()}
        for key_id, master in masters.items():
            known = self._masters.get(key_id)
            if known is not None and known.proof != master.proof:
                raise StoreError(
                    f"the key {key_id[0]} in the key file {self._key_file} was changed: put the right one back"
                )
        masters.setdefault(self._in_use.id, self._in_use)
        self._masters = masters
        self._stamp = file.stamp

    def _found(self, key_id: bytes) -> _Master | None:
        """The key, if necessary after reading the key file again. Raises StoreError if that file is bad."""
        master = self._masters.get(key_id)
        if master is None and self.refresh():
            master = self._masters.get(key_id)
        return master

    def _master(self, key_id: bytes) -> _Master:
        """The key. Raises StoreError if there is none with this id."""
        master = self._found(key_id)
        if master is not None:
            return master
        if self._key_file is None or not key_id:
            raise StoreError("a sealed value was altered, or made with another key")
        raise StoreError(
            f"a value was altered, or made with the key {key_id[0]}, which the key file {self._key_file} does not have:"
            " add its line, from a backup or from another node"
        )

    # -- sealing and hashing

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt. The blob opens only with the same `context`, which binds it to its place."""
        run = self._run
        number = next(run.nonces, None)
        if number is None or run.process != os.getpid():  # after a fork both processes would use the same nonces
            run = self._run = _Run(self._in_use)
            number = next(run.nonces)
        nonce = number.to_bytes(12)
        return run.head + nonce + run.cipher.encrypt(nonce, plaintext, context)

    def open_(self, blob: object, context: bytes) -> bytes:
        """The plaintext of a blob. Raises StoreError unless blob, context and key are those it was sealed with.

        A column that someone else has written may hold a value of any type.
        """
        if not isinstance(blob, bytes):
            raise StoreError(_ALTERED)
        master = self._masters.get(blob[:1]) or self._master(blob[:1])
        try:
            cipher = master.cipher(blob[1:_SALT_END])
            return cipher.decrypt(blob[_SALT_END:_NONCE_END], blob[_NONCE_END:], context)
        except (InvalidTag, ValueError):
            raise StoreError(_ALTERED) from None

    def lookup_hash(self, number: str) -> bytes:
        """17 bytes, equal for equal numbers within one store: the id of the hash key and a keyed BLAKE2b."""
        keyed = self._lookup.copy()
        keyed.update(number.encode())
        return _HASH_ID + keyed.digest()

    def chain_hash(self, predecessor: bytes, record: bytes, like: bytes = b"") -> bytes:
        """33 bytes: the key id and a keyed BLAKE2b over the hash of the predecessor and an encoded record.

        `like`: a hash to compare with, whose key is then used. Without one the key in use is taken.
        """
        master = (self._found(like[:1]) if like else None) or self._in_use
        keyed = master.chain.copy()
        keyed.update(predecessor)
        keyed.update(record)
        return master.id + keyed.digest()

    def row_mac(self, data: bytes) -> bytes:
        """A MAC of 16 bytes over fields of a row that belong together. Its key differs from that of look-up hashes."""
        keyed = self._row.copy()
        keyed.update(data)
        return keyed.digest()

    def file_key(self, salt: bytes, key_id: int) -> bytes:
        """The 32-byte key of one file, from the random 16-byte salt in its head. Raises StoreError without the key."""
        return hashlib.blake2b(salt, key=self._master(bytes([key_id])).files, digest_size=32).digest()

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature (RFC 8032) of 64 bytes, which `public_key` verifies."""
        return Ed25519PrivateKey.from_private_bytes(self._in_use.evidence).sign(data)

    def public_key(self, key_id: int = 0) -> bytes:
        """The Ed25519 public key (32 bytes) of a key; 0: of the key in use. Raises StoreError."""
        master = self._master(bytes([key_id])) if key_id else self._in_use
        return Ed25519PrivateKey.from_private_bytes(master.evidence).public_key().public_bytes_raw()


def _subkey(master: bytes, purpose: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, purpose).derive(master)


def load_key(path: Path) -> Sealer:
    """The keys of a key file. Raises StoreError if it is missing, malformed, or open to other users."""
    return Sealer(read_key_file(path), path)


def _hash_keys(file: KeyFile) -> tuple[bytes, bytes]:
    if file.hashes is not None:
        return file.hashes
    (master,) = file.masters.values()
    return _subkey(master, b"relay700 lookup"), _subkey(master, b"relay700 row")


# -- The key file: the master keys with their ids, one per line, in the order of their addition
#
#     relay700-key 1 HEX
#     relay700-key 2 HEX
#     relay700-hashes HEX HEX
#
# The last line is present from the second key on: the keys of look-up hashes and row MACs, which stay those derived
# from the first key.

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
    """Read a key file. Raises StoreError if it is missing, malformed, or open to other users (`check_key_mode`)."""
    try:
        with path.open(encoding="ascii") as file:
            found = os.fstat(file.fileno())
            text = file.read(_MOST_BYTES)
    except FileNotFoundError:
        raise StoreError(f"the key file {path} is missing: put it back, the store cannot be read without it") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"the key file {path} cannot be read: {_reason(error)}") from None
    check_key_mode(path, found)
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
        make_once(path, _key_line(FIRST_ID, new_master()))
    except OSError as error:
        raise StoreError(f"the key file {path} cannot be created: {_reason(error)}") from None


def write_key_file(path: Path, masters: dict[int, bytes], hashes: tuple[bytes, bytes]) -> None:
    """Replace the key file, atomically and durably; mode and owner stay. Raises StoreError."""
    lines = [_key_line(key_id, master) for key_id, master in masters.items()]
    text = "".join(lines) + f"relay700-hashes {hashes[0].hex()} {hashes[1].hex()}\n"
    path = path.resolve()
    try:
        owner = path.stat()
        temporary = written_beside(path, text)
        try:
            os.chown(temporary, owner.st_uid, owner.st_gid)
            temporary.replace(path)
        except BaseException:
            temporary.unlink()
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"the key file {path} cannot be written: {_reason(error)}") from None


def _key_line(key_id: int, master: bytes) -> str:
    return f"relay700-key {key_id} {master.hex()}\n"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "it is not a text file"
