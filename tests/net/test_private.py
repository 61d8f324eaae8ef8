"""Files that hold secrets: contents and permissions."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.errors import ConfigError
from relay.net.tls import read_secret


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
