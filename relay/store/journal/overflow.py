"""The overflow log: a file beside the store that keeps commits durable while the store accepts none.

Its entries are acknowledged, so calls go on while the store is locked or its disk is full. The journal decides when it
is used.

Its space is allocated in advance, so a full disk does not matter. Each entry is sealed, and bound to its position and
to the run of entries since the log was last empty.

Each entry is written to the store once, and nothing later is written before the log is cleared: if a call is in both,
the log is right. A process that starts meanwhile appends to the log, lays its entries over the calls that are up in
the store, and counts its calls of the last 15 minutes against the caps; older ones count once they are in the store.
Events of calls under way and last callers are not kept; on a server nor are calls that are up, since a node that takes
them over would not see it. Calls that another node has taken over or recorded meanwhile are left to that node.
"""

from __future__ import annotations

import errno
import os
import secrets
import struct
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from relay.errors import StoreError
from relay.model.actions import Commit
from relay.store.files import open_beside, sync_folder
from relay.store.record_rows import decode_record, encode_record
from relay.store.sealing.sealer import Sealer

BYTES = 16 * 1024 * 1024  # about 10,000 commits
_HEAD: Final = struct.Struct(">8s8sQ")  # _MAGIC, random binding of the entries, last record of the chain at the start
_MAGIC: Final = b"r7over1\0"
_LENGTH: Final = struct.Struct(">I")  # before each entry; 0: end of the log

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[bytes, bytes | None]).decode


class OverflowContent(NamedTuple):
    """The content of an overflow log."""

    since_seq: int  # the last record of the chain in the store when the log began
    commits: list[Commit]  # in order, each with token 0
    is_whole: bool  # False: the rest is unreadable, being an unfinished write or altered


class PreparedEntries(NamedTuple):
    """Encoded commits, ready to be written."""

    binding: bytes
    head: bytes  # b"" if the file has one already
    entries: bytes
    commits: int  # number of commits that fitted


class Overflow:
    """The overflow log of one store. All methods except `prepare` block and raise OSError."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path = path
        self._sealer = sealer
        self._file: FileIO | None = None
        self._binding = b""
        self._end = 0  # offset behind the last entry
        self._count = 0  # entries
        self.is_empty = True

    def open(self) -> None:
        """Open the file, creating it if needed. Its entries stay."""
        descriptor = open_beside(self._path, os.O_RDWR)
        self._file = FileIO(descriptor, "r+")
        if os.fstat(descriptor).st_size < BYTES:
            os.posix_fallocate(descriptor, 0, BYTES)
            os.fsync(descriptor)
            sync_folder(self._path.parent)

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def reopen(self) -> None:
        """Open the file after a start that could not. Raises OSError if it has entries: only a start can take them."""
        try:
            self.open()
            self.read()
            if not self.is_empty:
                raise OSError(errno.EBUSY, "it holds records of an earlier start: restart the relay")
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self.is_empty = True

    def read(self) -> OverflowContent:
        """Read the entries of an earlier process. The next ones are appended to them."""
        assert self._file is not None
        data = os.pread(self._file.fileno(), BYTES, 0)
        magic, binding, since_seq = _HEAD.unpack_from(data)
        commits: list[Commit] = []
        place, is_whole = _HEAD.size, magic in (_MAGIC, bytes(len(_MAGIC)))
        (length,) = _LENGTH.unpack_from(data, place)
        self.is_empty = magic != _MAGIC
        while magic == _MAGIC and length:
            begin = place + _LENGTH.size
            try:
                commits.append(self._opened(data[begin : begin + length], _context(binding, len(commits))))
            except StoreError:
                is_whole = False
                break
            place = begin + length
            (length,) = _LENGTH.unpack_from(data, place)
        self._binding, self._end, self._count = binding, place, len(commits)
        return OverflowContent(since_seq, commits, is_whole)

    def prepare(self, since_seq: int, commits: Sequence[Commit]) -> PreparedEntries:
        """Encode as many of the commits, from the first, as fit. `since_seq`: as in `OverflowContent`."""
        binding = self._binding if self._count else secrets.token_bytes(8)
        head = b"" if self._count else _HEAD.pack(_MAGIC, binding, since_seq)
        room = BYTES - (self._end or _HEAD.size) - _LENGTH.size
        entries = bytearray()
        count = 0
        for commit in commits:
            entry = self._sealed(commit, _context(binding, self._count + count))
            if len(entries) + _LENGTH.size + len(entry) > room:
                break
            entries += _LENGTH.pack(len(entry)) + entry
            count += 1
        return PreparedEntries(binding, head, bytes(entries), count)

    def write(self, prepared: PreparedEntries) -> None:
        """Write the latest prepared entries durably. After an error they can be prepared again."""
        assert self._file is not None
        begin = self._end or _HEAD.size
        descriptor = self._file.fileno()
        self.is_empty = False  # a write that fails may leave entries, too
        if prepared.head:
            os.pwrite(descriptor, prepared.head, 0)
        os.pwrite(descriptor, prepared.entries + _LENGTH.pack(0), begin)  # an end mark over older bytes
        os.fdatasync(descriptor)
        self._binding = prepared.binding
        self._end = begin + len(prepared.entries)
        self._count += prepared.commits

    def clear(self) -> None:
        """Delete all entries, once they are in the store."""
        assert self._file is not None
        os.pwrite(self._file.fileno(), bytes(BYTES), 0)
        os.fdatasync(self._file.fileno())
        self._end = self._count = 0
        self.is_empty = True

    def _sealed(self, commit: Commit, context: bytes) -> bytes:
        return self._sealer.seal(_encode((encode_record(commit.record), commit.dialogs)), context)

    def _opened(self, entry: bytes, context: bytes) -> Commit:
        try:
            encoded, dialogs = _decode(self._sealer.open_(entry, context))
        except msgspec.DecodeError:
            raise StoreError("an entry of the overflow log cannot be decoded") from None
        return Commit(0, decode_record(encoded), dialogs)


def _context(binding: bytes, number: int) -> bytes:
    return b"overflow %b %d" % (binding, number)
