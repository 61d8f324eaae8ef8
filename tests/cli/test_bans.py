"""`relay700 bans`, with the real ban table of a relay."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from relay.defence.bans import Bans, Known
from relay.model.settings import Limits
from relay.net.control import BanAnswers
from relay.store.database import open_store
from tests.cli.conftest import Command, serving

BAD, PEER = "192.0.2.66", "192.0.2.10"


@pytest.fixture
def relay(relay700: Command) -> Iterator[Command]:
    """A store with a control socket."""
    relay700.store[0].parent.mkdir()
    open_store(*relay700.store)
    bans = Bans(Limits())
    bans.spare(lambda: Known([], [PEER]))
    with serving(relay700.store[0], BanAnswers(bans).by_name()):
        yield relay700


def test_a_ban_is_added_listed_and_lifted(relay: Command) -> None:
    said = relay.done("bans", "add", BAD, "--for", "1h", "--reason", "case 114")
    (shown,) = relay.objects("bans", "list")
    assert said == f"banned {BAD} until {shown['until']}\n"
    assert (shown["address"], shown["reason"]) == (BAD, "operator")
    heading, line = relay.done("bans", "list").splitlines()
    assert heading.split() == ["address", "reason", "since", "until"]
    assert line.split() == [BAD, "operator", shown["since"], shown["until"]]
    assert relay.done("bans", "lift", BAD) == f"lifted {BAD}\n"
    assert relay.done("bans", "list").splitlines()[1:] == []
    audit = {line["action"]: line for line in relay.objects("audit", "list")}
    assert (audit["ban.add"]["object"], audit["ban.add"]["reason"]) == (BAD, "case 114")
    assert audit["ban.lift"]["object"] == BAD


def test_lift_all_lifts_every_ban(relay: Command) -> None:
    for address in (BAD, "2001:db8::/64"):
        relay.done("bans", "add", address, "--for", "1h")
    assert relay.done("bans", "lift", "--all").splitlines() == [f"lifted {BAD}", "lifted 2001:db8::/64"]


def test_peers_and_unknown_or_invalid_addresses_are_refused(relay: Command) -> None:
    assert "remove the peer from the configuration" in relay.refused("bans", "add", PEER, "--for", "1h")
    assert "not an address" in relay.refused("bans", "add", "carrier.example", "--for", "1h")
    assert "not banned" in relay.refused("bans", "lift", BAD)
    assert relay.objects("audit", "list") == []


@pytest.mark.parametrize("arguments", [(), (BAD, "--all")])
def test_lift_needs_either_an_address_or_all(usage: Callable[..., str], arguments: tuple[str, ...]) -> None:
    assert "give either ADDRESS or --all" in usage("bans", "lift", *arguments)


def test_bans_without_a_relay_are_refused(relay700: Command) -> None:
    relay700.store[0].parent.mkdir()
    assert relay700.refused("bans", "list") == "the relay is not running, or does not answer"
