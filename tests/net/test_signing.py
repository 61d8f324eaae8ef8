"""How the relay signs what it sends over HTTP."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest

from relay.errors import ConfigError
from relay.net.signing import read_secret, signature_header


def test_time_and_body_are_signed() -> None:
    expected = hmac.new(b"secret", b"1800000000.{}", hashlib.sha256).hexdigest()
    assert signature_header("secret", 1_800_000_000, b"{}") == f"t=1800000000,v1={expected}"
    assert signature_header("secret", 1_800_000_001, b"{}") != signature_header("secret", 1_800_000_000, b"{}")
    assert signature_header("other", 1_800_000_000, b"{}") != signature_header("secret", 1_800_000_000, b"{}")


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot read"), (b" \n", "is empty"), (b"\xff", "is no UTF-8 text")]
)
def test_a_file_without_a_secret_is_told_by_its_setting(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigError, match=f"^verify.secret_file: .*{words}"):
        read_secret("verify.secret_file", tmp_path / "secret")
    (tmp_path / "secret").write_text("whsec_1\n")
    assert read_secret("verify.secret_file", tmp_path / "secret") == "whsec_1"
