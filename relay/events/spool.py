"""Files of recorded calls in rtpengine's recording-dir, with the recording-method "pcap".

During a call there is a capture in `pcaps` and a text about it in `tmp`. At its end rtpengine closes the capture and
moves the text to `metadata`. A killed rtpengine does not: its files are recognised by their age. All files are in
clear, with voices and addresses of both sides.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final, NamedTuple

from relay.errors import StoreError

# Seconds without a change; more than the silence after which rtpengine itself ends a call ([rtpengine] timeout).
ABANDONED_S: Final = 300.0

FOLDERS: Final = ("pcaps", "metadata", "tmp")  # in rtpengine's recording-dir
_PART: Final = 1 << 16
_FILE_HEAD: Final = 24  # bytes
_PACKET_HEAD: Final = 16
_LONGEST_PACKET: Final = 1 << 18  # bytes; a longer one means a damaged file
_NUMBERS: Final = {b"\xd4\xc3\xb2\xa1": Struct("<III"), b"\xa1\xb2\xc3\xd4": Struct(">III")}

_is_ours = re.compile(r"(?:rtpengine-meta-)?(([0-9a-f]{32})-[0-9a-f]+)\.(pcap|txt|tmp)").fullmatch


class Left(NamedTuple):
    """The finished files of one call."""

    call_id: str
    captures: tuple[Path, ...]  # oldest first: several if rtpengine was restarted during the call
    texts: tuple[Path, ...]
    age_s: float  # since the last change of any file


class _File(NamedTuple):
    path: Path
    stem: str
    suffix: str
    changed_s: float


def left_in(spool: Path, now_s: float) -> list[Left]:
    """Return the files of all calls with ids in our format. `now_s`: Unix seconds. Raises OSError."""
    by_call: dict[str, list[_File]] = {}
    for call_id, file in _files(spool):
        by_call.setdefault(call_id, []).append(file)
    found = (_left(call_id, files, now_s) for call_id, files in sorted(by_call.items()))
    return [left for left in found if left is not None]


def _files(spool: Path) -> Iterator[tuple[str, _File]]:
    for path in spool.iterdir():  # raises OSError if the folder is missing
        if path.name not in FOLDERS:
            continue
        for each in path.iterdir():
            if name := _is_ours(each.name):
                try:
                    changed_s = each.stat().st_mtime
                except FileNotFoundError:  # rtpengine has just moved it
                    continue
                yield name[2], _File(each, name[1], name[3], changed_s)


def _left(call_id: str, files: list[_File], now_s: float) -> Left | None:
    files.sort(key=lambda file: file.changed_s)
    closed = {file.stem for file in files if file.suffix == "txt"}
    age_s = now_s - files[-1].changed_s
    if age_s < ABANDONED_S and any(file.stem not in closed for file in files):
        return None
    captures = tuple(file.path for file in files if file.suffix == "pcap")
    return Left(call_id, captures, tuple(file.path for file in files if file.suffix != "pcap"), age_s)


class Reading:
    """The captures of a call, read once as one capture. Length, size and digest are known after all `parts`."""

    def __init__(self, captures: Sequence[Path]) -> None:
        self._captures = captures
        self._head = b""
        self._first_us = self._last_us = 0
        self.size = 0  # bytes
        self.digest = hashlib.sha256()

    @property
    def length_ms(self) -> int:
        """Time from the first packet to the last."""
        return (self._last_us - self._first_us) // 1000

    def parts(self) -> Iterator[bytes]:
        """Yield a capture in libpcap's format, without an incomplete last packet of a killed rtpengine.

        Raises OSError, and StoreError for a file that is not a capture.
        """
        for path in self._captures:
            with path.open("rb") as file:
                part = bytearray(self._begin(file, path))
                for packet in self._packets(file):
                    part += packet
                    if len(part) >= _PART:
                        yield self._counted(bytes(part))
                        part.clear()
            yield self._counted(bytes(part))

    def _begin(self, file: BinaryIO, path: Path) -> bytes:
        """The file header of the first capture; b"" for later ones, and for an empty file."""
        head = file.read(_FILE_HEAD)
        if len(head) < _FILE_HEAD:
            return b""
        if head[:4] not in _NUMBERS or self._head not in (b"", head):
            raise StoreError(f"{path} is not a capture, or in another format than the call's first")
        begins, self._head = not self._head, head
        return head if begins else b""

    def _packets(self, file: BinaryIO) -> Iterator[bytes]:
        if not self._head:
            return
        numbers = _NUMBERS[self._head[:4]]
        while len(head := file.read(_PACKET_HEAD)) == _PACKET_HEAD:
            seconds, micros, size = numbers.unpack_from(head)
            if size > _LONGEST_PACKET or len(data := file.read(size)) < size:
                return
            self._last_us = seconds * 1_000_000 + micros
            self._first_us = self._first_us or self._last_us
            yield head + data

    def _counted(self, part: bytes) -> bytes:
        self.size += len(part)
        self.digest.update(part)
        return part
