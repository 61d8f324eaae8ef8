"""The spill: a file beside the store for what that does not take now, so that it is durable all the same.

Its room is there before it is needed: a full disk takes nothing from it. Each entry is sealed, and bound to its place
and to what is in the file since it was last empty. It knows nothing of when it is used: that is the journal's.

What is durable here is acknowledged, so calls go on while the store is locked or its disk is full. The store gets each
entry once, and nothing later before the spill is cleared: where a call stands in both, the spill is right. Whoever
starts meanwhile goes on behind the spill, lays it over the calls that the store has as up, and counts its calls of the
last quarter of an hour against the caps; older ones count once the store has them. Events of calls under way and last
callers are not in it. A store on a server has no spill: another node would not know of it.
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from relay.call.actions import Commit
from relay.errors import StoreError
from relay.store.files import sync_folder
from relay.store.permissions import open_beside
from relay.store.record_rows import decode_record, encode_record
from relay.store.sealing import Sealer

BYTES = 16 * 1024 * 1024  # some 10,000 commits
_HEAD: Final = struct.Struct(">8s8sQ")  # _MAGIC, what entries are bound to, the chain's last record when it began
_MAGIC: Final = b"r7spill1"
_LENGTH: Final = struct.Struct(">I")  # before each entry; 0: there is none any more

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[bytes, bytes | None]).decode


class Spilled(NamedTuple):
    """What a spill holds."""

    since_seq: int  # the records of the chain up to this one were on disk when it began
    commits: list[Commit]  # in their order, each with token 0
    is_whole: bool  # False: what follows cannot be read: an entry that was being written, or one that was altered


class Prepared(NamedTuple):
    """Commits as they are to be written."""

    binding: bytes
    head: bytes  # b"" where there is one
    entries: bytes
    commits: int  # how many of those that were given


class Spill:
    """Of one store. All methods but `prepare` block, and raise OSError."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path = path
        self._sealer = sealer
        self._file: FileIO | None = None
        self._binding = b""
        self._end = 0  # of the entries
        self._count = 0  # of the entries
        self.is_empty = True

    def open(self) -> None:
        """Makes the file where there is none; what is in it stays."""
        descriptor = open_beside(self._path, os.O_RDWR)
        self._file = FileIO(descriptor, "r+")
        if os.fstat(descriptor).st_size < BYTES:
            os.posix_fallocate(descriptor, 0, BYTES)
            os.fsync(descriptor)
            sync_folder(self._path.parent)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> Spilled:
        """What an earlier process has left, of all that it called durable. What is written next stands behind it."""
        assert self._file is not None
        data = os.pread(self._file.fileno(), BYTES, 0)
        magic, binding, since_seq = _HEAD.unpack_from(data)
        commits: list[Commit] = []
        place, is_whole = _HEAD.size, True
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
        return Spilled(since_seq, commits, is_whole)

    def prepare(self, since_seq: int, commits: Sequence[Commit]) -> Prepared:
        """The entries of the first of the commits, as many as there is room for. `since_seq`: as of `Spilled`."""
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
        return Prepared(binding, head, bytes(entries), count)

    def write(self, prepared: Prepared) -> None:
        """Makes durable what was prepared last. Where that fails, it can be prepared anew."""
        assert self._file is not None
        begin = self._end or _HEAD.size
        descriptor = self._file.fileno()
        if prepared.head:
            os.pwrite(descriptor, prepared.head, 0)
        os.pwrite(descriptor, prepared.entries + _LENGTH.pack(0), begin)  # an end, whatever stood behind
        os.fdatasync(descriptor)
        self._binding = prepared.binding
        self._end = begin + len(prepared.entries)
        self._count += prepared.commits
        self.is_empty = False

    def clear(self) -> None:
        """Forgets all: the store has it."""
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
            raise StoreError("an entry of the spill cannot be read") from None
        return Commit(0, decode_record(encoded), dialogs)


def _context(binding: bytes, number: int) -> bytes:
    return b"spill %b %d" % (binding, number)
