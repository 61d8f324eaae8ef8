"""The key for recordings in a batch, and their segments."""

from __future__ import annotations

import pytest

from relay.errors import StoreError
from relay.reports import signed
from relay.reports.signed import load_batch_key
from tests.reports.conftest import BEGIN_MS, FIRST, SECOND, SOUND, Office


def test_the_key_is_made_once_with_mode_0600(office: Office) -> None:
    first = load_batch_key(office.key_file)
    assert (load_batch_key(office.key_file), len(first.key)) == (first, 16)
    assert first.key.hex() not in first.id
    office.key_file.chmod(0o644)
    with pytest.raises(StoreError, match="is open to other users"):
        load_batch_key(office.key_file)
    office.key_file.chmod(0o600)
    office.key_file.write_text("0" * 31)
    with pytest.raises(StoreError, match="is damaged"):
        load_batch_key(office.key_file)


def test_openssl_without_sm4_is_reported(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed, "has_cipher", lambda name: False)
    with pytest.raises(StoreError, match="this OpenSSL has no SM4"):
        load_batch_key(office.key_file)
    assert not office.key_file.exists()


def test_each_segment_has_its_own_iv(office: Office) -> None:
    office.add(FIRST, BEGIN_MS, SOUND)
    office.add(SECOND, BEGIN_MS, SOUND)
    office.make()
    ivs = [segment["iv"] for recorded in office.lines("recordings.jsonl") for segment in recorded["segments"]]
    assert len(set(ivs)) == len(ivs) == 6
