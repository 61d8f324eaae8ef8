"""Signed output: a manifest, its Ed25519 signature, and the public key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"
PUBLIC_KEY: Final = "public_key.pem"
SIGNED: Final = (MANIFEST, SIGNATURE, PUBLIC_KEY)
# Maximum bytes of each: no more is read of an untrusted file.
LONGEST: Final = {MANIFEST: 1 << 20, SIGNATURE: 64, PUBLIC_KEY: 4_096}


class Link(Struct, frozen=True):
    """A place in the chain of call records; the hash is hexadecimal."""

    seq: int
    hash: str


class File(Struct, frozen=True):
    """A file that a manifest names; the hash is hexadecimal."""

    sha256: str
    lines: int


def pem(public_key: bytes) -> bytes:
    """A public key in PEM, for OpenSSL. Raises ValueError if it is not one."""
    key = Ed25519PublicKey.from_public_bytes(public_key)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def faults_of_signature(
    key: bytes, manifest: bytes, signature: bytes, public_key: bytes, known: Sequence[bytes]
) -> Iterator[str]:
    """Yield faults. `key`: the one that the manifest names; `known`: trusted keys, one of which it must be if any."""
    if known and key not in known:
        yield "it was signed with another key"
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, manifest)
    except InvalidSignature:
        yield f"{MANIFEST} was changed: its signature does not match"
    if public_key != pem(key):
        yield f"{PUBLIC_KEY} is not the key that {MANIFEST} names"
