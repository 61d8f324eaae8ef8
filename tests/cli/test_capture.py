"""`relay700 capture`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.conftest import Command


@pytest.fixture
def served(relay700: Command) -> Command:
    config = relay700.folder / "relay.toml"
    config.write_text(config.read_text() + '[[peer]]\nname = "pbx"\nuri = "sip:127.0.0.2"\nnumbers = "any"\n')
    relay700.done("bind", "AXB", "--a", "13800000001", "--b", "13900000002", "--expires-in", "2h")
    return relay700


def test_arm_list_and_disarm(served: Command) -> None:
    assert served.done("capture", "list").count("\n") == 1  # the heading
    served.done("capture", "arm", "--number", "13800000001", "--for", "1h")
    (armed,) = served.objects("capture", "arm", "--peer", "pbx", "--for", "30m")
    assert (armed["kind"], armed["value"], armed["armed_by"].split(":")[0]) == ("peer", "pbx", "cli")
    listed = served.objects("capture", "list")
    assert sorted(each["value"] for each in listed) == ["138****0001", "pbx"]
    assert "13800000001" not in served.done("capture", "list")
    assert served.done("capture", "disarm", armed["id"]) == f"disarmed {armed['id']}\n"
    assert served.refused("capture", "disarm", armed["id"]) == "nothing is armed under this id"
    assert len(served.objects("capture", "list")) == 1
    actions = [entry["action"] for entry in served.objects("audit", "list")]
    assert actions[:3] == ["capture.disarm", "capture.arm", "capture.arm"]


def test_what_cannot_be_armed_is_refused(served: Command, usage: Callable[..., str]) -> None:
    assert "there is no such peer; write one of pbx" in served.refused("capture", "arm", "--peer", "x", "--for", "1h")
    assert "write one of --number, --business and --peer" in usage("capture", "arm", "--for", "1h")
    assert "Missing option '--for'" in usage("capture", "arm", "--peer", "pbx")
    assert "not a duration" in usage("capture", "arm", "--peer", "pbx", "--for", "soon")
    assert "for_s: must be at most 604800" in served.refused("capture", "arm", "--peer", "pbx", "--for", "8d")
    config = served.folder / "relay.toml"
    config.write_text(f'{config.read_text()}\n[capture]\nkeep = "off"\n')
    assert served.refused("capture", "arm", "--peer", "pbx", "--for", "1h").startswith("nothing is captured: ")
