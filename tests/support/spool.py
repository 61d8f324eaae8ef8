"""Recordings as rtpengine writes them, made by a test."""

from __future__ import annotations

import os
import struct
from pathlib import Path

HEAD = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101)
SUFFIX = "d8be45029beefb47"


def packet(at_ms: int, data: bytes = b"sound") -> bytes:
    """A packet record of a capture file, `at_ms` after an hour."""
    head = struct.pack("<IIII", 3_600 + at_ms // 1000, at_ms % 1000 * 1000, len(data), len(data))
    return head + data


def capture(*at_ms: int, data: bytes = b"sound") -> bytes:
    return HEAD + b"".join(packet(each, data) for each in at_ms)


def packets_of(data: bytes) -> list[bytes]:
    """The packets of a capture file, from the IP header on."""
    assert data[:24] == HEAD
    found, place = [], 24
    while place < len(data):
        (size,) = struct.unpack_from("<I", data, place + 8)
        found.append(data[place + 16 : place + 16 + size])
        place += 16 + size
    return found


class Spool:
    """A recording-dir."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("pcaps", "metadata", "tmp"):
            (folder / name).mkdir(parents=True)

    def begin(self, call_id: str, data: bytes, suffix: str = SUFFIX) -> Path:
        """A recording in progress."""
        path = self.folder / "pcaps" / f"{call_id}-{suffix}.pcap"
        path.write_bytes(data)
        (self.folder / "tmp" / f"rtpengine-meta-{call_id}-{suffix}.tmp").write_text(f"{path}\n")
        return path

    def end(self, call_id: str, suffix: str = SUFFIX) -> None:
        name = f"rtpengine-meta-{call_id}-{suffix}"
        (self.folder / "tmp" / f"{name}.tmp").rename(self.folder / "metadata" / f"{name}.txt")

    def add(self, call_id: str, data: bytes, suffix: str = SUFFIX) -> Path:
        """A finished recording."""
        path = self.begin(call_id, data, suffix)
        self.end(call_id, suffix)
        return path

    def age(self, seconds: float) -> None:
        """Make all files look unchanged for that much longer."""
        for path in self.files():
            changed_s = path.stat().st_mtime - seconds
            os.utime(path, (changed_s, changed_s))

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())
