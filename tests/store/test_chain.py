"""The links of the chain of call records and its head."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.store.chain import (
    EMPTY,
    RECORDS,
    Anchor,
    AnchorFile,
    head_row,
    next_link,
    read_anchor,
    read_head,
    write_head,
)
from relay.store.database import connect
from relay.store.record_rows import encode_record
from relay.store.sealing.sealer import Sealer
from tests.store.conftest import Disk
from tests.support.stored import ended_record

OTHER = Sealer(b"o" * 32)


def test_link_has_the_next_number_and_depends_on_all_before_it(disk: Disk) -> None:
    first, other = (next_link(disk.sealer, EMPTY, encode_record(ended_record(call))) for call in ("c1", "c2"))
    assert first.seq == 1
    assert first.hash != other.hash
    after_first, after_other = (
        next_link(disk.sealer, head, encode_record(ended_record("c3"))) for head in (first, other)
    )
    assert after_first.seq == 2
    assert after_first.hash != after_other.hash


def test_head_is_read_back(disk: Disk) -> None:
    head = next_link(disk.sealer, EMPTY, encode_record(ended_record()))
    with closing(connect(disk.path)) as connection:
        assert read_head(connection, disk.sealer, RECORDS) == EMPTY
        write_head(connection, RECORDS, head_row(disk.sealer, RECORDS, head))
        assert read_head(connection, disk.sealer, RECORDS) == head
        later = next_link(disk.sealer, head, encode_record(ended_record("c2")))
        write_head(connection, RECORDS, head_row(disk.sealer, RECORDS, later))
        assert read_head(connection, disk.sealer, RECORDS) == later


def test_head_made_with_another_key_is_refused(disk: Disk) -> None:
    head = next_link(OTHER, EMPTY, encode_record(ended_record()))
    with closing(connect(disk.path)) as connection:
        write_head(connection, RECORDS, head_row(OTHER, RECORDS, head))
        with pytest.raises(StoreError, match="altered or removed"):
            read_head(connection, disk.sealer, RECORDS)


def test_anchor_is_on_disk_before_it_takes_the_place_of_the_last_one(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    file = AnchorFile(disk.path, disk.sealer)
    first = Anchor(1, EMPTY, EMPTY)
    file.write(first)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="cannot be written: Input/output error"):
        file.write(first._replace(revision=2))
    assert file.read() == first


def test_anchor_of_a_store_that_holds_less_is_not_kept(disk: Disk) -> None:
    """A relay that stops on a copy that was put in the store's place must not vouch for it."""
    file = AnchorFile(disk.path, disk.sealer)
    with closing(connect(disk.path)) as connection:
        now = read_anchor(connection, disk.sealer)
        file.keep(connection)
        assert file.read() == now
        later = now._replace(revision=now.revision + 1)
        file.write(later)
        with pytest.raises(StoreError, match="an earlier copy of the store was put in its place"):
            file.keep(connection)
    assert file.read() == later


def _write_often(path: Path) -> None:
    with closing(connect(path)) as connection:
        file = AnchorFile(path, OTHER)
        for anchor in repeat(read_anchor(connection, OTHER), 500):
            file.write(anchor)


@pytest.mark.parametrize(
    "workers",
    [lambda: ProcessPoolExecutor(2, get_context("spawn")), lambda: ThreadPoolExecutor(2)],
    ids=["processes", "threads"],
)
def test_processes_and_threads_write_the_anchor_at_once(disk: Disk, workers: Callable[[], Executor]) -> None:
    with workers() as both:
        list(both.map(_write_often, [disk.path] * 2))
    assert AnchorFile(disk.path, OTHER).read() is not None
