"""The sounds that rtpengine is given to play: ours, and the operator's in their place. It knows nothing of calls."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from relay.call.announcement import SOUNDS
from relay.errors import ConfigError

SHIPPED: Final = Path(__file__).parents[1] / "sounds"
MOST_BYTES: Final = 60_000  # a sound goes within one datagram: 7 s of A-law


class SoundFiles(NamedTuple):
    language: str  # a folder of ours
    own: Path | None = None  # the operator's folder


def read_sounds(files: SoundFiles) -> dict[str, bytes]:
    """Each sound by its name, as a WAV file. Raises ConfigError with every fault of the operator's."""
    sounds = {name: (SHIPPED / files.language / f"{name}.wav").read_bytes() for name in SOUNDS}
    if files.own is None:
        return sounds
    problems: list[str] = []
    found = sorted(files.own.glob("*.wav"))
    if not found:
        problems.append(f"{files.own} has no file that ends in .wav")
    for path in found:
        try:
            data = path.read_bytes()
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}")
            continue
        problems += _faults(path, data)
        sounds[path.stem] = data
    if problems:
        raise ConfigError([f"announcements.folder: {problem}" for problem in problems])
    return sounds


def _faults(path: Path, data: bytes) -> list[str]:
    faults = []
    if path.stem not in SOUNDS:
        faults.append(f"{path} is no sound's; they are named {', '.join(SOUNDS)}")
    if not (data.startswith(b"RIFF") and data[8:12] == b"WAVE"):
        faults.append(f"{path} is no WAV file")
    if len(data) > MOST_BYTES:
        faults.append(f"{path} has {len(data)} bytes; write it with 8 kHz, mono, A-law, {MOST_BYTES} at the most")
    return faults
