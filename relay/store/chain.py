"""The chains of call records and of the audit log: each link carries a keyed hash over itself and its predecessor.

The oldest links are purged after their retention. A checkpoint (`relay.store.audit`) keeps the last purged link, and
the chain is verified from there.

With the key, a chain shows every record that was changed, removed, inserted or moved. Each link also holds the head of
the other chain at that time, so that a truncated end shows too. The removal of a live record does not show.

The anchor is the heads of both chains and of the ledger at one time, kept outside the database: it shows when the whole
database was put back to an earlier state. It is in a file beside the store (`AnchorFile`), and wherever an operator has
`relay700 verify --publish` write it.
"""

from __future__ import annotations

import hmac
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from relay.errors import ParseError, StoreError
from relay.store.connection import Connection, Rows, Statement, fetch_together
from relay.store.sealing.sealer import Sealer

HeadRow = tuple[int, bytes, bytes]  # seq, hash, mac


class Chain(NamedTuple):
    """The tables and columns of one of the two chains."""

    name: str  # the key of its checkpoint
    words: str  # its name in messages
    table: str
    seq: str  # the column with the sequence number of a link
    hash: str  # the column with its hash
    at: str  # the column with its time, Unix milliseconds: of a record the end of the call
    head_table: str
    head_salt: bytes  # the salt of the MAC of the head


RECORDS: Final = Chain(
    "record", "the chain of call records", "call_record", "chain_seq", "chain_hash", "ended_at", "chain_head", b"head"
)
AUDIT: Final = Chain("audit", "the audit log", "audit", "seq", "hash", "at", "audit_head", b"audit head")


class Head(NamedTuple):
    """The last link: its sequence number, from 1, and its hash. The head of an empty chain is `EMPTY`."""

    seq: int
    hash: bytes


EMPTY: Final = Head(0, b"")
_ALL: Final = 1 << 62
_RIGHT: Final = """
SELECT {chain.seq}, {chain.at} FROM {chain.table} WHERE {chain.seq} > ? AND {chain.at} <= ? ORDER BY {chain.seq} LIMIT 1
"""
_COUNT_OVER: Final = """
SELECT count(*) FROM {chain.table} WHERE {chain.seq} <= :last AND {chain.seq} <= (
    SELECT max({chain.seq}) FROM {chain.table} WHERE {chain.at} < :before AND {chain.seq} < coalesce(
        (SELECT min({chain.seq}) FROM {chain.table} WHERE {chain.at} >= :before AND {chain.at} <= :now), :all))
"""


def next_link(sealer: Sealer, head: Head, encoded: bytes, like: object = b"") -> Head:
    """The link of an encoded record or entry after `head`; `like`: its stored hash, to compare with.

    Raises StoreError if that has another type, which relay700 never writes.
    """
    if not isinstance(like, bytes):
        raise StoreError(f"link {head.seq + 1} was altered: its hash has another type")
    return Head(head.seq + 1, sealer.chain_hash(head.hash, encoded, like))


def stored_link(seq: int, hash_: object) -> Head:
    """The link in a row; if its hash has another type, a link that nothing follows."""
    return Head(seq, hash_ if isinstance(hash_, bytes) else b"")


def number_over(
    connection: Connection, chain: Chain, links: Iterable[tuple[int, int]], before_ms: int, now_ms: int
) -> int:
    """The number of first links that are older than `before_ms`. Each link is given by sequence number and time.

    A link with a future time was written by a wrong clock: the time of the next good link counts for it.
    """
    number, right = 0, (0, 0)  # the next link that is not of the future
    for seq, at_ms in links:
        if at_ms > now_ms and at_ms >= before_ms:
            if right[0] < seq:
                right = connection.execute(_RIGHT.format(chain=chain), (seq, now_ms)).fetchone() or (_ALL, before_ms)
            at_ms = right[1]
        if at_ms >= before_ms:
            break
        number += 1
    return number


def count_over(connection: Connection, chain: Chain, before_ms: int, now_ms: int, last: int = _ALL) -> int:
    """As `number_over`, of all links up to `last`."""
    (count,) = connection.execute(
        _COUNT_OVER.format(chain=chain), {"last": last, "before": before_ms, "now": now_ms, "all": _ALL}
    ).fetchone()
    return int(count)


def write_head(connection: Connection, chain: Chain, row: HeadRow) -> None:
    """Store the result of `head_row`, in the transaction that adds its link."""
    connection.execute(*put_head(chain, row))


def put_head(chain: Chain, row: HeadRow) -> Statement:
    """The statement of `write_head`."""
    return (
        f"INSERT INTO {chain.head_table} (id, seq, hash, mac) VALUES (1, ?1, ?2, ?3)"
        " ON CONFLICT (id) DO UPDATE SET seq = ?1, hash = ?2, mac = ?3",
        row,
    )


def head_row(sealer: Sealer, chain: Chain, head: Head) -> HeadRow:
    return (head.seq, head.hash, _mac(sealer, chain, head))


def read_head(connection: Connection, sealer: Sealer, chain: Chain) -> Head:
    """The stored head. Raises StoreError if it is missing, forged, or older than the links or the checkpoint."""
    return found_head(sealer, chain, *fetch_together(connection, *select_head(chain)))


def select_head(chain: Chain) -> tuple[Statement, Statement]:
    """The statements of `read_head`."""
    ends = (
        f"SELECT coalesce(max({chain.seq}), 0), coalesce((SELECT seq FROM checkpoint WHERE chain = ?), 0)"
        f" FROM {chain.table}"
    )
    return (ends, (chain.name,)), (f"SELECT seq, hash, mac FROM {chain.head_table}", ())


def found_head(sealer: Sealer, chain: Chain, ends: Rows, heads: Rows) -> Head:
    """The head by the results of `select_head`."""
    (last, purged), row = ends.fetchone(), heads.fetchone()
    if row is None and not last and not purged:
        return EMPTY
    if row is None or not (isinstance(row[0], int) and isinstance(purged, int)) or row[0] < max(last, purged):
        raise StoreError(broken_head(chain))
    return checked_head(sealer, chain, row)


def stored_head(connection: Connection, chain: Chain) -> Head:
    """The stored head, unverified; EMPTY if there is none. Raises StoreError if its values have other types."""
    return found_stored_head(chain, connection.execute(*select_stored_head(chain)))


def select_stored_head(chain: Chain) -> Statement:
    """The statement of `stored_head`."""
    return f"SELECT seq, hash FROM {chain.head_table}", ()


def found_stored_head(chain: Chain, heads: Rows) -> Head:
    """The head by the result of `select_stored_head`."""
    row = heads.fetchone()
    if row is None:
        return EMPTY
    if not (isinstance(row[0], int) and isinstance(row[1], bytes)):
        raise StoreError(broken_head(chain))
    return Head(*row)


def checked_head(sealer: Sealer, chain: Chain, row: tuple[Any, Any, Any]) -> Head:
    """The head in a row that `head_row` made. Raises StoreError if it is forged, also with values of other types."""
    if not (isinstance(row[0], int) and isinstance(row[1], bytes) and isinstance(row[2], bytes)):
        raise StoreError(broken_head(chain))
    head = Head(row[0], row[1])
    if not hmac.compare_digest(row[2], _mac(sealer, chain, head, row[2])):
        raise StoreError(broken_head(chain))
    return head


def anchor_fault(connection: Connection, chain: Chain, anchor: Head, holder: str) -> str | None:
    """The fault in a chain that once had the head `anchor`; None if it still has that link, or purged it.

    `holder` says when that was, such as "when record 5 was written".
    """
    if anchor == EMPTY:
        return None
    row = connection.execute(
        f"SELECT (SELECT {chain.hash} FROM {chain.table} WHERE {chain.seq} = ?1),"
        " coalesce((SELECT seq FROM checkpoint WHERE chain = ?2), 0),"
        f" coalesce((SELECT max({chain.seq}) FROM {chain.table}), 0)",
        (anchor.seq, chain.name),
    ).fetchone()
    found, purged_to, last = row
    if not isinstance(purged_to, int):
        return f"the checkpoint of {chain.words} was altered"
    if found == anchor.hash or (found is None and anchor.seq <= purged_to):
        return None
    last = max(last, purged_to)
    if last < anchor.seq:
        return f"{chain.words} had the link {anchor.seq} {holder}, and ends at {last} now, {anchor.seq - last} missing"
    now = "none" if found is None else "another"
    return f"{chain.words} had the link {anchor.seq} {holder}, and has {now} now"


def reseal_head(connection: Connection, sealer: Sealer, chain: Chain) -> None:
    """Renew the MAC of the head with the key in use. Raises StoreError if it is forged.

    Within the caller's transaction; a head that has moved on meanwhile is left alone.
    """
    row = connection.execute(f"SELECT seq, hash, mac FROM {chain.head_table}").fetchone()
    if row is not None:
        mac = _mac(sealer, chain, checked_head(sealer, chain, row))
        connection.execute(f"UPDATE {chain.head_table} SET mac = ? WHERE mac = ?", (mac, row[2]))


def broken_head(chain: Chain) -> str:
    """The fault in words."""
    return f"the head of {chain.words} was altered or removed"


def _mac(sealer: Sealer, chain: Chain, head: Head, like: bytes = b"") -> bytes:
    return sealer.chain_hash(chain.head_salt, f"{head.seq} ".encode() + head.hash, like)


# -- The anchor

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
    return Anchor(
        stored_revision(connection), read_head(connection, sealer, RECORDS), read_head(connection, sealer, AUDIT)
    )


def stored_revision(connection: Connection) -> int:
    """The revision of the ledger's head, unverified; 0 if there is none, or it is no number."""
    (revision,) = connection.execute(_REVISION).fetchone()
    return revision if isinstance(revision, int) else 0


def present_anchor(connection: Connection, sealer: Sealer) -> Anchor:
    """The present anchor, but EMPTY for a chain whose last link is lost: later checks would not find it."""
    anchor = read_anchor(connection, sealer)
    heads = [
        EMPTY if anchor_fault(connection, chain, head, "now") else head
        for chain, head in ((RECORDS, anchor.records), (AUDIT, anchor.audit))
    ]
    return Anchor(anchor.revision, *heads)


def growth_faults(connection: Connection, since: Anchor, words: str) -> list[str]:
    """The faults of a store that has done other than grow since the anchor.

    `words` says when the anchor was made.
    """
    revision = stored_revision(connection)
    found = [
        anchor_fault(connection, chain, head, words) for chain, head in ((RECORDS, since.records), (AUDIT, since.audit))
    ]
    if revision < since.revision:
        found.append(f"the ledger had the revision {since.revision} {words}, and has {revision} now")
    return [fault for fault in found if fault]


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
            text, _, mac = self.path.read_text(encoding="ascii").strip().partition(" ")
            anchor = parse_anchor(text)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from None
        except (UnicodeDecodeError, ParseError):
            raise self._damaged() from None
        if not hmac.compare_digest(mac, self._mac(text)):
            raise self._damaged()
        return anchor

    def write(self, anchor: Anchor) -> None:
        """Replace the file, durably. Raises StoreError."""
        text = str(anchor)
        # Relay, backend and commands write at once; in a relay without a backend also the watch and the stop.
        new = self.path.with_name(f"{self.path.name}.{threading.get_native_id()}.new")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w") as file:
                if os.geteuid() == 0:  # root runs a command; the relay runs as the owner of the folder
                    folder = os.stat(self.path.parent)
                    os.fchown(descriptor, folder.st_uid, folder.st_gid)
                file.write(f"{text} {self._mac(text)}\n")
                file.flush()
                os.fsync(descriptor)  # else a power failure may leave an empty file
            new.replace(self.path)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}") from None

    def keep(self, connection: Connection) -> None:
        """Write the present anchor, unless the store holds less than the file says. Raises StoreError."""
        anchor = read_anchor(connection, self._sealer)
        self.check(connection)
        self.write(anchor)

    def check(self, connection: Connection) -> None:
        """Raises StoreError if the store holds less than it did when the file was written."""
        anchor = self.read()
        if anchor is not None and (faults := growth_faults(connection, anchor, f"when {self.path} was written")):
            *others, fault = faults
            raise StoreError(
                "".join(f"{other}\n" for other in others)
                + f"{fault}: an earlier copy of the store was put in its place. Put the right one back, or, if you did"
                " it, vouch for the copy with `relay700 verify --accept --reason …`"
            )

    def _damaged(self) -> StoreError:
        return StoreError(
            f"{self.path} is damaged, was altered, or made with another key: put it back from a backup, or, if the"
            " store is the right one, vouch for it with `relay700 verify --accept --reason …`"
        )

    def _mac(self, text: str) -> str:
        return self._sealer.row_mac(f"anchor {text}".encode()).hex()
