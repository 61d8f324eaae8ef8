"""Signed output: manifest, Ed25519 signature, public key; and recordings in segments sealed with SM4."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct

from relay.errors import StoreError
from relay.store.chain import Head
from relay.store.files import check_key_mode, make_once
from relay.store.recordings import Recording, has_cipher

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"
PUBLIC_KEY: Final = "public_key.pem"
SIGNED: Final = (MANIFEST, SIGNATURE, PUBLIC_KEY)
# Maximum bytes of each: no more is read of an untrusted file.
LONGEST: Final = {MANIFEST: 1 << 20, SIGNATURE: 64, PUBLIC_KEY: 4_096}


class ChainLink(Struct, frozen=True):
    """A place in the chain of call records; the hash is hexadecimal."""

    seq: int
    hash: str


def link_to(head: Head) -> ChainLink | None:
    return ChainLink(head.seq, head.hash.hex()) if head.seq else None


class File(Struct, frozen=True):
    """A file that a manifest names; the hash is hexadecimal."""

    sha256: str
    lines: int


def encode_pem(public_key: bytes) -> bytes:
    """A public key in PEM, for OpenSSL. Raises ValueError if it is not one."""
    key = Ed25519PublicKey.from_public_bytes(public_key)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def faults_of_signature(
    key: bytes, manifest: bytes, signature: bytes, public_key: bytes, known: Sequence[bytes]
) -> Iterator[str]:
    """Yield faults. `key`: the one that the manifest names; `known`: trusted keys, if any, which must include it."""
    if known and key not in known:
        yield "it was signed with another key"
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, manifest)
    except InvalidSignature:
        yield f"{MANIFEST} was changed: its signature does not match"
    if public_key != encode_pem(key):
        yield f"{PUBLIC_KEY} is not the key that {MANIFEST} names"


# -- Recordings for the authority

SEGMENT: Final = 4 << 20  # bytes; the last segment of a recording may be shorter
_KEY: Final = re.compile(r"[0-9a-f]{32}\n?")


class BatchKey(NamedTuple):
    """A key of 16 bytes, and an id derived from it."""

    key: bytes
    id: str


class Segment(Struct, frozen=True):
    """A sealed part of a recording. IV and hash of the file are hexadecimal."""

    file: str  # relative to the batch's folder
    offset: int  # of its first byte in the recording
    size: int
    iv: str
    sha256: str


def load_batch_key(path: Path) -> BatchKey:
    """Read the key from a file of 32 hexadecimal digits, made if missing. Raises StoreError, also without SM4."""
    if not has_cipher("sm4-gcm"):
        raise StoreError("this OpenSSL has no SM4, which recordings for the authority need")
    try:
        if not path.exists():
            make_once(path, f"{secrets.token_hex(16)}\n")
        with path.open(encoding="ascii") as file:
            found = os.fstat(file.fileno())
            text = file.read(64)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a text file"
        raise StoreError(f"the key file {path} cannot be read or made: {reason}") from None
    check_key_mode(path, found)
    if not _KEY.fullmatch(text):
        raise StoreError(f"the key file {path} is damaged, not 32 hexadecimal digits: put the right one back")
    key = bytes.fromhex(text)
    return BatchKey(key, hashlib.sha256(b"relay700 batch key " + key).hexdigest()[:16])


def write_private(path: Path, parts: Iterable[bytes]) -> str:
    """Write a file of mode 0600, complete and durable before it gets its name. Returns its SHA-256. Raises OSError."""
    temporary = path.with_name(f"{path.name}.part")
    digest = hashlib.sha256()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # also for a file left by a killed run
        for part in parts:
            digest.update(part)
            file.write(part)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
    return digest.hexdigest()


def plan_segments(key: BatchKey, recording: Recording) -> list[Segment]:
    """The segments of a recording, with empty hashes."""
    return [
        Segment(
            f"recordings/{recording.call_id}.{number:04}.sm4",
            offset,
            min(SEGMENT, recording.size - offset),
            _iv(key, recording, offset).hex(),
            "",
        )
        for number, offset in enumerate(range(0, recording.size, SEGMENT))
    ]


def cut_segments(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes in pieces of a segment's size."""
    waiting = bytearray()
    for part in parts:
        waiting += part
        while len(waiting) >= SEGMENT:
            yield bytes(waiting[:SEGMENT])
            del waiting[:SEGMENT]
    if waiting:
        yield bytes(waiting)


def seal_segment(key: BatchKey, segment: Segment, data: bytes) -> bytes:
    """Encrypt a segment; the result is as long as `data`."""
    encryptor = Cipher(algorithms.SM4(key.key), modes.CTR(bytes.fromhex(segment.iv))).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def _iv(key: BatchKey, recording: Recording, offset: int) -> bytes:
    place = f"relay700 segment {recording.call_id} {recording.sha256} {offset}".encode()
    return hmac.digest(key.key, place, "sha256")[:16]
