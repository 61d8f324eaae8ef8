"""`relay700 explain`, with and without a running relay."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

from relay.errors import Refused
from relay.store.configurations import put_configuration
from relay.store.database import open_store
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.cli.conftest import Command, serving
from tests.support.shelf import REFUSED, Shelf, call
from tests.support.stored import NOW_MS, A, B, X, binding, put

C = "8613700000003"
PEER = """
[[peer]]
name = "carrier"
uri = "sip:127.0.0.2:5060;transport=udp"
sources = ["127.0.0.2/32"]
numbers = "any"
[[route]]
prefix = ""
peers = ["carrier"]
"""


def bind(relay700: Command) -> None:
    file = relay700.folder / "relay.toml"
    file.write_text(file.read_text() + PEER)
    path, key_file = relay700.store
    put(path, open_store(path, key_file), binding())


def test_a_refused_call_is_explained_check_by_check(relay700: Command) -> None:
    bind(relay700)
    text = relay700.done("explain", "--caller", "13700000003", "--dialled", X)
    lines = text.splitlines()
    assert lines[0].startswith(f"137****0003 dials {X} at 2")
    assert lines[0].endswith(", by the store: the relay does not run")
    assert "number               pass            not locked or held" in lines
    assert "binding              fail            none of this caller on this number" in text
    assert "business             not reached" in text
    assert lines[-1] == "refused: no_binding, SIP 403, Q.850 cause 21"


def test_a_granted_call_shows_what_each_side_sees_and_no_real_number(relay700: Command) -> None:
    bind(relay700)
    text = relay700.done("explain", "--caller", A, "--dialled", X)
    assert text.splitlines()[-4:-2] == ["granted: 139****0002 is called", f"the caller sees {X}, the callee {X}"]
    assert text.splitlines()[-1].split() == ["carrier", "udp:127.0.0.2:5060", "not", "known"]
    assert "limits of the relay  not known       the relay does not run" in text
    assert not [number for number in (A, B) if number[2:] in text]


def test_an_anonymous_caller_and_an_unknown_peer(relay700: Command, usage: Callable[..., str]) -> None:
    bind(relay700)
    (told,) = relay700.objects("explain", "--caller", "anonymous", "--dialled", X)
    assert (told["caller"], told["outcome"], told["sip_status"]) == ("", "caller_anonymous", 433)
    assert relay700.refused("explain", "--caller", A, "--dialled", X, "--peer", "nobody").startswith(
        "peer: there is no"
    )
    assert "--caller" in usage("explain", "--dialled", X)


def test_a_running_relay_answers(relay700: Command) -> None:
    bind(relay700)
    asked: list[dict[str, Any]] = []
    (told,) = relay700.objects("explain", "--caller", A, "--dialled", X)

    def explain(**fields: Any) -> dict[str, Any]:
        asked.append(fields)
        if fields["peer"] == "nobody":
            raise Refused("not_found", "peer", "there is no peer nobody")
        target = {"peer": "carrier", "target": "udp:127.0.0.2:5060", "state": "up", "is_full": True}
        return told | {"source": "relay", "peer": "pbx", "retry_after_s": 5, "targets": [target]}

    with serving(relay700.store[0], {"explain": explain}):
        text = relay700.done("explain", "--caller", A, "--dialled", X, "--peer", "pbx")
        assert "there is no peer nobody" in relay700.refused(
            "explain", "--caller", A, "--dialled", X, "--peer", "nobody"
        )
    assert asked[0] == {"number": X, "caller": A, "peer": "pbx"}
    assert " by peer pbx at " in text and "by the running relay" in text
    assert text.splitlines()[-1].split() == ["carrier", "udp:127.0.0.2:5060", "at", "its", "limit"]


def test_a_past_call_is_explained_by_the_configuration_and_the_binding_of_then(
    relay700: Command, usage: Callable[..., str]
) -> None:
    bind(relay700)
    path, key_file = relay700.store
    sealer = open_store(path, key_file)
    file = relay700.folder / "relay.toml"
    with closing(Writer(path, sealer, clock_ms=lambda: NOW_MS)) as writer:
        text = file.read_text() + '[policy]\nhours = "09:00-10:00"\n'
        writer.run(RELAY, lambda unit: put_configuration(unit, "", text))
    (told,) = relay700.objects("explain", "--caller", A, "--dialled", X, "--at", "2026-01-01T00:00:05Z")
    assert (told["outcome"], told["source"], told["at"]) == ("outside_hours", "history", "2026-01-01T00:00:05.000Z")
    assert [check["figures"] for check in told["checks"] if check["name"] == "hours"] == [
        "hours 09:00-10:00, now 08:00 in China"
    ]
    text = relay700.done("explain", "--caller", A, "--dialled", X, "--at", "2026-01-01T01:30:00Z")
    assert "note: the configuration is the one in force since 2026-01-01T00:00:00.000Z" in text
    assert "limits of the relay  not known       not kept for a past time" in text
    assert "granted: 139****0002 is called" in text
    (told,) = relay700.objects("explain", "--caller", A, "--dialled", X, "--at", "2025-12-31T23:59:59Z")
    assert told["outcome"] == "no_binding" and "none was kept" in told["notes"][0]
    assert "future" in usage("explain", "--caller", A, "--dialled", X, "--at", "2099-01-01T00:00:00Z")


def test_a_recorded_call_is_explained_by_its_id(relay700: Command, usage: Callable[..., str]) -> None:
    bind(relay700)
    path, key_file = relay700.store
    shelf = Shelf(path, open_store(path, key_file))
    shelf.add(*(call(n, peer_in="carrier", decided_by="hook" if n == 2 else None) for n in range(4)))
    shelf.connection.close()
    (told,) = relay700.objects("explain", "--call", "c3")
    assert (told["number_dialled"], told["caller"], told["peer"]) == (X, "138****0001", "carrier")
    assert (told["at"], told["outcome"]) == ("2026-01-01T00:00:03.000Z", "frequency_caller")
    assert told["recorded"] == {"outcome": "answered", "sip_status": 200, "end_reason": "bye", "decided_by": None}
    text = relay700.done("explain", "--call", "c2")
    assert (
        "recorded: answered, SIP 200, end reason bye, by the business user's hook\n" in text
        and "granted: 139****0002 is called" in text
    )
    assert not [number for number in (A, B) if number[2:] in text]
    assert relay700.refused("explain", "--call", "c9").startswith("there is no such call")
    assert "--call" in usage("explain", "--call", "c3", "--caller", A)


def test_a_recorded_call_that_failed_after_the_checks_is_not_said_to_go_on(relay700: Command) -> None:
    bind(relay700)
    path, key_file = relay700.store
    shelf = Shelf(path, open_store(path, key_file))
    failed = {"outcome": "failed", "sip_status": 503, "end_reason": "lost_at_restart"}
    shelf.add(call(0, peer_in="carrier", **failed))
    shelf.connection.close()
    lines = relay700.done("explain", "--call", "c0").splitlines()
    assert "recorded: failed, SIP 503, end reason lost_at_restart" in lines
    assert (
        "no check refuses it, 139****0002 was to be called: what is recorded ended it afterwards" in lines
        and "granted: 139****0002 is called" not in lines
    )


def test_a_recorded_call_of_an_unknown_source_is_refused_as_it_was(relay700: Command) -> None:
    bind(relay700)
    path, key_file = relay700.store
    shelf = Shelf(path, open_store(path, key_file))
    stranger = {"peer_in": "", "outcome": "caller_not_allowed", "sip_status": 403, **REFUSED}
    shelf.add(call(0, source="udp:127.0.0.9:5060", **stranger), call(1, number_dialled="", **stranger))
    shelf.connection.close()
    text = relay700.done("explain", "--call", "c0")
    assert "source               fail         udp:127.0.0.9:5060 is in no peer's sources" in text
    assert "recorded: caller_not_allowed, SIP 403" in text
    assert text.splitlines()[-1] == "refused: caller_not_allowed, SIP 403, Q.850 cause 21"
    assert "138****0001 dials something that is no number at 2" in relay700.done("explain", "--call", "c1")
    (told,) = relay700.objects("explain", "--call", "c1")
    assert {check["verdict"] for check in told["checks"]} == {"fail", "not reached"}


def test_another_policy_is_tried_on_the_recorded_attempts(relay700: Command, usage: Callable[..., str]) -> None:
    bind(relay700)
    path, key_file = relay700.store
    other = relay700.folder / "other.toml"
    other.write_text(PEER.replace("carrier", "pbx") + '[policy]\nhours = "09:00-10:00"\n')
    shelf = Shelf(path, open_store(path, key_file))
    shelf.add(call(0), call(1), call(2, outcome="draining", **REFUSED), call(5_400))
    shelf.connection.close()
    asked = ("explain", "--policy", str(other), "--since", "2026-01-01T00:00:00Z")
    (told,) = relay700.objects(*asked)
    assert (told["attempts"], told["unchanged"]) == (4, 1)
    assert told["newly_refused"] == {"outside_hours": 2}
    assert (told["no_longer_refused"], told["not_replayed"]) == ({}, {"draining": 1})
    text = relay700.done(*asked)
    lines = [line.split() for line in text.splitlines()]
    assert lines[0][:5] == ["4", "attempts", "from", "2026-01-01T00:00:00.000Z", "to"]
    assert ["newly", "refused", "2"] in lines and ["outside_hours", "2"] in lines
    assert "note: hooks, media, targets, overload and restarts are not replayed" in text
    assert not [number for number in (A, B) if number[2:] in text]
    for wrong in (("--policy", str(other)), ("--since", "7d"), (*asked[1:], "--caller", A), ()):
        assert "--policy" in usage("explain", *wrong)
