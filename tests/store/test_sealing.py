"""Sealing, keyed hashes and the key file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from relay.errors import StoreError
from relay.store.sealing import Sealer, load_key, make_key

SEALER = Sealer(b"k" * 32)
OTHER = Sealer(b"o" * 32)


def test_what_is_sealed_opens_again_and_does_not_show() -> None:
    blob = SEALER.seal(b"8613800000001", b"route 1")
    assert SEALER.open_(blob, b"route 1") == b"8613800000001"
    assert b"13800000001" not in blob


def test_equal_texts_are_sealed_differently() -> None:
    assert SEALER.seal(b"8613800000001", b"") != SEALER.seal(b"8613800000001", b"")


@pytest.mark.parametrize("place", [0, 1, 12, 13, 24, 25, -1])
def test_a_blob_altered_at_any_place_does_not_open(place: int) -> None:
    blob = bytearray(SEALER.seal(b"8613800000001", b"here"))
    blob[place] ^= 1
    with pytest.raises(StoreError):
        SEALER.open_(bytes(blob), b"here")


@pytest.mark.parametrize("blob", [b"", b"\x01", b"\x01" + b"x" * 20])
def test_a_blob_cut_short_does_not_open(blob: bytes) -> None:
    with pytest.raises(StoreError):
        SEALER.open_(blob, b"here")


def test_a_blob_opens_only_in_its_place_and_with_its_key() -> None:
    blob = SEALER.seal(b"8613800000001", b"here")
    with pytest.raises(StoreError):
        SEALER.open_(blob, b"there")
    with pytest.raises(StoreError):
        OTHER.open_(blob, b"here")


def test_look_up_hashes_find_equal_numbers_under_one_key_alone() -> None:
    found = SEALER.lookup_hash("8613800000001")
    assert found == SEALER.lookup_hash("8613800000001")
    assert found != SEALER.lookup_hash("8613800000002")
    assert found != OTHER.lookup_hash("8613800000001")
    assert len(found) >= 16


def test_a_rows_mac_depends_on_the_row_and_the_key_and_is_no_look_up_hash() -> None:
    mac = SEALER.row_mac(b"row")
    assert len(mac) == 16
    assert mac == SEALER.row_mac(b"row")
    assert mac not in (SEALER.row_mac(b"roW"), OTHER.row_mac(b"row"), SEALER.lookup_hash("row")[1:])


def test_a_chain_hash_depends_on_predecessor_record_and_key() -> None:
    link = SEALER.chain_hash(b"p", b"record")
    assert link != SEALER.chain_hash(b"q", b"record")
    assert link != SEALER.chain_hash(b"p", b"recorD")
    assert link != OTHER.chain_hash(b"p", b"record")


def test_a_new_key_file_is_private_and_gives_one_key(tmp_path: Path) -> None:
    path = tmp_path / "new" / "relay.key"
    make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key(path).lookup_hash("1") == load_key(path).lookup_hash("1")
    assert list(path.parent.iterdir()) == [path]


def test_making_a_key_again_keeps_the_first(tmp_path: Path) -> None:
    path = tmp_path / "relay.key"
    make_key(path)
    first = path.read_bytes()
    make_key(path)
    assert path.read_bytes() == first


def test_two_key_files_differ(tmp_path: Path) -> None:
    make_key(tmp_path / "1")
    make_key(tmp_path / "2")
    assert load_key(tmp_path / "1").lookup_hash("1") != load_key(tmp_path / "2").lookup_hash("1")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_key_file_open_to_others_is_refused_with_the_fix(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "relay.key"
    make_key(path)
    path.chmod(mode)
    with pytest.raises(StoreError, match=f"chmod 600 {path}"):
        load_key(path)


@pytest.mark.parametrize("content", [b"", b"relay700-key 1 abc", b"\xff\xfe", b"relay700-key 2 " + b"a" * 64])
def test_a_damaged_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "relay.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(StoreError, match=r"damaged|cannot be read"):
        load_key(path)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"relay\.key is missing"):
        load_key(tmp_path / "relay.key")


def test_a_key_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        make_key(tmp_path / "file" / "relay.key")
    assert os.listdir(tmp_path) == ["file"]


def test_no_nonce_comes_twice_under_one_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.store.sealing.BLOBS_PER_SALT", 3)
    sealer = Sealer(bytes(32))
    blobs = [sealer.seal(b"8613800000001", b"") for _ in range(10)]
    assert len({blob[1:25] for blob in blobs}) == 10
    assert len({blob[1:13] for blob in blobs}) == 4
    assert all(sealer.open_(blob, b"") == b"8613800000001" for blob in blobs)
    assert Sealer(bytes(32)).seal(b"8613800000001", b"")[1:13] not in {blob[1:13] for blob in blobs}


def test_a_signature_is_checked_with_the_public_key_alone() -> None:
    sealer, other = Sealer(b"k" * 32), Sealer(b"o" * 32)
    public = Ed25519PublicKey.from_public_bytes(sealer.public_key())
    public.verify(sealer.sign(b"evidence"), b"evidence")
    for signature, data in ((sealer.sign(b"evidence"), b"evidencf"), (other.sign(b"evidence"), b"evidence")):
        with pytest.raises(InvalidSignature):
            public.verify(signature, data)
    assert sealer.public_key() == Sealer(b"k" * 32).public_key() != other.public_key()
