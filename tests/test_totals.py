"""The answers of several workers as one."""

from __future__ import annotations

from typing import Any

import pytest

from relay.errors import Refused
from relay.totals import all_live, all_peers, all_statistics, who_has_it

GONE = Refused("relay_unavailable", "", "worker 1 does not answer")


def peer(**fields: Any) -> dict[str, Any]:
    return {"peer": "trunk", "calls_in": 1, "calls_out": 2, "registered": None, "targets": []} | fields


def target(name: str, state: str) -> dict[str, Any]:
    return {"target": name, "state": state, "failures": 0, "aside_until": None}


def test_counts_are_added_up_by_their_names() -> None:
    one = {"calls_up": 2, "bugs": 0, "refused": {"busy": 1, "no_binding": 2}}
    other = {"calls_up": 3, "bugs": 1, "refused": {"no_binding": 5}, "verifications": {"granted": 1}}
    assert all_statistics([one, other]) == {
        "workers_absent": 0,
        "calls_up": 5,
        "bugs": 1,
        "refused": {"busy": 1, "no_binding": 7},
        "verifications": {"granted": 1},
    }


def test_the_longest_lag_counts() -> None:
    assert all_statistics([{"loop_lag_seconds": 0.2}, {"loop_lag_seconds": 0.5}])["loop_lag_seconds"] == 0.5


def test_a_ban_is_one_though_all_go_by_it() -> None:
    total = all_statistics([{"bans": 1, "bans_made": 3}, {"bans": 1, "bans_made": 1}])
    assert (total["bans"], total["bans_made"]) == (1, 3)


def test_a_target_is_up_where_all_find_it_up_and_a_peer_registered_where_one_does() -> None:
    one = {"target_up": {"trunk udp:a": 1, "trunk udp:b": 1}, "peer_registered": {"branch": 0}}
    other = {"target_up": {"trunk udp:a": 0, "trunk udp:b": 1}, "peer_registered": {"branch": 1}}
    total = all_statistics([one, other])
    assert total["target_up"] == {"trunk udp:a": 0, "trunk udp:b": 1}
    assert total["peer_registered"] == {"branch": 1}


def test_a_worker_that_is_being_replaced_counts_nothing_and_is_told() -> None:
    assert all_statistics([{"calls_up": 2}, GONE]) == {"calls_up": 2, "workers_absent": 1}
    assert all_live([{"calls": [], "total": 0}, GONE])["workers_absent"] == 1
    with pytest.raises(Refused, match="worker 1"):
        all_statistics([GONE])


def test_live_calls_come_newest_first_and_no_more_than_asked_for() -> None:
    one = {"calls": [{"received_at": "3"}, {"received_at": "1"}], "total": 2}
    other = {"calls": [{"received_at": "2"}], "total": 7}
    assert all_live([one, other], most=2) == {
        "calls": [{"received_at": "3"}, {"received_at": "2"}],
        "total": 9,
        "workers_absent": 0,
    }


def test_a_peers_calls_are_added_up_and_its_targets_shown_as_the_worst_finds_them() -> None:
    one = {"peers": [peer(targets=[target("a", "up"), target("b", "aside")], registered=False)]}
    other = {"peers": [peer(targets=[target("a", "down"), target("b", "up")], registered=True)]}
    (shown,) = all_peers([one, other])["peers"]
    assert (shown["calls_in"], shown["calls_out"], shown["registered"]) == (2, 4, True)
    assert [each["state"] for each in shown["targets"]] == ["down", "aside"]
    assert all_peers([{"peers": [peer()]}, {"peers": [peer()]}])["peers"][0]["registered"] is None


def test_a_call_is_hung_up_by_the_worker_that_has_it() -> None:
    unknown = Refused("not_found", "call_id", "no such call is up")
    assert who_has_it([unknown, {"call_id": "c"}], call_id="c") == {"call_id": "c"}
    for answers, kind in (([unknown, unknown], "not_found"), ([unknown, GONE], "relay_unavailable")):
        with pytest.raises(Refused) as refused:
            who_has_it(answers, call_id="c")
        assert refused.value.kind == kind


def test_peers_are_told_by_their_names_also_within_a_reload() -> None:
    one = {"peers": [peer(), peer(peer="new", calls_in=5)]}
    other = {"peers": [peer(peer="new", calls_in=7), peer(peer="former")]}
    assert {each["peer"]: each["calls_in"] for each in all_peers([one, other])["peers"]} == {
        "trunk": 1,
        "new": 12,
        "former": 1,
    }
