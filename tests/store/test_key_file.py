"""The key file: its creation, and the errors of a bad one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.store.key_file import make_key, read_key_file, write_key_file
from relay.store.sealing import load_key

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


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_key_file_open_to_others_is_refused_with_the_fix(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "relay.key"
    make_key(path)
    path.chmod(mode)
    with pytest.raises(StoreError, match=f"chmod 600 {path}"):
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
