"""The backup command of docs/OPERATIONS.md: the copy is private and can be restored."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from relay.store.database import connect_reader, open_store
from tests.store.conftest import Disk

(COMMAND,) = re.findall(r"^.*\.backup copy\.db.*$", Path("docs/OPERATIONS.md").read_text(), re.MULTILINE)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs sqlite3 (apt install sqlite3)")
def test_documented_backup_command_makes_a_private_restorable_copy(disk: Disk, tmp_path: Path) -> None:
    with closing(connect_reader(disk.path)) as connection:  # as while a relay serves it
        connection.execute("SELECT 1 FROM business").fetchall()
        subprocess.run(["bash", "-c", f"umask 022; {COMMAND}"], cwd=tmp_path, check=True)
    copy = tmp_path / "copy.db"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    copy.rename(disk.path)
    for suffix in ("-wal", "-shm"):
        disk.path.with_name(disk.path.name + suffix).unlink(missing_ok=True)
    open_store(disk.path, disk.key_file)
