"""Huge pages of a separate process, on kernels that have them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from relay.net import process
from tests.support.huge_pages import needs_huge_pages

TAKES = """
import os
from relay.net.process import take_huge_pages
from tests.support.huge_pages import huge_kib

objects = [bytes(1000) for _ in range(20_000)]
before = huge_kib(os.getpid())
print(take_huge_pages() * 2048, huge_kib(os.getpid()) - before)
assert all(each == bytes(1000) for each in objects)
"""


def test_objects_are_moved_into_huge_pages() -> None:
    needs_huge_pages()
    done = subprocess.run([sys.executable, "-c", TAKES], capture_output=True, text=True, check=True)
    taken_kib, more_kib = (int(number) for number in done.stdout.split())
    assert taken_kib >= more_kib > 0


def test_no_huge_pages_are_requested_if_set_to_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enabled = tmp_path / "enabled"
    enabled.write_text("always madvise [never]\n")
    monkeypatch.setattr(process, "_ENABLED", enabled)
    assert process.take_huge_pages() == 0


def test_no_huge_pages_are_requested_without_kernel_support(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_ENABLED", tmp_path / "enabled")
    assert process.take_huge_pages() == 0
