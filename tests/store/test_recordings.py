"""The table of recordings."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.errors import StoreError
from relay.store.database import connect_reader
from relay.store.recordings import (
    CHUNK,
    NEWEST,
    CipherName,
    Recording,
    RecordingQuery,
    RecordingWalk,
    add_recording,
    file_of,
    find_recording,
    has_cipher,
    kept_recordings,
    list_recordings,
    open_file,
    purge_recordings,
    seal_file,
)
from relay.store.records import LAST_MS
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.store.conftest import Disk


@pytest.fixture
def reader(disk: Disk) -> Iterator[sqlite3.Connection]:
    """A store with five recordings, the last two taken over at the same time."""
    with closing(Writer(disk.path, disk.sealer)) as writer:
        for n, at in enumerate((1, 2, 3, 4, 4)):
            made = Recording(f"c{n}", "acme" if n % 2 else "", at, 10, 20, "ab", 9 if n == 2 else None)
            writer.run(RELAY, lambda unit, made=made: add_recording(unit, made))  # type: ignore[misc]
    with closing(connect_reader(disk.path)) as connection:
        yield connection


def ids(found: list[Recording]) -> list[str]:
    return [recording.call_id for recording in found]


def test_recording_is_found_by_its_call(reader: sqlite3.Connection, disk: Disk) -> None:
    assert find_recording(reader, disk.sealer, "c1") == Recording("c1", "acme", 2, 10, 20, "ab")
    assert find_recording(reader, disk.sealer, "c9") is None


def test_second_recording_of_a_call_is_an_error(reader: sqlite3.Connection, disk: Disk) -> None:
    with closing(Writer(disk.path, disk.sealer)) as writer, pytest.raises(Exception, match="UNIQUE"):
        writer.run(RELAY, lambda unit: add_recording(unit, Recording("c1", "", 2, 1, 1, "")))


def test_pages_have_all_recordings_newest_first(reader: sqlite3.Connection) -> None:
    seen: list[str] = []
    after = NEWEST
    while found := list_recordings(reader, RecordingQuery(), after, 2):
        seen += ids(found)
        after = (found[-1].taken_at, found[-1].call_id)
    assert seen == ["c4", "c3", "c2", "c1", "c0"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (RecordingQuery("acme"), ["c3", "c1"]),
        (RecordingQuery(None, 2, 4), ["c2", "c1"]),
        (RecordingQuery("acme", 4, LAST_MS), ["c3"]),
        (RecordingQuery("nobody"), []),
    ],
)
def test_list_filters_by_business_and_time(reader: sqlite3.Connection, query: RecordingQuery, found: list[str]) -> None:
    assert ids(list_recordings(reader, query, NEWEST, 10)) == found


def test_only_recordings_whose_file_is_here_are_marked_as_deleted(
    reader: sqlite3.Connection, disk: Disk, tmp_path: Path
) -> None:
    """A walk passes over those of another machine, and comes to its end."""
    seal_file(file_of(tmp_path, "c3"), disk.sealer, "aes-256-gcm", "c3", [b""])
    with closing(Writer(disk.path, disk.sealer)) as writer:
        walk, after = [], (0, "")
        for _ in range(3):
            step = partial(purge_recordings, before_ms=5, kept_in=tmp_path, after=after, most=2)
            walk.append(writer.run(RELAY, step))
            after = walk[-1].after
    assert walk == [
        RecordingWalk((2, "c1"), 2, []),
        RecordingWalk((4, "c4"), 2, ["c3"]),
        RecordingWalk((4, "c4"), 0, []),
    ]
    assert file_of(tmp_path, "c3").exists()  # `delete_file` follows, once the mark is committed
    assert [each.call_id for each in kept_recordings(reader)] == ["c0", "c1", "c4"]


def test_purged_recordings_are_not_among_the_kept(reader: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.store.recordings._PAGE", 2)
    assert ids(list(kept_recordings(reader))) == ["c0", "c1", "c3", "c4"]


# -- Recordings at rest: a sealed file opens chunk by chunk, and no other file does


SEALER = Sealer(b"k" * 32)
CALL = "019a7b8a800c" + "5" * 20
BOTH = pytest.mark.parametrize("cipher", ["aes-256-gcm", "sm4-gcm"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return file_of(tmp_path / "recordings", CALL)


def sealed(path: Path, *parts: bytes, cipher: CipherName = "aes-256-gcm") -> bytes:
    seal_file(path, SEALER, cipher, CALL, parts)
    return path.read_bytes()


def opened(path: Path, call_id: str = CALL, sealer: Sealer = SEALER) -> bytes:
    return b"".join(open_file(path, sealer, call_id))


@BOTH
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7])
def test_sealed_recording_opens(path: Path, cipher: CipherName, size: int) -> None:
    data = os.urandom(size)
    parts = [data[start : start + 70_001] for start in range(0, size, 70_001)]
    sealed(path, *parts, cipher=cipher)
    assert opened(path) == data


def test_recording_is_read_and_written_chunk_by_chunk(path: Path) -> None:
    def parts() -> Iterator[bytes]:
        for n in range(5):
            yield bytes([n]) * CHUNK

    seal_file(path, SEALER, "aes-256-gcm", CALL, parts())
    assert [(part[0], len(part)) for part in open_file(path, SEALER, CALL)] == [(n, CHUNK) for n in range(5)]


@BOTH
def test_file_is_private_and_not_in_plain(path: Path, cipher: CipherName) -> None:
    written = sealed(path, b"192.0.2.31 " * 100, cipher=cipher)
    assert b"192.0.2.31" not in written
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_same_recording_is_sealed_differently_each_time(path: Path) -> None:
    assert sealed(path, b"x" * 100)[-50:] != sealed(path, b"x" * 100)[-50:]


@BOTH
def test_change_of_any_byte_is_an_error(path: Path, cipher: CipherName) -> None:
    written = sealed(path, b"sound", cipher=cipher)
    for place in range(len(written)):
        altered = bytearray(written)
        altered[place] ^= 1
        path.write_bytes(altered)
        with pytest.raises(StoreError, match="altered"):
            opened(path)


def test_removed_moved_or_added_chunk_is_an_error(path: Path) -> None:
    written = sealed(path, bytes(2 * CHUNK + 5))
    head = len(written) - 5 - 2 * CHUNK - 3 * (4 + 16)
    size = 4 + CHUNK + 16
    first, second, last = (
        written[head : head + size],
        written[head + size : head + 2 * size],
        written[head + 2 * size :],
    )
    assert opened(path) == bytes(2 * CHUNK + 5)
    for chunks in (
        [], [first], [first, second], [second, last], [first, last], [second, first, last], [first, second, last, last],
        [first, second, last[:-1]], [first, second, last, b"\0"],
    ):  # fmt: skip
        path.write_bytes(b"".join([written[:head], *chunks]))
        with pytest.raises(StoreError, match="altered"):
            opened(path)


def test_forged_length_is_not_read(path: Path) -> None:
    written = bytearray(sealed(path, b"sound"))
    head = len(written) - 5 - 16 - 4
    written[head : head + 4] = b"\xff" * 4
    path.write_bytes(written)
    with pytest.raises(StoreError, match="altered"):
        opened(path)


def test_recording_opens_only_for_its_call_and_key(path: Path) -> None:
    sealed(path, b"sound")
    with pytest.raises(StoreError, match="altered, or made with another key"):
        opened(path, CALL.replace("5", "6"))
    with pytest.raises(StoreError, match="altered, or made with another key"):
        opened(path, sealer=Sealer(b"o" * 32))


@pytest.mark.parametrize("data", [b"", b"relay700", bytes(500)])
def test_file_that_is_not_a_recording_does_not_open(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="altered"):
        opened(path)


def test_error_names_the_call_of_a_missing_file(path: Path) -> None:
    with pytest.raises(StoreError, match=f"{CALL} cannot be read: .*{path.name}: No such file"):
        opened(path)


class Full(Exception):
    pass


def test_failed_write_keeps_the_old_file_and_leaves_no_partial_one(path: Path) -> None:
    sealed(path, b"first")

    def parts() -> Iterator[bytes]:
        yield bytes(2 * CHUNK)
        raise Full

    with pytest.raises(Full):
        seal_file(path, SEALER, "aes-256-gcm", CALL, parts())
    assert list(path.parent.iterdir()) == [path]
    assert opened(path) == b"first"


def test_partial_file_of_a_killed_process_is_overwritten(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.with_suffix(".part").write_bytes(bytes(5_000))
    sealed(path, b"sound")
    assert list(path.parent.iterdir()) == [path]
    assert opened(path) == b"sound"


def test_both_ciphers_are_available() -> None:
    assert has_cipher("aes-256-gcm")
    assert has_cipher("sm4-gcm")


def test_folder_holds_recordings_of_some_hours(tmp_path: Path) -> None:
    assert file_of(tmp_path, CALL) == tmp_path / "019a7b" / f"{CALL}.sealed"


def test_recording_of_version_1_opens_with_the_first_key(path: Path) -> None:
    head, salt = b"relay700 recording 1\n" + b"\x01", b"s" * 16
    aead = AESGCM(SEALER.file_key(salt, 1))
    sealed_ = aead.encrypt(bytes(12), b"sound", b"%b%b 0 1" % (head + salt, CALL.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + salt + len(sealed_).to_bytes(4) + sealed_)
    assert opened(path) == b"sound"
