"""The sounds that rtpengine is given to play: ours, and the operator's in their place. It knows nothing of calls."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from relay.call.announcement import SOUNDS
from relay.call.routing import LANGUAGES, Language
from relay.errors import ConfigError

SHIPPED: Final = Path(__file__).parents[1] / "sounds"
MOST_BYTES: Final = 60_000  # a sound goes within one datagram: 7 s of A-law


class SoundFiles(NamedTuple):
    language: Language  # where nobody says otherwise
    own: Path | None = None  # the operator's folder


def read_sounds(files: SoundFiles) -> dict[tuple[str, str], bytes]:
    """Each sound as a WAV file, by its language ("" for that of `files`) and its name.

    Raises ConfigError with every fault of the operator's.
    """
    sounds: dict[tuple[str, str], bytes] = {
        (language, name): (SHIPPED / language / f"{name}.wav").read_bytes() for language in LANGUAGES for name in SOUNDS
    }
    if files.own is not None:
        sounds |= _read_own(files.own, files.language)
    return sounds | {("", name): sounds[files.language, name] for name in SOUNDS}


def _read_own(folder: Path, usual: Language) -> dict[tuple[str, str], bytes]:
    """Those in the folder itself are of the usual language, others in one that is named like theirs."""
    sounds: dict[tuple[str, str], bytes] = {}
    problems: list[str] = []
    found = [(usual, path) for path in sorted(folder.glob("*.wav"))]
    found += [(language, path) for language in LANGUAGES for path in sorted(folder.glob(f"{language}/*.wav"))]
    if not found:
        problems.append(f"{folder} has no file that ends in .wav")
    for language, path in found:
        try:
            data = path.read_bytes()
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}")
            continue
        problems += _faults(path, data)
        sounds[language, path.stem] = data
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
