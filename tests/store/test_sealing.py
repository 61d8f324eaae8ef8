"""Sealing, keyed hashes and the key file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from relay.errors import StoreError
from relay.store.key_file import KeyFile, Stamp, make_key, read_key_file, write_key_file
from relay.store.sealing import Sealer, load_key

SEALER = Sealer(b"k" * 32)
OTHER = Sealer(b"o" * 32)


def test_sealed_text_opens_and_is_not_readable_in_the_blob() -> None:
    blob = SEALER.seal(b"8613800000001", b"route 1")
    assert SEALER.open_(blob, b"route 1") == b"8613800000001"
    assert b"13800000001" not in blob


def test_equal_texts_are_sealed_differently() -> None:
    assert SEALER.seal(b"8613800000001", b"") != SEALER.seal(b"8613800000001", b"")


@pytest.mark.parametrize("place", [0, 1, 12, 13, 24, 25, -1])
def test_blob_altered_anywhere_does_not_open(place: int) -> None:
    blob = bytearray(SEALER.seal(b"8613800000001", b"here"))
    blob[place] ^= 1
    with pytest.raises(StoreError):
        SEALER.open_(bytes(blob), b"here")


@pytest.mark.parametrize("blob", [b"", b"\x01", b"\x01" + b"x" * 20])
def test_truncated_blob_does_not_open(blob: bytes) -> None:
    with pytest.raises(StoreError):
        SEALER.open_(blob, b"here")


def test_blob_opens_only_with_its_context_and_key() -> None:
    blob = SEALER.seal(b"8613800000001", b"here")
    with pytest.raises(StoreError):
        SEALER.open_(blob, b"there")
    with pytest.raises(StoreError):
        OTHER.open_(blob, b"here")


def test_look_up_hashes_are_equal_only_for_equal_number_and_key() -> None:
    found = SEALER.lookup_hash("8613800000001")
    assert found == SEALER.lookup_hash("8613800000001")
    assert found != SEALER.lookup_hash("8613800000002")
    assert found != OTHER.lookup_hash("8613800000001")
    assert len(found) >= 16


def test_row_mac_depends_on_row_and_key_and_differs_from_look_up_hash() -> None:
    mac = SEALER.row_mac(b"row")
    assert len(mac) == 16
    assert mac == SEALER.row_mac(b"row")
    assert mac not in (SEALER.row_mac(b"roW"), OTHER.row_mac(b"row"), SEALER.lookup_hash("row")[1:])


def test_chain_hash_depends_on_predecessor_record_and_key() -> None:
    link = SEALER.chain_hash(b"p", b"record")
    assert link != SEALER.chain_hash(b"q", b"record")
    assert link != SEALER.chain_hash(b"p", b"recorD")
    assert link != OTHER.chain_hash(b"p", b"record")


def test_nonces_do_not_repeat_under_one_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.store.sealing.BLOBS_PER_SALT", 3)
    sealer = Sealer(bytes(32))
    blobs = [sealer.seal(b"8613800000001", b"") for _ in range(10)]
    assert len({blob[1:25] for blob in blobs}) == 10
    assert len({blob[1:13] for blob in blobs}) == 4
    assert all(sealer.open_(blob, b"") == b"8613800000001" for blob in blobs)
    assert Sealer(bytes(32)).seal(b"8613800000001", b"")[1:13] not in {blob[1:13] for blob in blobs}


def test_signature_verifies_with_the_public_key() -> None:
    sealer, other = Sealer(b"k" * 32), Sealer(b"o" * 32)
    public = Ed25519PublicKey.from_public_bytes(sealer.public_key())
    public.verify(sealer.sign(b"evidence"), b"evidence")
    for signature, data in ((sealer.sign(b"evidence"), b"evidencf"), (other.sign(b"evidence"), b"evidence")):
        with pytest.raises(InvalidSignature):
            public.verify(signature, data)
    assert sealer.public_key() == Sealer(b"k" * 32).public_key() != other.public_key()


# -- several keys


def ring(path: Path, *ids: int) -> Sealer:
    """The sealer of a key file with these keys, the last of which is in use."""
    masters = {key_id: bytes([key_id]) * 32 for key_id in ids}
    make_key(path)
    write_key_file(path, masters, (b"l" * 32, b"r" * 32))
    return load_key(path)


def test_every_key_opens_and_the_key_in_use_seals(tmp_path: Path) -> None:
    sealer = ring(tmp_path / "relay.key", 1, 2)
    assert (sealer.key_ids, sealer.key_id) == ([1, 2], 2)
    sealer.use(1)
    first = sealer.seal(b"8613800000001", b"here")
    sealer.use(2)
    second = sealer.seal(b"8613800000001", b"here")
    assert (first[0], second[0], sealer.key_id) == (1, 2, 2)
    assert sealer.open_(first, b"here") == sealer.open_(second, b"here") == b"8613800000001"
    assert Sealer(b"\x01" * 32).open_(first, b"here") == b"8613800000001"


def test_blob_with_a_swapped_key_id_does_not_open(tmp_path: Path) -> None:
    sealer = ring(tmp_path / "relay.key", 1, 2)
    blob = sealer.seal(b"8613800000001", b"here")
    with pytest.raises(StoreError, match="altered"):
        sealer.open_(b"\x01" + blob[1:], b"here")


def test_look_up_hashes_and_row_macs_stay_when_the_key_changes(tmp_path: Path) -> None:
    sealer = ring(tmp_path / "relay.key", 1, 2)
    before = sealer.lookup_hash("8613800000001"), sealer.row_mac(b"row")
    sealer.use(1)
    assert (sealer.lookup_hash("8613800000001"), sealer.row_mac(b"row")) == before


def test_hash_keys_in_the_file_equal_those_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "relay.key"
    make_key(path)
    alone = load_key(path)
    write_key_file(path, read_key_file(path).masters | {2: b"2" * 32}, alone.hash_keys)
    both = load_key(path)
    assert both.lookup_hash("8613800000001") == alone.lookup_hash("8613800000001")
    assert both.row_mac(b"row") == alone.row_mac(b"row")


def test_link_is_verified_with_the_key_that_made_it(tmp_path: Path) -> None:
    sealer = ring(tmp_path / "relay.key", 1, 2)
    sealer.use(1)
    old = sealer.chain_hash(b"p", b"record")
    sealer.use(2)
    assert sealer.chain_hash(b"p", b"record", old) == old != sealer.chain_hash(b"p", b"record")
    assert sealer.chain_hash(b"p", b"record", b"\x07" + old[1:])[0] == 2  # an unknown key: the hashes differ


def test_each_key_has_its_own_signature_and_file_keys(tmp_path: Path) -> None:
    sealer = ring(tmp_path / "relay.key", 1, 2)
    Ed25519PublicKey.from_public_bytes(sealer.public_key(2)).verify(sealer.sign(b"evidence"), b"evidence")
    assert sealer.public_key() == sealer.public_key(2) != sealer.public_key(1)
    assert sealer.file_key(b"s" * 16, 1) != sealer.file_key(b"s" * 16, 2)


def test_key_added_to_the_file_later_is_found(tmp_path: Path) -> None:
    path = tmp_path / "relay.key"
    early = ring(path, 1)
    late = ring(path, 1, 2)
    assert early.open_(late.seal(b"8613800000001", b"here"), b"here") == b"8613800000001"
    assert (early.key_ids, early.key_id) == ([1, 2], 1)


def test_error_names_a_missing_key_with_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "relay.key"
    blob = ring(path, 1, 7).seal(b"8613800000001", b"here")
    sealer = ring(path, 1)
    with pytest.raises(StoreError, match=rf"the key 7, which the key file {path} does not have: add its line"):
        sealer.open_(blob, b"here")
    with pytest.raises(StoreError, match="the key 7"):
        sealer.use(7)


def test_key_in_use_stays_known_if_the_file_loses_it(tmp_path: Path) -> None:
    path = tmp_path / "relay.key"
    sealer = ring(path, 1, 2)
    ring(path, 1)
    assert sealer.refresh() and not sealer.refresh()
    assert sealer.open_(sealer.seal(b"x", b""), b"") == b"x"


@pytest.mark.parametrize(
    ("masters", "hashes", "said"),
    [
        ({1: b"1" * 32}, (b"l" * 32, b"R" * 32), "belongs to another store"),
        ({1: b"o" * 32}, (b"l" * 32, b"r" * 32), "the key 1 in the key file .* was changed"),
    ],
)
def test_key_file_of_another_store_is_refused(
    tmp_path: Path, masters: dict[int, bytes], hashes: tuple[bytes, bytes], said: str
) -> None:
    sealer = ring(tmp_path / "relay.key", 1, 2)
    with pytest.raises(StoreError, match=said):
        sealer.follow(KeyFile(masters, hashes, Stamp(0, 0, 0)))
    assert sealer.key_ids == [1, 2]


def test_two_keys_with_one_id_have_different_proofs() -> None:
    assert SEALER.proof(1) == Sealer(b"k" * 32).proof(1) != OTHER.proof(1)
    assert SEALER.proof(1) not in (b"k" * 32, SEALER.public_key())
