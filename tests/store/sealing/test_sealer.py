"""Sealing, keyed hashes and the key file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from relay.errors import StoreError
from relay.store.sealing.sealer import KeyFile, Sealer, Stamp, load_key, make_key, read_key_file, write_key_file

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
    monkeypatch.setattr("relay.store.sealing.sealer.BLOBS_PER_SALT", 3)
    sealer = Sealer(bytes(32))
    blobs = [sealer.seal(b"8613800000001", b"") for _ in range(10)]
    assert len({blob[1:25] for blob in blobs}) == 10
    assert len({blob[1:13] for blob in blobs}) == 4
    assert all(sealer.open_(blob, b"") == b"8613800000001" for blob in blobs)
    assert Sealer(bytes(32)).seal(b"8613800000001", b"")[1:13] not in {blob[1:13] for blob in blobs}


def test_another_thread_may_seal_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.store.sealing.sealer.BLOBS_PER_SALT", 1)
    sealer, process, blobs = Sealer(bytes(32)), os.getpid(), []

    def interrupted() -> int:
        monkeypatch.setattr(os, "getpid", lambda: process)
        blobs.append(sealer.seal(b"8613800000001", b""))
        return process

    monkeypatch.setattr(os, "getpid", interrupted)
    blobs.append(sealer.seal(b"8613800000001", b""))
    assert len({blob[1:25] for blob in blobs}) == 2
    assert all(sealer.open_(blob, b"") == b"8613800000001" for blob in blobs)


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


def test_look_up_hashes_row_macs_and_the_key_of_nonces_stay_when_the_key_changes(tmp_path: Path) -> None:
    sealer = ring(tmp_path / "relay.key", 1, 2)
    before = sealer.lookup_hash("8613800000001"), sealer.row_mac(b"row"), sealer.nonce_key
    sealer.use(1)
    assert (sealer.lookup_hash("8613800000001"), sealer.row_mac(b"row"), sealer.nonce_key) == before


def test_hash_keys_in_the_file_equal_those_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "relay.key"
    make_key(path)
    alone = load_key(path)
    write_key_file(path, read_key_file(path).masters | {2: b"2" * 32}, alone.hash_keys)
    both = load_key(path)
    assert both.lookup_hash("8613800000001") == alone.lookup_hash("8613800000001")
    assert both.row_mac(b"row") == alone.row_mac(b"row")
    assert both.nonce_key == alone.nonce_key != alone.sum_key


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


# -- The key file: its creation, and the errors of a bad one


HASHES = (b"l" * 32, b"r" * 32)
HASHES_LINE = f"relay700-hashes {HASHES[0].hex()} {HASHES[1].hex()}\n"


def line(key_id: int, digit: str = "a") -> str:
    return f"relay700-key {key_id} {digit * 64}\n"


def written(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def test_new_key_file_is_private_and_has_one_key(tmp_path: Path) -> None:
    path = tmp_path / "new" / "relay.key"
    make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key(path).lookup_hash("1") == load_key(path).lookup_hash("1")
    assert list(path.parent.iterdir()) == [path]


def test_key_file_is_whole_where_a_write_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
    make_key(tmp_path / "relay.key")
    assert load_key(tmp_path / "relay.key").key_ids == [1]


def test_existing_key_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "relay.key"
    make_key(path)
    first = path.read_bytes()
    make_key(path)
    assert path.read_bytes() == first


def test_key_files_differ(tmp_path: Path) -> None:
    make_key(tmp_path / "1")
    make_key(tmp_path / "2")
    assert load_key(tmp_path / "1").lookup_hash("1") != load_key(tmp_path / "2").lookup_hash("1")


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o620, 0o660, 0o650])
def test_key_file_open_to_others_is_refused_with_the_fix(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "relay.key"
    make_key(path)
    path.chmod(mode)
    with pytest.raises(StoreError, match=f"chmod 600 {path}"):
        load_key(path)


US, GROUP, OTHERS = 10_700, 10_701, 10_702


@contextmanager
def another_user() -> Iterator[None]:
    """As a user that is in GROUP."""
    groups = os.getgroups()
    os.setgroups([GROUP])
    os.setegid(US)
    os.seteuid(US)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "fault"),
    [
        (0, GROUP, 0o440, ""),  # a Secret of Kubernetes
        (0, GROUP, 0o640, ""),
        (0, US, 0o440, ""),
        (US, US, 0o600, ""),
        (0, OTHERS, 0o440, "cannot be read"),
        (0, GROUP, 0o444, "open to other users"),
        (0, GROUP, 0o460, "open to other users"),
        (0, OTHERS, 0o444, "open to other users"),
        (US, US, 0o640, "chmod 600"),
        (US, OTHERS, 0o640, "chmod 600"),
    ],
)
def test_root_may_let_a_group_of_ours_read_the_key(
    tmp_path: Path, owner: int, group: int, mode: int, fault: str
) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o011)
    path = tmp_path / "relay.key"
    make_key(path)
    os.chown(path, owner, group)
    path.chmod(mode)
    refused = pytest.raises(StoreError, match=fault) if fault else nullcontext()
    with refused, another_user():
        load_key(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_a_command_of_root_takes_the_group_of_the_keys_folder_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "relay.key"
    make_key(path)
    os.chown(path, 0, GROUP)
    path.chmod(0o640)
    with pytest.raises(StoreError, match="open to a group"):
        load_key(path)
    os.chown(tmp_path, 0, GROUP)
    load_key(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"relay700-key 1 abc",
        b"\xff\xfe",
        line(2).encode(),  # without the hashes line
        (line(1) + line(2)).encode(),
        HASHES_LINE.encode(),
        (line(1) + HASHES_LINE + HASHES_LINE).encode(),
        (line(1) + "\n" + HASHES_LINE).encode(),
    ],
)
def test_damaged_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "relay.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(StoreError, match=r"damaged|cannot be read"):
        load_key(path)


def test_error_names_a_missing_key_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"relay\.key is missing"):
        load_key(tmp_path / "relay.key")


def test_error_says_why_a_key_file_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be created"):
        make_key(tmp_path / "file" / "relay.key")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (line(1) + line(2) + line(2, "b") + HASHES_LINE, r"relay\.key has two keys 2: delete the line"),
        (line(1) + line(256) + HASHES_LINE, r"relay\.key, line 2: the key id 256 is not in 1 to 255"),
        (line(1) + "relay700-key 0 00\n", r"relay\.key is damaged in line 2"),
    ],
)
def test_error_names_a_bad_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        read_key_file(written(tmp_path / "relay.key", text))


def test_keys_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = read_key_file(written(tmp_path / "relay.key", line(3) + HASHES_LINE + line(255, "b")))
    assert list(file.masters.items()) == [(3, b"\xaa" * 32), (255, b"\xbb" * 32)]
    assert file.hashes == HASHES


def test_rewritten_key_file_is_read_back_private_also_behind_a_symlink(tmp_path: Path) -> None:
    path, link = written(tmp_path / "relay.key", line(1)), tmp_path / "link.key"
    link.symlink_to(path)
    masters = {1: b"\xaa" * 32, 2: b"2" * 32}
    write_key_file(link, masters, HASHES)
    assert link.is_symlink()
    assert (read_key_file(path).masters, read_key_file(path).hashes) == (masters, HASHES)
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["link.key", "relay.key"]


def test_failed_write_names_the_key_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        write_key_file(tmp_path / "none" / "relay.key", {1: b"1" * 32}, HASHES)
