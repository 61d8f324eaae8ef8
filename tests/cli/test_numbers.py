"""`relay700 numbers` and `pools`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.conftest import Command
from tests.support.places import FEW
from tests.support.stored import PREFIX, X, Y

OTHER = "70020000002"
AB = ("bind", "AXB", "--a", "8001", "--b", "8002", "--expires-in", "2h")


@pytest.fixture
def loaded(relay700: Command) -> Command:
    """A store with the configured prefix, and acme's pool with a second prefix."""
    with (relay700.folder / "relay.toml").open("a") as config:
        config.write('[[peer]]\nname = "carrier"\nuri = "sip:127.0.0.2"\n')
    relay700.done("business", "apply", "acme", "--name", "Acme")
    relay700.done("pools", "make", "acme-bj", "--business", "acme", "--area", "beijing", "--max-bindings", "1")
    relay700.done("numbers", "load", OTHER, "--pool", "acme-bj", "--peer", "carrier", "--cool-down", "12h")
    return relay700


def test_a_prefix_loads_ten_thousand_numbers(loaded: Command) -> None:
    first, second = loaded.objects("numbers", "prefixes")
    assert (first["prefix"], first["cool_down_s"], first["state"]) == (PREFIX, None, "active")
    assert (second["prefix"], second["operator"], second["platform"]) == (OTHER, "2", "0000002")
    assert (second["peer"], second["cool_down_s"]) == ("carrier", 43_200)
    assert loaded.refused("numbers", "load", OTHER) == "prefix: already loaded"
    assert len(loaded.objects("numbers", "list", "--pool", "acme-bj")) == 10_000


def test_numbers_show_their_state(loaded: Command) -> None:
    loaded.done(*AB, "--x", X)
    loaded.done("numbers", "lock", Y, "--reason", "carrier asks")
    (bound,) = loaded.objects("numbers", "show", X)
    assert (bound["state"], bound["bindings"], bound["locked_by"], bound["cools_until"]) == ("bound", 1, [], None)
    (locked,) = loaded.objects("numbers", "list", "--state", "locked")
    assert (locked["number"], locked["locked_by"]) == (Y, ["operator"])
    (made,) = loaded.objects("bindings", "list")
    loaded.done("unbind", made["binding_id"])
    (cooling,) = loaded.objects("numbers", "list", "--state", "cooling")
    assert cooling["number"] == X and cooling["cools_until"] is not None
    assert "cooling" in loaded.done("numbers", "list", "--prefix", X)


def test_a_locked_number_is_not_bound_until_it_is_unlocked(loaded: Command, usage: Callable[..., str]) -> None:
    assert "--reason" in usage("numbers", "lock", X)
    assert loaded.done("numbers", "lock", X, "--reason", "misuse") == f"{X} is locked\n"
    assert loaded.refused(*AB, "--x", X).startswith("x: the number is locked")
    assert "--reason" in usage("numbers", "unlock", X)
    assert loaded.done("numbers", "unlock", X, "--reason", "checked") == f"{X} is free\n"
    loaded.done(*AB, "--x", X)
    reasons = [entry["reason"] for entry in loaded.objects("audit", "list", "--object", X)]
    assert reasons == ["checked", "misuse"]


def test_a_prefix_is_locked_with_all_its_numbers(loaded: Command) -> None:
    (changed,) = loaded.objects("numbers", "prefix", OTHER, "--state", "locked", "--cool-down", "none")
    assert (changed["state"], changed["cool_down_s"], changed["peer"]) == ("locked", None, "carrier")
    (usage,) = [each for each in loaded.objects("pools", "usage") if each["pool"] == "acme-bj"]
    assert (usage["total"], usage["locked"], usage["free"]) == (10_000, 10_000, 0)


def test_numbers_move_between_pools(loaded: Command) -> None:
    assert loaded.done("numbers", "move", X, Y, "--pool", "acme-bj") == "2 moved\n"
    assert loaded.objects("numbers", "show", X)[0]["pool"] == "acme-bj"


def test_the_rest_after_a_restore_is_ended_with_a_reason(loaded: Command, usage: Callable[..., str]) -> None:
    assert "--reason" in usage("numbers", "end-rest")
    assert loaded.done("numbers", "end-rest", "--reason", "nothing was bound since") == "0 numbers rest no longer\n"
    (line,) = loaded.objects("audit", "list", "--action", "number.end_rest")
    assert (line["reason"], line["details"]) == ("nothing was bound since", {"rested": 0})


def test_pools_are_made_and_changed_and_warn_before_they_are_empty(loaded: Command) -> None:
    (changed,) = loaded.objects("pools", "change", "acme-bj", "--warn-percent", "1")
    assert (changed["id"], changed["business"], changed["area"]) == ("acme-bj", "acme", "beijing")
    assert (changed["max_bindings"], changed["warn_percent"]) == (1, 1)
    assert {pool["id"] for pool in loaded.objects("pools", "list")} >= {"default", "acme-bj"}
    usage = {each["pool"]: each for each in loaded.objects("pools", "usage")}
    assert (usage["default"]["free"], usage["default"]["warning"]) == (FEW, False)


def test_a_pool_is_shown_and_given_to_another(loaded: Command) -> None:
    loaded.done("business", "apply", "other", "--name", "Other")
    assert loaded.objects("pools", "change", "acme-bj", "--business", "other")[0]["business"] == "other"
    assert loaded.objects("pools", "change", "acme-bj", "--business", "none")[0]["business"] is None
    loaded.done("pools", "change", "acme-bj", "--business", "other")
    assert loaded.objects("pools", "change", "acme-bj", "--business", "")[0]["business"] is None
    assert [
        loaded.objects("pools", "make", f"p{owner}", "--business", owner)[0]["business"] for owner in ("", "none")
    ] == [None, None]
    (shown,) = loaded.objects("pools", "show", "acme-bj")
    assert (shown["id"], shown["business"], shown["area"], shown["max_bindings"]) == ("acme-bj", None, "beijing", 1)
    assert loaded.refused("pools", "show", "none").startswith("there is no such pool")


def test_an_unknown_number_is_status_1(loaded: Command) -> None:
    assert loaded.refused("numbers", "show", "700999999999999").startswith("not a number of this platform")
    assert loaded.refused("numbers", "prefix", "70099999999", "--peer", "x").startswith("prefix: not loaded")
    assert loaded.refused("pools", "change", "none") == "pool: there is no such pool"


def test_an_unknown_peer_is_refused_with_the_known_ones(loaded: Command) -> None:
    said = "peer: the configuration has no [[peer]] of that name: it has carrier"
    assert loaded.refused("numbers", "load", "70030000003", "--peer", "carier") == said
    assert loaded.refused("numbers", "prefix", OTHER, "--peer", "carier") == said
    assert [line["prefix"] for line in loaded.objects("numbers", "prefixes")] == [PREFIX, OTHER]
    loaded.done("numbers", "prefix", OTHER, "--peer", "")
