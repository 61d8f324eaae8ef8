from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from relay.errors import ConfigError
from relay.model.settings import TlsFiles
from relay.net.tls import client_context, names_host, read_secret, server_context
from tests.net.certificates import Authority


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return Authority(tmp_path).issue("127.0.0.10")


def test_tls_below_1_2_is_disabled(files: TlsFiles) -> None:
    assert server_context(files).minimum_version == ssl.TLSVersion.TLSv1_2
    assert client_context(files).minimum_version == ssl.TLSVersion.TLSv1_2


def test_servers_are_verified_unless_disabled(files: TlsFiles) -> None:
    assert client_context(files).verify_mode == ssl.CERT_REQUIRED
    assert client_context(files).check_hostname
    assert client_context(replace(files, verify=False)).verify_mode == ssl.CERT_NONE


def test_all_missing_files_are_reported(files: TlsFiles, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        server_context(replace(files, certificate=tmp_path / "a", key=tmp_path / "b"))
    assert caught.value.problems == [
        f"tls.certificate: cannot read {tmp_path}/a: No such file or directory",
        f"tls.key: cannot read {tmp_path}/b: No such file or directory",
    ]


def test_a_key_of_another_certificate_is_refused(files: TlsFiles, tmp_path: Path) -> None:
    other = Authority(tmp_path).issue("127.0.0.11")
    with pytest.raises(ConfigError, match=r"tls\.certificate: .* not a matching PEM pair"):
        server_context(replace(files, key=other.key))


def test_an_encrypted_key_is_refused_without_a_prompt(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the key is encrypted"):
        server_context(Authority(tmp_path).issue("127.0.0.10", password=b"secret"))


def test_a_key_readable_by_all_users_is_refused(files: TlsFiles) -> None:
    files.key.chmod(0o644)
    for context in (server_context, client_context):
        with pytest.raises(ConfigError, match=r"tls\.key: .* is open to all users \(mode 0644\): chmod o= "):
            context(files)


def test_invalid_authorities_are_refused(files: TlsFiles) -> None:
    with pytest.raises(ConfigError, match=r"tls\.ca: .* holds no PEM certificates"):
        client_context(replace(files, ca=files.key))


def test_invalid_client_authorities_are_refused(files: TlsFiles) -> None:
    assert server_context(files).verify_mode == ssl.CERT_NONE
    with pytest.raises(ConfigError, match=r"tls\.client_ca: .* holds no PEM certificates"):
        server_context(replace(files, client_ca=files.key))


@pytest.mark.parametrize(
    ("names", "is_proven"),
    [
        ([("DNS", "Carrier.example")], True),
        ([("DNS", "*.example")], False),
        ([("URI", "sip:carrier.example")], True),
        ([("URI", "sip:other.example"), ("DNS", "carrier.example")], False),
        ([("URI", "sip:bob@carrier.example"), ("DNS", "carrier.example")], True),
        ([("URI", "sips:carrier.example")], False),
        ([("IP Address", "FD00:0:0:0:0:0:0:22")], True),
        ([("IP Address", "127.0.0.22")], False),
        ([], False),
    ],
)
def test_names_that_prove_a_host(names: list[tuple[str, str]], is_proven: bool) -> None:
    """RFC 5922 7."""
    assert names_host(names, ["carrier.example", "fd00::22"]) == is_proven


# -- Files that hold secrets: contents and permissions


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot read"), (b" \n", "is empty"), (b"\xff", "is not UTF-8 text")]
)
def test_a_file_without_a_secret_is_reported_by_its_setting(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigError, match=f"^verify.secret_file: .*{words}"):
        read_secret("verify.secret_file", tmp_path / "secret")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_secret_is_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_text("whsec_1\n")
    path.chmod(mode)
    assert read_secret("verify.secret_file", path) == "whsec_1"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602])
def test_a_file_open_to_all_users_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_text("whsec_1\n")
    path.chmod(mode)
    with pytest.raises(
        ConfigError, match=rf"verify.secret_file: .* is open to all users \(mode {mode:04o}\): chmod o= /"
    ):
        read_secret("verify.secret_file", path)
