"""`relay700 peers`, with answers of a running relay."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from relay.defence.bans import Bans, Known
from relay.model.settings import Limits
from relay.net.control import BanAnswers
from relay.store.database import open_store
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


# -- `relay700 bans`, with the real ban table of a relay

BAD, PEER = "192.0.2.66", "192.0.2.10"


@pytest.fixture
def banning(relay700: Command) -> Iterator[Command]:
    """A store with a control socket."""
    relay700.store[0].parent.mkdir()
    open_store(*relay700.store)
    bans = Bans(Limits())
    bans.spare(lambda: Known([], [PEER]))
    with serving(relay700.store[0], BanAnswers(bans).by_name()):
        yield relay700


def test_a_ban_is_added_listed_and_lifted(banning: Command) -> None:
    said = banning.done("bans", "add", BAD, "--for", "1h", "--reason", "case 114")
    (shown,) = banning.objects("bans", "list")
    assert said == f"banned {BAD} until {shown['until']}\n"
    assert (shown["address"], shown["reason"]) == (BAD, "operator")
    heading, line = banning.done("bans", "list").splitlines()
    assert heading.split() == ["address", "reason", "since", "until"]
    assert line.split() == [BAD, "operator", shown["since"], shown["until"]]
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
    assert banning.objects("audit", "list") == []


@pytest.mark.parametrize("arguments", [(), (BAD, "--all")])
def test_lift_needs_either_an_address_or_all(usage: Callable[..., str], arguments: tuple[str, ...]) -> None:
    assert "give either ADDRESS or --all" in usage("bans", "lift", *arguments)


def test_bans_without_a_relay_are_refused(relay700: Command) -> None:
    relay700.store[0].parent.mkdir()
    assert relay700.refused("bans", "list") == "the relay is not running, or does not answer"
