"""Tables and JSON of commands."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from signal import SIG_DFL, SIG_IGN, SIGHUP, SIGTERM, signal
from typing import Any

import pytest

from relay.cli.output import A_SCREEN, json_line, record_row, shower, table, written
from relay.errors import StoreError
from relay.model.outcomes import OUTCOMES
from relay.reports.disclosure import printable
from relay.store.database import open_store
from tests.cli.conftest import Command
from tests.support.product import RELAY700
from tests.support.shelf import Shelf, call
from tests.support.stored import A, B, ended_record, live_record


def test_columns_are_as_wide_as_their_cells() -> None:
    assert list(table(("id", "n"), [("a", "1"), ("longer", "2")])) == ["id      n", "a       1", "longer  2"]
    assert list(table(("id", "n"), [])) == ["id  n"]


def test_a_long_table_is_printed_whole() -> None:
    assert len(list(table(("n",), ((str(n),) for n in range(2_500))))) == 2_501


def test_rows_of_a_live_and_an_ended_call() -> None:
    masked = shower(reveal=False)
    assert record_row(live_record(), masked)[1:4] == ("call", "live", "200")
    row = record_row(ended_record(), masked)
    assert row[0] == "2026-01-01T00:00:00.000Z"
    assert row[5:] == ("138****0001", "139****0002", "10.0s", "caller", "c1")
    assert A in record_row(ended_record(), shower(reveal=True))


def test_chinese_is_printed_as_it_is_and_invalid_utf_8_is_replaced() -> None:
    assert json_line({"order_id": "订单"}) == '{"order_id": "订单"}'
    assert printable("订单\udcff") == "订单\ufffd"


# -- Files for real numbers belong to the user, and links of other users are not followed


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


def test_our_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_bytes(b"longer than new")
    file.chmod(0o640)
    put(file)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"new", 0o640)
    assert list(tmp_path.iterdir()) == [file]


def test_a_private_file_keeps_the_users_part_of_the_mode_only(tmp_path: Path) -> None:
    file = tmp_path / "out"
    for before, after in ((0o644, 0o600), (0o400, 0o400)):
        file.write_bytes(b"old")
        file.chmod(before)
        with written(file, private=True) as out:
            out.write(b"new")
        assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"new", after)
        file.unlink()


HALF = """
import sys
from pathlib import Path
from relay.cli.output import written
with written(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("half", flush=True)
    file.write(sys.stdin.buffer.read())
"""


@pytest.mark.parametrize("ending", [SIGTERM, SIGHUP])
def test_a_command_that_is_ended_leaves_no_part_of_its_file(tmp_path: Path, ending: int) -> None:
    with half_written(tmp_path / "out", preexec_fn=lambda: signal(SIGHUP, SIG_DFL)) as process:
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(ending)
        process.communicate()
    assert process.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_by_any_thread(tmp_path: Path) -> None:
    """Only the main one may handle signals."""

    def write() -> None:
        with written(tmp_path / "out") as file:
            file.write(b"all")

    with ThreadPoolExecutor(1) as thread:
        thread.submit(write).result()
    assert (tmp_path / "out").read_bytes() == b"all"


def test_a_command_goes_on_where_hanging_up_is_ignored(tmp_path: Path) -> None:
    """As by nohup."""
    with half_written(tmp_path / "out", preexec_fn=lambda: signal(SIGHUP, SIG_IGN)) as process:
        process.send_signal(SIGHUP)
        process.communicate(b", and all")
    assert process.returncode == 0
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"half, and all"]


@contextmanager
def half_written(file: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has written the half of a file."""
    line = [sys.executable, "-c", HALF, str(file)]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, **options) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        yield process


@pytest.mark.parametrize("earlier", [[], [b"old"]])
def test_a_failed_command_leaves_the_earlier_file_and_nothing_else(tmp_path: Path, earlier: list[bytes]) -> None:
    file = tmp_path / "out"
    for content in earlier:
        file.write_bytes(content)
    with pytest.raises(KeyboardInterrupt), written(file) as out:
        out.write(b"half")
        out.flush()
        assert [each.read_bytes() for each in tmp_path.glob("out")] == earlier
        raise KeyboardInterrupt
    assert [each.read_bytes() for each in tmp_path.iterdir()] == earlier


def test_our_link_and_our_pipe_are_written_in_place(tmp_path: Path) -> None:
    """As /dev/stdout is: a shell has opened what is behind it."""
    file, link, pipe = tmp_path / "file", tmp_path / "link", tmp_path / "pipe"
    file.write_bytes(b"longer than new")
    place = file.stat().st_ino
    link.symlink_to(file)
    put(link)
    assert (file.read_bytes(), file.stat().st_ino) == (b"new", place)
    os.mkfifo(pipe)
    listening = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    put(pipe)
    assert os.read(listening, 9) == b"new"
    os.close(listening)


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


# -- Progress bars: on a terminal only

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


# -- Lists: newest first, 50 rows on a terminal, all in a pipe, and a pipe closed by its reader

MANY = 60


@pytest.fixture
def bound(relay700: Command) -> Command:
    """A store with MANY bindings."""
    lines = "".join(f"AXB,,,1380000{number:04},1390000{number:04},,order-{number},\n" for number in range(MANY))
    relay700.done("bindings", "import", "-", input=lines)
    return relay700


def orders(text: str) -> list[str]:
    return [line.split()[8] for line in text.splitlines()[1:]]


def test_a_pipe_gets_all_rows_or_the_limit(bound: Command) -> None:
    assert sorted(orders(bound.done("bindings", "list"))) == sorted(f"order-{number}" for number in range(MANY))
    assert len(orders(bound.done("bindings", "list", "--limit", "2"))) == 2
    assert len(bound.objects("bindings", "list", "--limit", "3")) == 3


def on_a_screen(command: Command, *arguments: str) -> tuple[str, str]:
    """Run on a terminal. Returns its output there and on stderr."""
    ours, its = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        with subprocess.Popen(
            [*RELAY700, *arguments, "-c", str(command.folder / "relay.toml")], stdout=its, stderr=subprocess.PIPE
        ) as process:
            os.close(its)
            text = b""
            try:
                while part := screen.read(65536):
                    text += part
            except OSError:  # EIO: it has ended
                pass
            assert process.stderr is not None
            said = process.stderr.read().decode()
        assert process.returncode == 0, said
    return text.decode(), said


def test_a_terminal_gets_50_rows_and_a_note(bound: Command) -> None:
    text, said = on_a_screen(bound, "bindings", "list")
    assert (len(orders(text)), said) == (A_SCREEN, f"the first {A_SCREEN}; --limit N shows more\n")
    text, said = on_a_screen(bound, "bindings", "list", "--limit", str(MANY))
    assert (len(orders(text)), said) == (MANY, "")
    text, said = on_a_screen(bound, "numbers", "prefixes")
    assert said == ""


@pytest.mark.parametrize("arguments", [("bindings", "list"), ("numbers", "list"), ("bindings", "list", "--json")])
def test_a_closed_pipe_is_silent_with_status_141(bound: Command, arguments: tuple[str, ...]) -> None:
    command = [*RELAY700, *arguments, "-c", str(bound.folder / "relay.toml")]
    reading, writing = os.pipe()
    os.close(reading)  # as `head` does
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("arguments", [("bindings", "list"), ("business", "list"), ("calls", "export", "-")])
def test_a_full_disk_behind_standard_output_is_one_line_with_status_1(
    bound: Command, arguments: tuple[str, ...]
) -> None:
    with open("/dev/full", "wb") as full:
        done = run_with(bound, *arguments, stdout=full)
    words = "standard output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, words)


def run_with(command: Command, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own."""
    line = [*RELAY700, *arguments, "-c", str(command.folder / "relay.toml")]
    return subprocess.run(line, stderr=subprocess.PIPE, text=True, check=False, **options)


def test_with_standard_output_closed_a_command_does_its_work(bound: Command) -> None:
    done = run_with(bound, "business", "apply", "acme", "--name", "Acme", preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")
    assert "acme" in bound.done("business", "list")
    assert run_with(bound, "bindings", "list", preexec_fn=lambda: os.close(1)).returncode == 0


NAMES = ("zebra", "ant", "mole")


@pytest.mark.parametrize(
    ("make", "listed"),
    [
        (lambda name: ("bind", "AXB", "--a", A, "--b", B, "--expires-in", "2h", "--order", name), ("bindings", "list")),
        (lambda name: ("business", "apply", name, "--name", name), ("business", "list")),
        (lambda name: ("keys", "make", "--business", "default", "--scope", "calls:read"), ("keys", "list")),
        (lambda name: ("groups", "make", name), ("groups", "list")),
        (lambda name: ("webhooks", "make", f"https://{name}.example/"), ("webhooks", "list")),
    ],
)
def test_lists_are_newest_first(
    relay700: Command, make: Callable[[str], tuple[str, ...]], listed: tuple[str, ...]
) -> None:
    for each in NAMES:
        relay700.done(*make(each))
    made = [line["created_at"] for line in relay700.objects(*listed)]
    assert len(made) >= len(NAMES)
    assert made == sorted(made, reverse=True)
    assert relay700.objects(*listed, "--limit", "2")[1]["created_at"] == made[1]


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("options", [(), ("--business", "default"), ("--since", "2025-01-01T00:00:00Z")])
def test_calls_are_listed_latest_end_first(relay700: Command, follow: bool, options: tuple[str, ...]) -> None:
    shelf = Shelf(relay700.store[0], open_store(*relay700.store))
    shelf.add(*map(call, range(3)))
    if follow:
        shelf.follow()
    found = [line["call_id"] for line in relay700.objects("calls", "list", *options)]
    assert found == ["c2", "c1", "c0"]
    assert [line["call_id"] for line in relay700.objects("calls", "list", *options, "--limit", "1")] == ["c2"]


def test_an_unknown_outcome_is_a_usage_error(usage: Callable[..., str]) -> None:
    said = usage("calls", "list", "--outcome", "answred")
    assert "there is no outcome answred. These are the outcomes:\nanswered, " in said
    assert all(outcome in said for outcome in OUTCOMES)
