"""What all that we sign has in common: a manifest, its Ed25519 signature, and the key that it is checked with."""

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
# The most bytes that each may have: of a stranger's, no more is read.
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
    """A public key as OpenSSL reads it. Raises ValueError for what is none."""
    key = Ed25519PublicKey.from_public_bytes(public_key)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def faults_of_signature(
    key: bytes, manifest: bytes, signature: bytes, public_key: bytes, known: Sequence[bytes]
) -> Iterator[str]:
    """`key`: the one that the manifest names; `known`: those of which it must be one, where there are any."""
    if known and key not in known:
        yield "it was signed with another key"
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, manifest)
    except InvalidSignature:
        yield f"{MANIFEST} was changed: its signature is not right"
    if public_key != pem(key):
        yield f"{PUBLIC_KEY} is not the key that {MANIFEST} names"
