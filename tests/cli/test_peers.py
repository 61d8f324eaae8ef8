"""`relay700 peers`, with answers of a running relay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.conftest import Command, serving

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
    """A store with a control socket."""
    path, _ = relay700.store
    path.parent.mkdir()
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
    relay700.store[0].parent.mkdir()
    assert relay700.refused("peers", "list") == "the relay is not running, or does not answer"
