from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli import main
from relay.defence.bans import Bans, KnownAddresses
from relay.errors import StoreError
from relay.model.settings import Limits
from relay.net.control import BanAnswers
from relay.store.database import open_store
from tests.cli.conftest import Command, serving
from tests.support.product import RELAY700

COMMANDS = ("serve", "check", "bind", "unbind", "bindings", "calls", "traceback", "verify", "replay")


def check(folder: Path, text: str) -> Result:
    (folder / "relay.toml").write_text(text)
    return CliRunner().invoke(main, ["check", "-c", str(folder / "relay.toml")])


def keys_of(result: Result) -> list[str]:
    """The keys of the faults; each line begins with the file."""
    lines = [line.split(": ") for line in result.stderr.splitlines()]
    assert all(file.endswith("/relay.toml") for file, *_ in lines)
    return [key for _, key, *_ in lines]


def test_check_prints_a_summary_of_a_good_configuration(tmp_path: Path) -> None:
    result = check(tmp_path, '[[peer]]\nname = "p"\nuri = "sip:127.0.0.2"\n[[route]]\npeers = ["p"]\n')
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path}/relay.toml is good: 1 listener, 1 peer, 1 route, 1 prefix\n"


def test_check_warns_of_a_peer_that_may_claim_any_number(tmp_path: Path) -> None:
    result = check(tmp_path, '[[peer]]\nname = "p"\nuri = "sip:127.0.0.2"\n')
    assert result.exit_code == 0
    assert result.stderr.startswith(f"{tmp_path}/relay.toml: warning: peer[0].numbers: missing: p may claim any")
    good = '[[peer]]\nname = "p"\nuri = "sip:127.0.0.2"\nnumbers = "any"\n'
    assert check(tmp_path, good + '[[route]]\npeers = ["p"]\n').stderr == ""
    assert check(tmp_path, good).stderr.startswith(f"{tmp_path}/relay.toml: warning: route: none: no call reaches")


SERVER = '[store]\nurl = "postgresql://relay:s3cret@db.example/relay"\nnode = "a"\n'


@pytest.mark.parametrize(
    ("text", "mode", "warns"),
    [
        (SERVER, 0o644, True),
        (SERVER.replace("s3cret", "it's-s3cret"), 0o644, True),
        (SERVER, 0o640, False),
        (SERVER.replace("relay:s3cret@db.example/relay", "db.example/relay?user=relay&password=s3cret"), 0o604, True),
        (SERVER.replace(":s3cret", "") + '# url = "postgresql://relay:s3cret@db.example/relay"\n', 0o644, False),
        ("", 0o644, False),
    ],
)
def test_check_warns_of_a_password_that_all_users_can_read(tmp_path: Path, text: str, mode: int, warns: bool) -> None:
    (tmp_path / "relay.toml").touch(mode)
    (tmp_path / "relay.toml").chmod(mode)
    result = check(tmp_path, f'{text}[[peer]]\nname = "p"\nuri = "sip:127.0.0.2"\n[[route]]\npeers = ["p"]\n')
    assert result.exit_code == 0
    assert (f"warning: it holds a password, and all users can read it: chmod o= {tmp_path}" in result.stderr) is warns


@pytest.mark.parametrize("command", ["check", "serve", "verify", "bindings list", "numbers load 70010000001"])
def test_no_command_shows_a_password_that_is_not_encoded(tmp_path: Path, command: str) -> None:
    (tmp_path / "relay.toml").write_text(
        '[store]\nurl = "postgresql://relay:s3cret/wi@th@127.0.0.1:1/relay"\nnode = "n"\n'
        f'key_file = "{tmp_path}/relay.key"\n'
    )
    result = CliRunner().invoke(main, [*command.split(), "-c", str(tmp_path / "relay.toml")])
    assert result.exit_code == 1
    assert (
        'store.url: not as PostgreSQL reads it; write "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"' in result.output
    )
    assert "s3cret" not in result.output and "wi@th" not in result.output


def test_check_names_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        CliRunner()
        .invoke(main, ["check"])
        .stdout.startswith("no config/relay.toml; the built-in configuration is good: ")
    )
    Path("config").mkdir()
    Path("config/relay.toml").write_text("")
    assert CliRunner().invoke(main, ["check"]).stdout.startswith("config/relay.toml is good: ")


def test_all_faults_are_reported_at_once_on_separate_lines(tmp_path: Path) -> None:
    result = check(tmp_path, '[sip]\nt1_ms = 1\nlisten = ["x"]\n')
    assert result.exit_code == 1
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith(f"{tmp_path}/relay.toml: sip.t1_ms: ")
    assert second.startswith(f"{tmp_path}/relay.toml: sip.listen[0]: ")


def test_unusable_tls_files_are_reported(tmp_path: Path) -> None:
    result = check(tmp_path, f'[tls]\ncertificate = "{tmp_path}/c.pem"\nkey = "{tmp_path}/k.pem"\n')
    assert result.exit_code == 1
    assert keys_of(result) == ["tls.certificate", "tls.key"]


def test_unusable_files_of_the_api_and_the_hook_are_reported(tmp_path: Path) -> None:
    api = f'[api]\ncertificate = "{tmp_path}/c.pem"\nkey = "{tmp_path}/k.pem"\n'
    result = check(tmp_path, f'{api}[verify]\nurl = "https://a.example/v"\nsecret_file = "{tmp_path}/s"\n')
    assert result.exit_code == 1
    assert keys_of(result) == ["api.certificate", "api.key", "verify.secret_file"]


def test_a_missing_configuration_is_reported(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["check", "-c", str(tmp_path / "none.toml")])
    assert (result.exit_code, result.stderr) == (
        1,
        f"{tmp_path}/none.toml: cannot be read: No such file or directory\n",
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_takes_a_configuration(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    options = result.stdout
    if "Commands:" in options:  # a group: each of its commands takes it
        options = CliRunner().invoke(main, [command, "list", "--help"]).stdout
    assert "-c FILE" in options


def test_help_lists_the_commands() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert "..." not in result.stdout.partition("Commands:")[2]  # cut short by click
    assert all(f"  {command} " in result.stdout for command in COMMANDS)


@pytest.mark.parametrize("arguments", [["no_such_command"], ["check", "--no-such-option"], ["check", "surplus"]])
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_a_refusal_is_one_line_and_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path | None) -> None:
        raise StoreError("the store is closed")

    monkeypatch.setattr("relay.cli.serve.load_config", refuse)
    result = CliRunner().invoke(main, ["check"])
    assert (result.exit_code, result.stderr) == (1, "the store is closed\n")


def test_a_bug_is_reported_as_a_traceback_with_numbers_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_(path: Path | None) -> None:
        raise ZeroDivisionError("of 13800000001")

    monkeypatch.setattr("relay.cli.serve.load_config", break_)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 1
    assert "ZeroDivisionError: of 138****0001" in result.stderr
    assert "bug in relay700" in result.stderr


def test_the_module_is_the_command() -> None:
    done = subprocess.run([*RELAY700, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("relay700 ")


# -- `relay700 peers`, with answers of a running relay

UP = {"target": "udp:192.0.2.10:5060", "state": "up", "failures": 0, "aside_until": None}
ASIDE = {"target": "udp:192.0.2.11:5060", "state": "aside", "failures": 1, "aside_until": 1_767_225_600_000}
ANSWER = {
    "peers": [
        {"peer": "carrier", "calls_in": 1, "calls_out": 2, "registered": True, "targets": [UP, ASIDE]},
        {"peer": "trunk", "calls_in": 0, "calls_out": 0, "registered": None, "targets": []},
        {"peer": "phone", "calls_in": 0, "calls_out": 0, "registered": False, "targets": []},
    ]
}


@pytest.fixture
def relay(relay700: Command) -> Iterator[Command]:
    """A store with an admin socket."""
    path, _ = relay700.store
    with serving(path, {"peers": lambda: ANSWER}):
        yield relay700


def test_each_target_is_a_line(relay: Command) -> None:
    assert relay.objects("peers", "list") == [
        {"peer": "carrier", **UP, "calls_in": 1, "calls_out": 2, "registered": True},
        {
            **{"peer": "carrier", **ASIDE, "aside_until": "2026-01-01T00:00:00.000Z"},
            **{"calls_in": 1, "calls_out": 2, "registered": True},
        },
        {
            **{"peer": "trunk", "target": None, "state": "no address", "failures": 0, "aside_until": None},
            **{"calls_in": 0, "calls_out": 0, "registered": None},
        },
        {
            **{"peer": "phone", "target": None, "state": "not registered", "failures": 0, "aside_until": None},
            **{"calls_in": 0, "calls_out": 0, "registered": False},
        },
    ]
    heading, first, *_ = relay.done("peers", "list").splitlines()
    assert heading.split() == "peer target state failures aside until calls in calls out registered".split()
    assert first.split() == ["carrier", "udp:192.0.2.10:5060", "up", "0", "-", "1", "2", "yes"]


def test_peers_without_a_relay_are_refused(relay700: Command) -> None:
    assert relay700.refused("peers", "list") == "the relay is not running, or does not answer"


# -- `relay700 bans`, with the real ban table of a relay

BAD, PEER = "192.0.2.66", "192.0.2.10"


@pytest.fixture
def banning(relay700: Command) -> Iterator[Command]:
    """A store with an admin socket."""
    open_store(*relay700.store)
    bans = Bans(Limits())
    bans.spare(lambda: KnownAddresses([], [PEER]))
    with serving(relay700.store[0], BanAnswers(bans).by_name()):
        yield relay700


def test_a_ban_is_added_listed_and_lifted(banning: Command) -> None:
    said = banning.done("bans", "add", BAD, "--for", "1h", "--reason", "case 114")
    (shown,) = banning.objects("bans", "list")
    assert said == f"banned {BAD} until {shown['until']}\n"
    assert (shown["address"], shown["reason"]) == (BAD, "case 114")
    heading, line = banning.done("bans", "list").splitlines()
    assert heading.split() == ["address", "reason", "since", "until"]
    assert line.split() == [BAD, "case", "114", shown["since"], shown["until"]]
    assert banning.done("bans", "lift", BAD) == f"lifted {BAD}\n"
    assert banning.done("bans", "list").splitlines()[1:] == []
    audit = {line["action"]: line for line in banning.objects("audit", "list")}
    assert (audit["ban.add"]["object"], audit["ban.add"]["reason"]) == (BAD, "case 114")
    assert audit["ban.lift"]["object"] == BAD


def test_lift_all_lifts_every_ban(banning: Command) -> None:
    for address in (BAD, "2001:db8::/64"):
        banning.done("bans", "add", address, "--for", "1h")
    assert banning.done("bans", "lift", "--all").splitlines() == [f"lifted {BAD}", "lifted 2001:db8::/64"]


def test_peers_and_unknown_or_invalid_addresses_are_refused(banning: Command) -> None:
    assert "remove the peer from the configuration" in banning.refused("bans", "add", PEER, "--for", "1h")
    assert "not an address" in banning.refused("bans", "add", "carrier.example", "--for", "1h")
    assert "not banned" in banning.refused("bans", "lift", BAD)
    assert [line["action"] for line in banning.objects("audit", "list")] == ["prefix.load"]


@pytest.mark.parametrize("arguments", [(), (BAD, "--all")])
def test_lift_needs_either_an_address_or_all(usage: Callable[..., str], arguments: tuple[str, ...]) -> None:
    assert "give either ADDRESS or --all" in usage("bans", "lift", *arguments)


def test_bans_without_a_relay_are_refused(relay700: Command) -> None:
    assert relay700.refused("bans", "list") == "the relay is not running, or does not answer"
