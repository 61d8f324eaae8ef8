"""What limits go by (`relay.call.counts`), counted by several workers together in memory that all of them map.

Each worker writes to its own part alone and reads those of the others, all by aligned words of eight bytes. So there is
no lock, no update is lost, and a writer that dies leaves nothing that cannot be read. What a worker reads may be a
moment old: where all take a call at the same instant, a limit may be passed by one for each worker but the first.

A name is known to the others by 64 bits of its hash. Tables are bounded: a name that has no room left in its bucket is
counted by its own worker alone.
"""

from __future__ import annotations

import mmap
import os
import sys
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from relay.call.counts import Counts, Tags, Tally
from relay.call.rates import Rates

PART_BYTES: Final = 2 << 20  # of one worker; what is never written takes no memory
WIDTH: Final = 16  # slots in a bucket: a key may stand in any of them
# Slots of the tables. With a quarter of them in use, one bucket in a million is full.
STAGES: Final = 16
PEERS: Final = 512
KEYS: Final = 1 << 16
SOURCES: Final = 4096
TAGS: Final = 1 << 15
BUSINESSES: Final = 2048

PER_S: Final = 20  # slices of a second, in which `SharedRates` counts
CELLS: Final = PER_S + 2  # a second, the slice that it began in, and the next: clocks are read one after the other
_COUNT_BITS: Final = 24  # of a cell; above them is which slice it counts
_COUNT: Final = (1 << _COUNT_BITS) - 1


def make_region(workers: int) -> int:
    """A descriptor of memory for so many workers, all of it zero. It is closed by exec: pass it on by name."""
    region = os.memfd_create("relay700-counts")
    os.ftruncate(region, workers * PART_BYTES)
    return region


class SharedCounts(Counts):
    """Of one worker. It begins with nothing, also where an earlier one of that index has died."""

    def __init__(self, region: int, index: int, workers: int) -> None:
        """`region`: of `make_region`; may be closed afterwards. The tokens of worker `index` begin with that digit."""
        super().__init__()
        self.index = index
        self.workers = workers
        memory = _Memory(region, index, workers)
        self.stages = SharedTally(memory.table(STAGES, 1))
        self.calls_in = SharedTally(memory.table(PEERS, 1))
        self.calls_out = SharedTally(memory.table(PEERS, 1))
        self.calls_by_key = SharedTally(memory.table(KEYS, 1))
        self.failures = SharedTally(memory.table(SOURCES, 1))
        self.requests_in = SharedRates(memory.table(PEERS, CELLS))
        self.requests_out = SharedRates(memory.table(PEERS, CELLS))
        self.granted = SharedRates(memory.table(BUSINESSES, CELLS))
        self.calling_tags = SharedTags(memory.table(TAGS, 0))


class _Memory:
    """The region as one worker maps it, cut into tables: the same ones in each part."""

    def __init__(self, region: int, index: int, workers: int) -> None:
        self.bytes = mmap.mmap(region, workers * PART_BYTES)
        self.bytes.madvise(mmap.MADV_REMOVE, index * PART_BYTES, PART_BYTES)  # zero from now on
        self.words = memoryview(self.bytes).cast("Q")
        self.index = index
        self.workers = workers
        self._used = 0  # words of each part

    def table(self, slots: int, values: int) -> Table:
        """The next one, with so many values of a word each for a slot."""
        offset = self._used
        self._used += slots * (1 + values)
        assert self._used <= PART_BYTES // 8
        return Table(self, offset, slots)


class Table:
    """Keys of eight bytes in buckets of `WIDTH` slots, in the parts of all workers. Zero is an empty slot."""

    __slots__ = ("_bytes", "_keys", "_mask", "index", "mates", "values", "words")

    def __init__(self, memory: _Memory, offset: int, slots: int) -> None:
        self.words = memory.words
        self.index = memory.index
        self.mates = [worker for worker in range(memory.workers) if worker != memory.index]
        self._bytes = memory.bytes
        self._mask = slots // WIDTH - 1
        starts = [worker * (PART_BYTES // 8) + offset for worker in range(memory.workers)]
        self._keys = starts  # by worker: the word where its keys begin
        self.values = [start + slots for start in starts]  # and where its values do, in the order of the slots

    def find(self, worker: int, key: bytes) -> int:
        """The slot where the worker has the key, or -1."""
        bucket = WIDTH * (int.from_bytes(key, "big") & self._mask)
        start = 8 * (self._keys[worker] + bucket)
        at = self._bytes.find(key, start, start + 8 * WIDTH)
        return -1 if at < 0 else bucket + (at - start) // 8

    def bucket(self, key: bytes) -> range:
        """The slots that the key may have."""
        first = WIDTH * (int.from_bytes(key, "big") & self._mask)
        return range(first, first + WIDTH)

    def free(self, key: bytes) -> int:
        """A slot of ours that is empty and that the key may have, or -1."""
        for slot in self.bucket(key):
            if not self.words[self._keys[self.index] + slot]:
                return slot
        return -1

    def put(self, slot: int, key: bytes) -> None:
        """Shows the key to the others; its values are to be there already."""
        self.words[self._keys[self.index] + slot] = int.from_bytes(key, sys.byteorder)

    def remove(self, slot: int) -> None:
        self.words[self._keys[self.index] + slot] = 0


class SharedTally(Tally):
    """A value for each slot: how many its worker has."""

    __slots__ = ("_slots", "_table")

    def __init__(self, table: Table) -> None:
        super().__init__()
        self._table = table
        self._slots: dict[str, int] = {}  # of our names

    def begin(self, name: str) -> None:
        super().begin(name)
        self._show(name)

    def end(self, name: str) -> None:
        super().end(name)
        if name in self._own:
            self._show(name)
        elif name in self._slots:
            self._table.remove(self._slots.pop(name))

    def count(self, name: str) -> int:
        table, key = self._table, _key(name)
        total = self.own(name)
        for mate in table.mates:
            slot = table.find(mate, key)
            if slot >= 0:
                total += table.words[table.values[mate] + slot]
        return total

    def clear(self) -> None:
        super().clear()
        for slot in self._slots.values():
            self._table.remove(slot)
        self._slots.clear()

    def _show(self, name: str) -> None:
        table, slot = self._table, self._slots.get(name, -1)
        is_new = slot < 0
        if is_new:
            slot = table.free(_key(name))
            if slot < 0:
                return
            self._slots[name] = slot
        table.words[table.values[table.index] + slot] = self._own[name]
        if is_new:
            table.put(slot, _key(name))


class SharedTags(Tags):
    """Tokens: each is its own key, and its first digit is its worker. What else is no tag of ours."""

    __slots__ = ("_slots", "_table")

    def __init__(self, table: Table) -> None:
        super().__init__()
        self._table = table
        self._slots: dict[str, int] = {}

    def add(self, tag: str) -> None:
        if tag in self._own:
            return
        super().add(tag)
        key = _key_of_token(tag)
        slot = self._table.free(key)
        if slot >= 0:
            self._slots[tag] = slot
            self._table.put(slot, key)

    def discard(self, tag: str) -> None:
        super().discard(tag)
        slot = self._slots.pop(tag, -1)
        if slot >= 0:
            self._table.remove(slot)

    def knows(self, tag: str | None) -> bool:
        if tag in self._own:
            return True
        key = _key_of_token(tag or "")
        return bool(key) and key[0] >> 4 in self._table.mates and self._table.find(key[0] >> 4, key) >= 0


class SharedRates(Rates):
    """`CELLS` values for each slot: how many its worker has granted in a slice of a second, and which slice that is.

    What was granted counts for a second, and for up to a slice longer.
    """

    def __init__(self, table: Table) -> None:
        super().__init__()
        self._table = table
        self._slots: dict[str, int] = {}  # of our names
        self._names: dict[int, str] = {}  # by slot

    def admit(self, name: str, most: int | None, at_s: float) -> bool:
        if most is None:
            return True
        table, at = self._table, int(at_s * PER_S)
        slot = self._slots.get(name, -1)
        if slot < 0:
            slot = self._take(name, at)
            if slot < 0:
                return super().admit(name, most, at_s)
        granted, key = self._granted_by(table.index, slot, at), _key(name)
        for mate in table.mates:
            found = table.find(mate, key)
            if found >= 0:
                granted += self._granted_by(mate, found, at)
        if granted >= most:
            return False
        self._note(slot, at)
        return True

    def _granted_by(self, worker: int, slot: int, at: int) -> int:
        start = self._table.values[worker] + slot * CELLS
        cells = self._table.words[start : start + CELLS].tolist()
        return sum([cell & _COUNT for cell in cells if at - PER_S <= cell >> _COUNT_BITS <= at + 1])

    def _note(self, slot: int, at: int) -> None:
        cell = self._table.values[self._table.index] + slot * CELLS + at % CELLS
        word = self._table.words[cell]
        before = word & _COUNT if word >> _COUNT_BITS == at else 0
        self._table.words[cell] = at << _COUNT_BITS | before + 1

    def _take(self, name: str, at: int) -> int:
        """A slot for a name that has none: an empty one, or that of a name that nothing counts for any more; or -1."""
        key = _key(name)
        for slot in self._table.bucket(key):
            owner = self._names.get(slot)
            if owner is None or not self._granted_by(self._table.index, slot, at):
                if owner is not None:
                    del self._slots[owner]
                self._slots[name], self._names[slot] = slot, name
                self._table.put(slot, key)
                return slot
        return -1


@lru_cache(maxsize=8192)
def _key(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=8).digest()


def _key_of_token(token: str) -> bytes:
    """Its 64 bits; b"" where it is no token."""
    try:
        return bytes.fromhex(token) if len(token) == 16 else b""
    except ValueError:
        return b""
