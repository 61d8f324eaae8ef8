"""The shipped sounds, and an operator's own."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from relay.call.announcement import OF_REFUSAL, SOUNDS
from relay.errors import ConfigError
from relay.model.call import LANGUAGES, Language, Refusal
from relay.net.sounds import MOST_BYTES, SHIPPED, SoundFiles, read_sounds
from relay.policy import rules
from tests.support.sounds import a_law_wav

TEXTS = tomllib.loads((SHIPPED / "texts.toml").read_text())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sound_has_a_text_and_a_file(language: Language) -> None:
    assert set(TEXTS[language]) == set(SOUNDS)
    assert {path.stem for path in (SHIPPED / language).iterdir()} == set(SOUNDS)
    for name, data in read_sounds(SoundFiles(language)).items():
        assert len(data) < MOST_BYTES, name
        head = data[: data.index(b"data")]
        # Format 6 is A-law: one channel, 8000 samples a second of one byte each.
        assert head[20:36] == bytes.fromhex("0600 0100 401f0000 401f0000 0100 0800"), name
        assert len(set(data)) > 50, f"{name} is silent"


def test_sounds_differ_by_language() -> None:
    sounds = read_sounds(SoundFiles("en"))
    assert sounds["zh", "busy"] != sounds["en", "busy"] == sounds["", "busy"]


def test_announced_outcomes_exist() -> None:
    known = {value.outcome for value in vars(rules).values() if isinstance(value, Refusal)}
    of_callees = {"busy", "rejected", "no_answer", "unreachable", "number_unknown"}
    assert set(OF_REFUSAL) <= known | of_callees


def test_an_operator_s_file_replaces_the_shipped_one(tmp_path: Path) -> None:
    own, in_chinese = a_law_wav(700, 0.5), a_law_wav(800, 0.5)
    (tmp_path / "zh").mkdir()
    (tmp_path / "busy.wav").write_bytes(own)
    (tmp_path / "zh/busy.wav").write_bytes(in_chinese)
    sounds = read_sounds(SoundFiles("en", tmp_path))
    assert (sounds["", "busy"], sounds["en", "busy"], sounds["zh", "busy"]) == (own, own, in_chinese)
    assert sounds["", "unknown"] == read_sounds(SoundFiles("en"))["", "unknown"]


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "hello.wav").write_bytes(a_law_wav(700, 0.5))
    (tmp_path / "busy.wav").write_bytes(b"MP3")
    (tmp_path / "ending.wav").write_bytes(a_law_wav(700, 8))
    (tmp_path / "begin.wav").mkdir()
    with pytest.raises(ConfigError) as told:
        read_sounds(SoundFiles("en", tmp_path))
    begin, busy, ending, hello = told.value.problems
    assert begin == f"announcements.folder: {tmp_path}/begin.wav cannot be read: Is a directory"
    assert busy == f"announcements.folder: {tmp_path}/busy.wav is not a WAV file"
    assert ending.endswith("bytes, above 60000: encode it as 8 kHz, mono, A-law")
    assert "hello.wav is not a known sound; the names are begin, ending, recorded, busy," in hello


def test_a_folder_without_sounds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no \.wav file"):
        read_sounds(SoundFiles("en", tmp_path))
