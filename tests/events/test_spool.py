"""Files of rtpengine: which calls are finished, and the contents of their captures."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.events.recordings import ABANDONED_S, FinishedFiles, JoinedCapture, left_in
from tests.support.spool import HEAD, Spool, capture, packet

CALL, OTHER = "019a7b8a800c" + "5" * 20, "019a7b8a800d" + "6" * 20


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def left(spool: Spool) -> list[FinishedFiles]:
    return left_in(spool.folder, time.time())


def read(*paths: Path) -> tuple[bytes, JoinedCapture]:
    reading = JoinedCapture(paths)
    data = b"".join(reading.parts())
    assert (reading.size, reading.digest.digest()) == (len(data), hashlib.sha256(data).digest())
    return data, reading


def test_files_of_an_ended_call_are_found(spool: Spool) -> None:
    path = spool.begin(CALL, capture(0))
    assert left(spool) == []
    spool.end(CALL)
    (found,) = left(spool)
    assert (found.call_id, found.captures) == (CALL, (path,))
    assert {path, *found.texts} == set(spool.files())


def test_files_of_a_killed_rtpengine_are_found_by_age(spool: Spool) -> None:
    spool.begin(CALL, capture(0))
    spool.age(ABANDONED_S - 5)
    assert left(spool) == []
    spool.age(6)
    (found,) = left(spool)
    assert {*found.captures, *found.texts} == set(spool.files())


def test_a_call_is_found_once_all_its_captures_are_finished(spool: Spool) -> None:
    """rtpengine was killed, restarted, and got the call again."""
    first = spool.begin(CALL, capture(0), "aa")
    spool.age(60)
    second = spool.add(CALL, capture(5_000), "bb")
    assert left(spool) == []
    spool.age(ABANDONED_S)
    assert [found.captures for found in left(spool)] == [(first, second)]


def test_a_text_without_its_capture_is_found(spool: Spool) -> None:
    """The capture is deleted, the text not yet."""
    spool.add(CALL, capture(0)).unlink()
    assert [(found.captures, len(found.texts)) for found in left(spool)] == [((), 1)]


def test_other_files_are_ignored(spool: Spool) -> None:
    for name in ("pcaps/phone.pcap", f"pcaps/{CALL}.pcap", "metadata/notes.txt", "other.pcap"):
        (spool.folder / name).write_bytes(capture(0))
    (spool.folder / "more").mkdir()
    spool.age(2 * ABANDONED_S)
    assert left(spool) == []


def test_calls_are_found_separately(spool: Spool) -> None:
    spool.add(OTHER, capture(0))
    spool.add(CALL, capture(0))
    assert [found.call_id for found in left(spool)] == [CALL, OTHER]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        left_in(tmp_path / "none", time.time())


def test_a_capture_is_read_unchanged_and_measured(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(capture(*range(100, 60_100, 20), data=b"x" * 214))
    data, reading = read(path)
    assert data == path.read_bytes()
    assert reading.length_ms == 59_980


def test_big_endian_captures_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    head = b"\xa1\xb2\xc3\xd4" + bytes(20)
    packets = [(second).to_bytes(4) + bytes(4) + (3).to_bytes(4) + (3).to_bytes(4) + b"abc" for second in (9, 11)]
    path.write_bytes(head + b"".join(packets))
    data, reading = read(path)
    assert (data, reading.length_ms) == (path.read_bytes(), 2_000)


def test_captures_of_a_call_are_joined_without_incomplete_packets(tmp_path: Path) -> None:
    first, second = tmp_path / "a.pcap", tmp_path / "b.pcap"
    first.write_bytes(capture(0, 20) + packet(40)[:-1])
    second.write_bytes(capture(9_000, 9_020))
    data, reading = read(first, second)
    assert data == capture(0, 20, 9_000, 9_020)
    assert reading.length_ms == 9_020


@pytest.mark.parametrize("data", [b"", HEAD[:23]])
def test_an_empty_capture_is_empty(tmp_path: Path, data: bytes) -> None:
    path, second = tmp_path / "a.pcap", tmp_path / "b.pcap"
    path.write_bytes(data)
    found, reading = read(path)
    assert (found, reading.length_ms) == (b"", 0)
    second.write_bytes(capture(0))
    assert read(path, second)[0] == capture(0)


def test_an_impossible_packet_length_ends_the_capture(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(capture(0) + packet(20)[:8] + b"\xff" * 8 + bytes(1_000))
    assert read(path)[0] == capture(0)
    path.write_bytes(capture(0) + packet(20, bytes(300_000)) + packet(40))
    assert read(path)[0] == capture(0)


@pytest.mark.parametrize("head", [b"RIFF" + bytes(20), HEAD[:-4] + b"\1\0\0\0"])
def test_a_file_that_is_not_a_matching_capture_is_refused(tmp_path: Path, head: bytes) -> None:
    first, second = tmp_path / "a.pcap", tmp_path / "b.pcap"
    first.write_bytes(capture(0))
    second.write_bytes(head)
    with pytest.raises(StoreError, match=r"b\.pcap is not a capture"):
        read(first, second)
