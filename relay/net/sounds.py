"""Announcement sounds for rtpengine: the shipped ones, replaced by the operator's where given."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from relay.call.announcement import SOUNDS
from relay.errors import ConfigError
from relay.model.call import LANGUAGES, Language

SHIPPED: Final = Path(__file__).parents[1] / "sounds"
MOST_BYTES: Final = 60_000  # a sound must fit into one datagram: 7 s of A-law


class SoundFiles(NamedTuple):
    language: Language  # the default
    own: Path | None = None  # the operator's folder


def read_sounds(files: SoundFiles) -> dict[tuple[str, str], bytes]:
    """All sounds as WAV files by (language, name); language "" is the default one.

    Raises ConfigError with every fault in the operator's files.
    """
    sounds: dict[tuple[str, str], bytes] = {
        (language, name): (SHIPPED / language / f"{name}.wav").read_bytes() for language in LANGUAGES for name in SOUNDS
    }
    if files.own is not None:
        sounds |= _read_own(files.own, files.language)
    return sounds | {("", name): sounds[files.language, name] for name in SOUNDS}


def _read_own(folder: Path, usual: Language) -> dict[tuple[str, str], bytes]:
    """The operator's sounds: FOLDER/*.wav in the default language, FOLDER/LANGUAGE/*.wav in others."""
    sounds: dict[tuple[str, str], bytes] = {}
    problems: list[str] = []
    found = [(usual, path) for path in sorted(folder.glob("*.wav"))]
    found += [(language, path) for language in LANGUAGES for path in sorted(folder.glob(f"{language}/*.wav"))]
    if not found:
        problems.append(f"{folder} has no .wav file; add one, or remove the setting")
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
        faults.append(f"{path} is not a known sound; the names are {', '.join(SOUNDS)}")
    if not (data.startswith(b"RIFF") and data[8:12] == b"WAVE"):
        faults.append(f"{path} is not a WAV file")
    if len(data) > MOST_BYTES:
        faults.append(f"{path} has {len(data)} bytes, above {MOST_BYTES}: encode it as 8 kHz, mono, A-law")
    return faults
