"""The anchor: the heads of the ledger and of both chains at one time, kept outside the database.

It shows when the whole database was put back to an earlier state. It is kept in a file beside the store, which the
backend writes, and wherever an operator has `relay700 verify --publish` write it.
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path
from typing import Final, NamedTuple

from relay.errors import ParseError, StoreError
from relay.store.chain import AUDIT, EMPTY, RECORDS, Head, anchor_fault, read_head
from relay.store.connection import Connection
from relay.store.sealing import Sealer

_REVISION: Final = "SELECT coalesce(max(revision), 0) FROM ledger_head"


class Anchor(NamedTuple):
    """Its text form is REVISION:RECORD:HASH:ENTRY:HASH, with hashes in hex, "-" for an empty chain."""

    revision: int
    records: Head
    audit: Head

    def __str__(self) -> str:
        chains = [f"{head.seq}:{head.hash.hex() or '-'}" for head in (self.records, self.audit)]
        return ":".join((str(self.revision), *chains))


def parse_anchor(text: str) -> Anchor:
    """Parse the text form. Raises ParseError."""
    try:
        revision, record, record_hash, entry, entry_hash = text.strip().split(":")
        return Anchor(int(revision), _head(record, record_hash), _head(entry, entry_hash))
    except ValueError:
        raise ParseError("a head is REVISION:RECORD:HASH:ENTRY:HASH, as `relay700 verify` prints it") from None


def _head(seq: str, hash_: str) -> Head:
    return EMPTY if hash_ == "-" else Head(int(seq), bytes.fromhex(hash_))


def read_anchor(connection: Connection, sealer: Sealer) -> Anchor:
    """The present anchor. Raises StoreError if the head of a chain was altered."""
    (revision,) = connection.execute(_REVISION).fetchone()
    return Anchor(revision, read_head(connection, sealer, RECORDS), read_head(connection, sealer, AUDIT))


def present_anchor(connection: Connection, sealer: Sealer) -> Anchor:
    """The present anchor, but EMPTY for a chain whose last link is lost: later checks would not find it."""
    anchor = read_anchor(connection, sealer)
    heads = [
        EMPTY if anchor_fault(connection, chain, head, "now") else head
        for chain, head in ((RECORDS, anchor.records), (AUDIT, anchor.audit))
    ]
    return Anchor(anchor.revision, *heads)


def growth_fault(connection: Connection, since: Anchor, words: str) -> str | None:
    """The fault in a store that has not just grown since the anchor; None if there is none.

    `words` says when the anchor was made.
    """
    (revision,) = connection.execute(_REVISION).fetchone()
    if revision < since.revision:
        return f"the ledger had the revision {since.revision} {words}, and has {revision} now"
    for chain, head in ((RECORDS, since.records), (AUDIT, since.audit)):
        if fault := anchor_fault(connection, chain, head, words):
            return fault
    return None


def anchor_path(store: Path) -> Path:
    """The path of the anchor file of a store."""
    return store.with_name(store.name + ".anchor")


class AnchorFile:
    """The file beside a store, mode 0600. `store`: the local path of the store, also for one on a server.

    The backend writes it every few seconds, the relay when it stops, and each command that has changed something.
    """

    def __init__(self, store: Path, sealer: Sealer) -> None:
        self.path = anchor_path(store)
        self._sealer = sealer

    def read(self) -> Anchor | None:
        """The stored anchor; None if there is no file yet. Raises StoreError."""
        try:
            text, _, mac = self.path.read_text().strip().partition(" ")
            anchor = parse_anchor(text)
        except FileNotFoundError:
            return None
        except (OSError, ParseError) as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from None
        if not hmac.compare_digest(mac, self._mac(text)):
            raise StoreError(f"{self.path} was altered, or made with another key: put it back from a backup")
        return anchor

    def write(self, anchor: Anchor) -> None:
        """Replace the file. Raises StoreError."""
        text = str(anchor)
        new = self.path.with_name(self.path.name + ".new")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w") as file:
                if os.geteuid() == 0:  # root runs a command; the relay runs as the owner of the folder
                    folder = os.stat(self.path.parent)
                    os.fchown(descriptor, folder.st_uid, folder.st_gid)
                file.write(f"{text} {self._mac(text)}\n")
            new.replace(self.path)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}") from None

    def keep(self, connection: Connection) -> None:
        """Write the present anchor. Raises StoreError."""
        self.write(read_anchor(connection, self._sealer))

    def check(self, connection: Connection) -> None:
        """Raises StoreError if the store holds less than it did when the file was written."""
        anchor = self.read()
        if anchor is not None and (fault := growth_fault(connection, anchor, f"when {self.path} was written")):
            raise StoreError(
                f"{fault}: an earlier copy of the store was put in its place. Put the right one back, or, if you did"
                " it, vouch for the copy with `relay700 verify --accept --reason …`"
            )

    def _mac(self, text: str) -> str:
        return self._sealer.row_mac(f"anchor {text}".encode()).hex()
