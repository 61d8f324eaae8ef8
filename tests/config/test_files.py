"""Checks of the files that a configuration names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from relay.config import Config, parse_config
from relay.config import files as module
from relay.config.engine import SoundFiles
from relay.config.files import check_files, hep_agent, with_passwords
from relay.errors import ConfigError
from relay.model.capture import HepAgent
from relay.model.settings import Account
from relay.store.sealing.sealer import make_key
from tests.config.support import config
from tests.support.certificates import write_certificate
from tests.support.spool import Spool


def test_the_operator_s_sounds_are_checked(tmp_path: Path) -> None:
    made = parse_config(f'{MEDIA}[announcements]\nbegin = true\nfolder = "{tmp_path}"', "f")
    assert made.sounds == SoundFiles("zh", tmp_path)
    with pytest.raises(ConfigError, match=r"announcements\.folder: .* has no \.wav file"):
        check_files(made)


MEDIA = '[media]\nmode = "rtpengine"\nrtpengine = "udp:127.0.0.1:2223"\n'


RECORDS = MEDIA + '[recording]\nspool = "spool"\n'


def faults(made: Config) -> str:
    """What is wrong, a line each."""
    try:
        check_files(made)
    except ConfigError as error:
        assert all(problem.startswith(f"{made.name}: ") for problem in error.problems)
        return "\n".join(problem.removeprefix(f"{made.name}: ") for problem in error.problems)
    return ""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with rtpengine's spool folder."""
    monkeypatch.chdir(tmp_path)
    Spool(tmp_path / "spool")
    return tmp_path


def test_existing_files_are_accepted(here: Path) -> None:
    assert faults(config(RECORDS)) == ""


def test_a_missing_folder_is_reported(here: Path) -> None:
    assert "recording.spool: elsewhere is not a folder here" in faults(
        config(MEDIA + '[recording]\nspool = ["spool", "elsewhere"]')
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
    assert faults(config('[recording]\nkept_in = "/proc/nowhere"')) == ""


AUTH = '{username = "4001", password_file = "var/p"}'


def test_passwords_are_read_from_their_files(tmp_path: Path) -> None:
    for name in ("trunk", "phone"):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(f"{name}-secret\n")
    text = (
        f'[[peer]]\nname = "trunk"\nuri = "sip:192.0.2.1"\n'
        f'auth = {{username = "4001", password_file = "{tmp_path}/trunk", realm = "r"}}\n'
        f'[[peer]]\nname = "phone"\nlogin = {{username = "1001", password_file = "{tmp_path}/phone"}}\n'
    )
    filled = with_passwords(config(text))
    trunk, phone = filled.settings.peers
    assert trunk.account == Account("4001", "trunk-secret", "r")
    assert phone.login == Account("1001", "phone-secret")
    assert "-secret" not in repr(filled)
    for name in ("trunk", "phone"):
        (tmp_path / name).unlink()
    with pytest.raises(ConfigError) as caught:
        with_passwords(config(text))
    assert [each.partition(": ")[0] for each in caught.value.problems] == [
        "peer[0].auth.password_file",
        "peer[1].login.password_file",
    ]
    with pytest.raises(
        ConfigError,
        match=r"^t: peer\[0\].auth.password_file \(trunk\): .*\nt: peer\[1\].login.password_file \(phone\): ",
    ):
        check_files(config(text))


def test_the_library_of_spans_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = config('[otlp]\nendpoint = "http://127.0.0.1:4318"')
    assert faults(made) == ""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)  # as if it were not there
    for name in [name for name in sys.modules if name.startswith("opentelemetry.exporter.")]:
        monkeypatch.delitem(sys.modules, name)
    assert faults(made) == (
        "otlp.endpoint: needs the extra relay700[otlp]: `scripts/venv.sh .venv otlp` installs it; or leave [otlp] out"
    )


def test_the_files_of_a_collector_are_checked(here: Path) -> None:
    collector = config('[hep]\nserver = "tls:homer.example:9061"\nkey_file = "hep.key"\nca = "ca.pem"\n')
    assert faults(collector) == "hep.ca: cannot read ca.pem: No such file or directory"
    (here / "ca.pem").write_text("no certificate")
    assert faults(collector).startswith("hep.ca: ca.pem holds no PEM certificates")
    write_certificate(here)
    (here / "certificate.pem").rename(here / "ca.pem")
    assert faults(collector) == "hep.key_file: cannot read hep.key: No such file or directory"
    (here / "hep.key").touch(0o600)
    (here / "hep.key").write_text("secret\n")
    assert hep_agent(collector) == HepAgent(700, "", "secret")
    assert faults(collector) == ""
