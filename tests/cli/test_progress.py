"""Progress bars: on a terminal only."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.store.database import open_store
from tests.cli.conftest import Command
from tests.support.shelf import Shelf
from tests.support.stored import ended_record

COMMAND = (sys.executable, "-m", "relay")
ROWS = 600  # enough for several updates of the bar


@pytest.fixture
def bindings(relay700: Command) -> Path:
    file = relay700.folder / "bindings.csv"
    lines = [f"AXB,,,1380000{n:04},1390000{n:04},2h,order-{n},default" for n in range(ROWS)]
    file.write_text("mode,x,y,a,b,expires_in,order_id,business\n" + "\n".join(lines) + "\n")
    return file


def on_a_terminal(relay700: Command, *arguments: str) -> tuple[str, str]:
    """Run with a terminal as standard error. Returns standard output, and output on the terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments, "-c", str(relay700.folder / "relay.toml")], stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b"".join(_read(ours))
        output, _ = process.communicate()
    os.close(ours)
    assert process.returncode == 0, shown
    return output.decode(), shown.decode()


def _read(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(terminal, 65_536)
        except OSError:  # EIO: the other end is closed
            return
        if not data:
            return
        yield data


def test_long_imports_and_exports_show_a_bar_on_a_terminal(relay700: Command, bindings: Path) -> None:
    said, shown = on_a_terminal(relay700, "bindings", "import", str(bindings))
    assert said == f"{ROWS} imported, 0 refused\n"
    assert shown.startswith("\x1b[?25lbindings") or "bindings  [" in shown
    assert "100%" in shown
    (group,) = relay700.objects("groups", "make", "riders")
    members = relay700.folder / "members"
    members.write_text("".join(f"1370000{n:04}\n" for n in range(ROWS)))
    said, shown = on_a_terminal(relay700, "groups", "import", group["id"], str(members))
    assert (said, "members  [" in shown, "100%" in shown) == (f"{ROWS} added\n", True, True)
    path, key_file = relay700.store
    Shelf(path, open_store(path, key_file)).add(*(ended_record(f"c{n}") for n in range(9)))
    said, shown = on_a_terminal(relay700, "calls", "export", "-")
    assert (len(said.splitlines()), "records  [" in shown, "100%" in shown) == (10, True, True)
    said, shown = on_a_terminal(relay700, "audit", "export", "-")
    assert len(said.splitlines()) > 3
    assert "entries  [" in shown and "100%" in shown


def test_without_a_terminal_there_is_no_bar(relay700: Command, bindings: Path) -> None:
    assert relay700.done("bindings", "import", str(bindings)) == f"{ROWS} imported, 0 refused\n"  # and no error output
