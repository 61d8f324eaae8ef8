"""`relay700 completion`, and completion by its script."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from relay.cli import SHELLS, main
from relay.cli.options import moment, number, opened, past
from relay.errors import StoreError
from relay.store.numbers import find_prefix
from relay.store.writer import now_ms
from tests.cli.conftest import Command
from tests.cli.test_calls import bind, write
from tests.cli.test_parity import commands
from tests.support.limits import soft_limit
from tests.support.product import PYTHON
from tests.support.stored import NOW_MS, PREFIX, A, X, binding, ended_record


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_calls_relay700(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert f"_RELAY700_COMPLETE={shell}_complete" in done.stdout


def test_a_command_disables_core_dumps(relay700: Command) -> None:
    with soft_limit(resource.RLIMIT_CORE, None):
        relay700.done("verify")
        assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 1  # 0 would not prevent pipes to a crash handler


def test_the_script_is_printed_without_the_store() -> None:
    """Shells run the command when they start."""
    asks = "import sys; from relay.cli import main; main(['completion', 'bash'], standalone_mode=False);"
    asks += " sys.exit('relay.store.database' in sys.modules)"
    done = subprocess.run([PYTHON, "-c", asks], capture_output=True, text=True, check=False)
    assert "_RELAY700_COMPLETE=bash_complete" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("relay700 bus", {"business"}),
        ("relay700 business app", {"apply", "approve"}),
        ("relay700 trace", {"traceback"}),
        ("relay700 des", set()),
    ],
)
def test_commands_are_completed(words: str, found: set[str]) -> None:
    asked = {"_RELAY700_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", "from relay.cli import main; main(prog_name='relay700')"],
        env=os.environ | asked, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {line.partition(",")[2] for line in done.stdout.split()} == found


LOADED = {
    # Commands by which each shell loads the script in the file $1 and completes `relay700 bus`.
    "bash": 'source "$1"; COMP_WORDS=(relay700 bus) COMP_CWORD=1; _relay700_completion relay700; echo $COMPREPLY',
    "zsh": 'autoload -Uz compinit && compinit -u -D && source "$1" && print -r -- ${_comps[relay700]}',
    "fish": 'source $argv[1]; complete -C "relay700 bus"',
}
ANSWERS = {"bash": "business", "zsh": "_relay700_completion", "fish": "business"}


@pytest.mark.outside
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_with_its_script(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    assert program, f"{shell} is not installed: scripts/test does it"
    script = tmp_path / "completion"
    script.write_text(CliRunner().invoke(main, ["completion", shell]).stdout)
    path = f"{Path(PYTHON).parent}:{os.environ['PATH']}"
    interactive = ["-f", "-i"] if shell == "zsh" else []
    name = [] if shell == "fish" else ["-"]
    done = subprocess.run(
        [program, *interactive, "-c", LOADED[shell], *name, str(script)],
        env=os.environ | {"PATH": path, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split()[0] == ANSWERS[shell], done.stderr


# -- Values of arguments, and opening of the store


def test_numbers_are_normalised() -> None:
    assert number("+86" + X) == X
    assert number("138-0000-0001") == A
    with pytest.raises(click.BadParameter, match="3 to 15 digits"):
        number("1")


def test_a_past_time_is_a_time_or_a_duration_ago() -> None:
    assert past("2026-01-01T00:00:00Z") == moment("2026-01-01T00:00:00Z") == NOW_MS
    before = now_ms() - 7_200_000
    assert before <= past("2h") <= now_ms() - 7_200_000
    with pytest.raises(click.BadParameter, match="2026-01-31T08:00:00Z, or a duration ago such as"):
        past("yesterday")


def test_the_first_command_makes_the_store_and_its_key(relay700: Command) -> None:
    path, key_file = relay700.store
    with opened(relay700.folder / "relay.toml", make=True) as store:
        assert find_prefix(store.reader, PREFIX) is not None
    assert path.exists() and key_file.exists()


@pytest.mark.parametrize(
    "command",
    [
        ("calls", "list"),
        ("bindings", "list"),
        ("bindings", "show", "b1"),
        ("unbind", "b1"),
        ("verify",),
        ("traceback", X, "--at", "2026-01-01T00:00:00Z", "--reason", "x"),
        ("business", "list"),
        ("keys", "list"),
        ("numbers", "prefixes"),
        ("pools", "usage"),
        ("groups", "list"),
        ("webhooks", "list"),
        ("audit", "verify"),
        ("report", "daily", "today"),
        ("purge",),
    ],
)
def test_commands_that_only_read_make_no_store(relay700: Command, command: tuple[str, ...]) -> None:
    path, key_file = relay700.store
    shutil.rmtree(path.parent)
    told = relay700.refused(*command)
    assert told.startswith(f"there is no store at {path}: ")
    assert told.endswith("the folder that the relay was started in")
    assert not path.exists() and not key_file.exists()


def test_configuration_of_a_missing_store_is_asked_for_unless_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(main, ["keys", "list"]).stderr
    assert told.endswith("the folder that the relay was started in, or name its configuration with -c\n")


def test_store_that_is_made_where_no_configuration_is_found_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run in a wrong folder, a key would be of a store that no relay serves."""
    monkeypatch.chdir(tmp_path)
    first, second = (CliRunner().invoke(main, ["keys", "make", "--operator"]) for _ in range(2))
    made = f"no config/relay.toml here: made a new store at {tmp_path}/var/relay.db\n"
    assert (first.exit_code, first.stderr) == (0, made)
    assert (second.exit_code, second.stderr) == (0, "")


def test_a_store_whose_key_is_lost_is_not_opened(relay700: Command) -> None:
    with opened(relay700.folder / "relay.toml", make=True):
        pass
    relay700.store[1].unlink()
    with pytest.raises(StoreError, match="put it back"), opened(relay700.folder / "relay.toml"):
        pass


# -- Real numbers need a reason, in tables, JSON and files

# Arguments of commands that show or write real numbers.
NEEDED = {
    "business show": ("default",),
    "groups show": ("g1",),
    "lists show": ("business", "default"),
    "filings show": (A,),
    "papers show": ("0" * 24,),
    "bindings show": ("b1",),
    "calls show": ("c1",),
    "calls ladder": ("c1",),
    "calls export": ("-",),
    "audit export": ("-",),
    "traceback": (X, "--at", "2026-01-01T00:00:05Z"),
    "evidence make": (X, "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z", "--out", "-"),
    "recordings get": ("c1", "--out", "-"),
}
ALWAYS = ("traceback", "evidence make", "recordings get")


def revealing() -> dict[str, click.Command]:
    return {name: each for name, each in commands() if any("--reveal" in option.opts for option in each.params)}


@pytest.mark.parametrize("name", [*revealing(), *ALWAYS])
def test_real_numbers_without_a_reason_are_wrong_usage(relay700: Command, usage: Callable[..., str], name: str) -> None:
    bind(relay700, binding())
    write(relay700, ended_record())
    asked = (*name.split(), *NEEDED.get(name, ()), *(() if name in ALWAYS else ("--reveal",)))
    for reason in ((), ("--reason", ""), ("--reason", "  "), ("--reason", "\u3164\u2800")):
        assert "--reason" in usage(*asked, *reason)
    assert relay700.objects("audit", "list", "--action", "read") == []


def test_commands_with_reveal_take_a_reason() -> None:
    for name, command in revealing().items():
        assert any("--reason" in option.opts for option in command.params), name


@pytest.mark.parametrize("name", ["bindings list", "bindings show", "calls list", "calls show"])
def test_json_without_a_reason_is_masked_and_leaves_no_audit_line(relay700: Command, name: str) -> None:
    order = "to 138-0000-0001"
    bind(relay700, binding()._replace(order_id=order))
    write(relay700, ended_record(order_id=order))
    asked = (*name.split(), *NEEDED.get(name, ()))
    (masked,) = relay700.objects(*asked, reason=None)
    (clear,) = relay700.objects(*asked, reason="case 7")
    assert A[2:] not in str(masked) and A in clear.values()
    assert (masked["order_id"], clear["order_id"]) == ("to 138****0001", order)
    assert masked.keys() == clear.keys()
    assert [line["reason"] for line in relay700.objects("audit", "list", "--action", "read")] == ["case 7"]


@pytest.mark.parametrize("command", ["bind", "change", "renew"])
def test_json_of_a_new_binding_is_masked_without_a_reason(relay700: Command, command: str) -> None:
    made = ("bind", "AXB", "--a", "13800000001", "--b", "13900000002", "--order", "to 138-0000-0001")
    (masked,) = relay700.objects(*made, reason=None)
    asked = made
    if command != "bind":
        asked = ("bindings", command, masked["binding_id"], "--expires-in", "2h")
        (masked,) = relay700.objects(*asked, reason=None)
    else:
        relay700.done("unbind", masked["binding_id"])
    (clear,) = relay700.objects(*asked, reason="case 7")
    assert (masked["a"], masked["b"], masked["order_id"]) == ("138****0001", "139****0002", "to 138****0001")
    assert (clear["a"], clear["b"], clear["order_id"]) == (A, "8613900000002", "to 138-0000-0001")
    assert masked.keys() == clear.keys() and masked["x"].startswith("700")
    (line,) = relay700.objects("audit", "list", "--action", "read")
    assert (line["object"], line["reason"]) == (f"binding {clear['binding_id']}", "case 7")


def test_members_entries_and_contacts_are_masked_in_json_without_a_reason(relay700: Command) -> None:
    (group,) = relay700.objects("groups", "make", "riders", "--member", "13800000001")
    relay700.done("lists", "black", "business", "default", "13800000001")
    relay700.done("business", "change", "default", "--contact", "Li Lei 13800000001")
    for asked in (("groups", "show", group["id"]), ("lists", "show", "business", "default"), ("business", "list")):
        assert "138****0001" in str(relay700.objects(*asked, reason=None))
        assert "13800000001" in str(relay700.objects(*asked, reason="case 7"))
    assert len(relay700.objects("audit", "list", "--action", "read")) == 3


def test_lists_of_commands_have_whole_sentences() -> None:
    """In 80 columns, as in a pipe."""
    for name in sorted({name.rpartition(" ")[0] for name, _ in commands()}):
        help_ = CliRunner().invoke(main, [*name.split(), "--help"], terminal_width=80).stdout
        _, _, listed = help_.partition("Commands:")
        assert listed and "..." not in listed, name
