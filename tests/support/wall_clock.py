"""A wall clock for the relay that a test sets, by libfaketime. The monotonic clock goes on as it does."""

from __future__ import annotations

from pathlib import Path

LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"


class WallClock:
    """`file` is where the relay reads how far its clock is off."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, ahead_s: int) -> None:
        """So far ahead of the true time it is from now on; negative: behind."""
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
