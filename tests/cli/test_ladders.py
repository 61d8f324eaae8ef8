"""`relay700 calls ladder`."""

from __future__ import annotations

from contextlib import closing

import pytest

from relay.model.capture import CapturedCall
from relay.store.captures import Captures
from relay.store.database import open_store
from tests.cli.conftest import Command, serving
from tests.cli.test_calls import write
from tests.ladder.settings import CALLER_HOST
from tests.support.stored import A, B, ended_record, live_record
from tests.trace.test_ladder_join import basic

CALL = "a" * 32


@pytest.fixture(scope="module")
def captured() -> CapturedCall:
    return basic().captured()._replace(call_id=CALL)


@pytest.fixture
def kept(relay700: Command, captured: CapturedCall) -> None:
    """An ended call and its capture."""
    write(relay700, ended_record(CALL))
    save(relay700, captured)


def save(relay700: Command, captured: CapturedCall) -> None:
    path, key_file = relay700.store
    with closing(Captures(path, open_store(path, key_file))) as captures:
        captures.save([captured])


@pytest.mark.usefixtures("kept")
def test_ladder_is_drawn_masked(relay700: Command) -> None:
    text = relay700.done("calls", "ladder", CALL)
    assert "│── INVITE ──────────────────────▶│" in text
    assert "138****0001 dialled" in text
    assert "Via: " not in text
    assert "sip:139****0002@198.51.100.1" in relay700.done("calls", "ladder", CALL, "--messages")
    assert not [
        word for word in (A[2:], B[2:], CALLER_HOST) if word in relay700.done("calls", "ladder", CALL, "--json")
    ]


@pytest.mark.usefixtures("kept")
def test_reveal_requires_a_reason_and_is_audited(relay700: Command, captured: CapturedCall) -> None:
    assert relay700.run("calls", "ladder", CALL, "--reveal").exit_code == 2
    text = relay700.done("calls", "ladder", CALL, "--messages", "--reveal", "--reason", "case 7")
    assert f"sip:{B[2:]}@" in text
    (ladder,) = relay700.objects("calls", "ladder", CALL)
    assert [each["text"] for each in ladder["messages"]] == [each.data.decode() for each in captured.messages]
    audit = relay700.objects("audit", "list")
    assert [(line["object"], line["reason"]) for line in audit if line["action"] == "read"] == [
        (f"ladder {CALL}", "test"),
        (f"ladder {CALL}", "case 7"),
    ]


@pytest.mark.usefixtures("kept")
def test_files_are_private_and_masked(relay700: Command) -> None:
    html, pcap = relay700.folder / "call.html", relay700.folder / "call.pcap"
    assert relay700.done("calls", "ladder", CALL, "--html", str(html), "--pcap", str(pcap)) == ""
    for file in (html, pcap):
        assert file.stat().st_mode & 0o777 == 0o600
        assert A[2:].encode() not in file.read_bytes()
    assert html.read_text().startswith("<!doctype html>")
    html.chmod(0o644)
    relay700.done("calls", "ladder", CALL, "--html", str(html), "--reveal", "--reason", "case 7")
    assert html.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("kept")
def test_no_color_and_a_terminal_without_utf8(relay700: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from relay.cli import main

    asked = ["calls", "ladder", CALL, "-c", str(relay700.folder / "relay.toml")]
    assert "\x1b[" in CliRunner().invoke(main, asked, color=True).output
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in CliRunner().invoke(main, asked, color=True).output
    assert "|-- INVITE ---" in CliRunner(charset="ascii").invoke(main, asked).output


def test_a_call_without_capture_says_why(relay700: Command) -> None:
    write(relay700, ended_record(CALL, outcome="busy"), live_record("b" * 32))
    assert "captures are deleted after 7d" in relay700.refused("calls", "ladder", CALL)
    assert "the call is not over" in relay700.refused("calls", "ladder", "b" * 32)
    assert "there is no such call" in relay700.refused("calls", "ladder", "c" * 32)
    assert "capture arm --peer" in relay700.refused("calls", "ladder", "register:carrier")


def test_a_ringing_call_is_known_to_the_relay_only(relay700: Command) -> None:
    write(relay700, ended_record("b" * 32))
    live = ended_record(CALL, ended_at=None, outcome=None)._asdict()
    with serving(relay700.store[0], {"call": lambda **_: live}):
        assert "the call is not over" in relay700.refused("calls", "ladder", CALL)


def test_registrations_of_a_peer(relay700: Command, captured: CapturedCall) -> None:
    write(relay700, ended_record("b" * 32))
    save(relay700, captured._replace(call_id="register:carrier"))
    assert "register:carrier" in relay700.done("calls", "ladder", "register:carrier")
