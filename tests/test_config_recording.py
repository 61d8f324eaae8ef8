"""[recording]: refused values, and the checks before the relay starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relay.config import Config, parse_config
from relay.config import media as module
from relay.config.files import check_files
from relay.errors import ConfigError
from relay.net.sounds import SoundFiles
from relay.service.retention import DAY_MS
from relay.store.recordings import Recordings
from relay.store.sealing.sealer import make_key
from tests.support.spool import Spool

MEDIA = '[media]\nmode = "rtpengine"\nrtpengine = "udp:127.0.0.1:2223"\n'


def config(text: str) -> Config:
    return parse_config(MEDIA + text, "f")


def faults(made: Config) -> str:
    with pytest.raises(ConfigError) as error:
        check_files(made)
    return "\n".join(error.value.problems)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with rtpengine's spool folder."""
    monkeypatch.chdir(tmp_path)
    Spool(tmp_path / "spool")
    return tmp_path


RECORDS = '[recording]\nspool = "spool"\n'


def test_recording_is_off_by_default() -> None:
    made = config("")
    assert made.recordings == Recordings(Path("var/recordings"))
    assert (made.settings.recording, made.settings.recording_needed, made.numbers.recording) == (False, False, False)
    assert made.sounds is None


def test_recording_allows_a_notice_to_both_sides() -> None:
    made = config('[recording]\nspool = "s"\nkept_in = "k"\ncipher = "sm4-gcm"\non_failure = "end"')
    assert made.recordings == Recordings(Path("k"), (Path("s"),), "sm4-gcm")
    assert (made.settings.recording, made.settings.recording_needed, made.numbers.recording) == (True, True, True)
    assert made.sounds == SoundFiles("zh")


def test_each_instance_may_have_its_own_folder() -> None:
    assert config('[recording]\nspool = ["a", "b"]').recordings.spools == (Path("a"), Path("b"))


def test_recording_needs_rtpengine() -> None:
    with pytest.raises(ConfigError, match=r"recording\.spool: rtpengine records; write media\.mode"):
        parse_config(RECORDS, "f")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (RECORDS + "[api]\nenabled = false", "recording.spool: recordings are taken over by the backend process"),
        ('[recording]\ncipher = "des"', "recording.cipher: invalid enum value"),
        ('[recording]\non_failure = "shrug"', "recording.on_failure: invalid enum value"),
        ('[retention]\nrecordings = "soon"', "retention.recordings: not a duration"),
        (
            '[retention]\nrecordings = "183d"',
            'recordings: 183d is shorter than the six months that the law requires; write "184d"',
        ),
        ('[retention]\nrecordings = "185d"', "recordings: 185d is longer than retention.records, 184d: a recording"),
    ],
)
def test_a_wrong_value_is_reported(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        config(text)
    (problem,) = error.value.problems
    assert told in problem


def test_recordings_may_be_deleted_before_the_records() -> None:
    assert config('[retention]\nrecords = "400d"\nrecordings = "200d"').retention.recordings_ms == 200 * DAY_MS


def test_existing_files_are_accepted(here: Path) -> None:
    check_files(config(RECORDS))


def test_a_missing_folder_is_reported(here: Path) -> None:
    assert "recording.spool: elsewhere is not a folder here" in faults(
        config('[recording]\nspool = ["spool", "elsewhere"]')
    )


@pytest.mark.parametrize("name", ["", "pcaps", "metadata"])
def test_an_unreadable_folder_is_reported(here: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _deny(monkeypatch, Path("spool") / name)
    assert f"recording.spool: this user may not read and delete in {Path('spool') / name};" in faults(config(RECORDS))


def test_an_unwritable_folder_is_reported(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _deny(monkeypatch, here)
    assert "recording.kept_in: var/recordings cannot be written" in faults(config(RECORDS))


def _deny(monkeypatch: pytest.MonkeyPatch, denied: Path) -> None:
    """Simulates the missing permission: root has every one."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != denied)


def test_a_missing_key_is_reported(here: Path) -> None:
    (here / "var").mkdir()
    (here / "var/relay.db").touch()
    assert "store.key_file: the key file var/relay.key is missing" in faults(config(RECORDS))
    make_key(here / "var/relay.key")
    check_files(config(RECORDS))


def test_an_unsupported_cipher_is_reported(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_cipher", lambda name: False)
    assert "recording.cipher: this OpenSSL has no aes-256-gcm" in faults(config(RECORDS))


def test_files_are_not_checked_when_recording_is_off(here: Path) -> None:
    check_files(config('[recording]\nkept_in = "/proc/nowhere"'))
