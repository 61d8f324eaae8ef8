"""Files for real numbers belong to the user, and links of other users are not followed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.cli.output import written
from relay.errors import StoreError


def put(path: Path) -> None:
    with written(path) as file:
        file.write(b"new")


@pytest.fixture
def another_user(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that makes the test run as another user than the files' owner."""
    us = os.geteuid()
    return lambda: monkeypatch.setattr(os, "geteuid", lambda: us + 1)


def test_a_new_file_has_mode_0600(tmp_path: Path) -> None:
    file = tmp_path / "out"
    before = os.umask(0)
    try:
        put(file)
    finally:
        os.umask(before)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"new", 0o600)


def test_our_file_is_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_bytes(b"longer than new")
    link = tmp_path / "link"
    link.symlink_to(file)
    put(link)
    assert file.read_bytes() == b"new"


def test_another_users_file_is_refused_and_unchanged(tmp_path: Path, another_user: Callable[[], None]) -> None:
    file = tmp_path / "out"
    file.write_bytes(b"old")
    another_user()
    with pytest.raises(StoreError, match="belongs to another user"):
        put(file)
    assert file.read_bytes() == b"old"


def test_another_users_pipe_is_refused(tmp_path: Path, another_user: Callable[[], None]) -> None:
    pipe = tmp_path / "out"
    os.mkfifo(pipe)
    listening = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    another_user()
    with pytest.raises(StoreError, match="belongs to another user"):
        put(pipe)
    os.close(listening)


def test_another_users_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another_user: Callable[[], None]
) -> None:
    """Not even to a file of ours, which would be overwritten."""
    file, link = tmp_path / "ours", tmp_path / "out"
    file.write_bytes(b"old")
    link.symlink_to(file)
    theirs = os.stat_result((0o120777, 0, 0, 1, os.geteuid() + 7, 0, 0, 0, 0, 0))
    monkeypatch.setattr(os, "lstat", lambda _: theirs)
    with pytest.raises(StoreError, match="belongs to another user"):
        put(link)
    assert file.read_bytes() == b"old"


def test_dash_is_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    put(Path("/dev/null"))
    put(Path("-"))
    assert capfdbinary.readouterr().out == b"new"


def test_an_unwritable_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="out cannot be written: No such file or directory"):
        put(tmp_path / "none" / "out")
