"""A settable wall clock for the relay, by libfaketime. The monotonic clock is unaffected."""

from __future__ import annotations

from pathlib import Path

LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"


class WallClock:
    """`file` holds the offset of the relay's clock."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, ahead_s: int) -> None:
        """Set the offset from true time in seconds; negative: behind."""
        new = self._file.with_name(self._file.name + ".new")
        new.write_text(f"{ahead_s:+d}\n")
        new.replace(self._file)

    def environment(self) -> dict[str, str]:
        (library,) = Path("/").glob(LIBRARIES[1:])
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
