"""Explanations for output, and those made from the store alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from relay.errors import Refused
from relay.model.call import Refusal
from relay.model.outcomes import STORE_FAILED
from relay.policy.explain import TrialCall, explain
from relay.policy.figures import CapCounts
from relay.policy.rules import Cap, Rules
from relay.reports.explain import (
    PolicyConfiguration,
    counts_at,
    explain_at,
    explain_by_store,
    explanation_form,
    only_of,
    peer_named,
)
from relay.reports.what_if import what_if
from relay.store.connection import Place
from relay.store.database import connect_reader
from relay.store.sealing.sealer import Sealer
from tests.ladder.settings import settings_for
from tests.policy.cases import NOW_S, C, found
from tests.support.places import new_server_store, new_store
from tests.support.postgres import drop
from tests.support.shelf import Shelf, call
from tests.support.stored import NOW_MS, A, B, X, Y, binding, put

SETTINGS = settings_for()


class Store(NamedTuple):
    path: Place
    sealer: Sealer
    shelf: Shelf


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    path = tmp_path / "relay.db"
    sealer = new_store(path, tmp_path / "relay.key")
    shelf = Shelf(path, sealer)
    yield Store(path, sealer, shelf)
    shelf.connection.close()


def explained(store: Store, number: str = X, caller: str = A, *, after_s: float = 60.0, **rules: Any) -> dict[str, Any]:
    asked = TrialCall(number, caller, NOW_S + after_s)
    return explain_by_store(store.path, store.sealer, Rules(**rules), SETTINGS, asked)


def figures(told: dict[str, Any], name: str) -> str:
    return next(check["figures"] for check in told["checks"] if check["name"] == name)


def test_a_call_is_explained_by_the_store(store: Store) -> None:
    put(store.path, store.sealer, binding(expires_at=NOW_MS + 100_000))
    told = explained(store)
    assert (told["outcome"], told["callee"], told["callee_sees"], told["binding_id"]) == (
        "granted",
        "139****0002",
        X,
        "b1",
    )
    assert (told["source"], told["at"]) == ("store", "2026-01-01T00:01:00.000Z")
    assert figures(told, "binding in force") == "expires 2026-01-01T00:01:40Z"
    told = explained(store, after_s=100.0)
    assert (told["outcome"], told["sip_status"], told["q850_cause"], told["callee"]) == ("expired", 403, 21, None)
    assert explained(store, Y)["outcome"] == "number_unknown"
    assert explained(store, caller=C)["outcome"] == "no_binding"


def test_granted_calls_count_by_their_records(store: Store) -> None:
    put(store.path, store.sealer, binding())
    caps = (Cap(3, 300), Cap(9, 3_600))
    store.shelf.add(call(0), call(100), call(200, caller=B), call(210, routed_at=None), call(220, number_dialled=Y))
    store.shelf.add(call(400), call(230, routed_at=None, outcome="number_in_text"))
    with connect_reader(store.path) as connection:  # type: ignore[attr-defined]
        counts = counts_at(
            connection, store.sealer, Rules(caller_caps=caps, number_caps=caps), TrialCall(X, A, NOW_S + 390)
        )
    assert counts == CapCounts([2, 3], [3, 4])
    told = explained(store, after_s=390.0, caller_caps=(Cap(1, 300),))
    assert (told["outcome"], figures(told, "frequency caps")) == ("frequency_caller", "caller 1 per 5 min: 2 used")


def test_a_business_user_sees_nothing_of_others_and_of_peers() -> None:
    case = found()
    assert only_of(case, None) is case
    assert only_of(case, "firm") is case
    assert only_of(STORE_FAILED, "firm") is STORE_FAILED
    hidden = only_of(case, "other")
    assert not isinstance(hidden, Refusal) and hidden.bound is None and not hidden.is_own
    asked = TrialCall(X, A, NOW_S, SETTINGS.peers[0])
    told = explain(asked, case, Rules(), SETTINGS, None, counts=CapCounts())
    shown = explanation_form(asked, told, "relay", for_operator=False)
    assert "carrier" not in str(shown) and "pbx" not in str(shown["targets"])
    assert shown["targets"] == [] and figures(shown, "source") == ""
    asked = TrialCall(X, A, NOW_S, unknown_source="udp:127.0.0.9:5060")
    told = explain(asked, case, Rules(), SETTINGS, None, counts=CapCounts())
    assert "127.0.0.9" in str(explanation_form(asked, told, "history"))
    assert "127.0.0.9" not in str(explanation_form(asked, told, "history", for_operator=False))
    told = explain(TrialCall(X, A, NOW_S), case, Rules(), SETTINGS, None, counts=CapCounts())
    assert figures(explanation_form(asked, told, "relay", for_operator=False), "source") == "no peer given"


def test_no_real_number_is_in_an_explanation() -> None:
    for caller, case in ((A, found()), (C, found(last_caller=C, mode="GXB", party="b")), (A, found(entry="black"))):
        asked = TrialCall(X, caller, NOW_S)
        shown = str(explanation_form(asked, explain(asked, case, Rules(), SETTINGS, None, counts=CapCounts()), "store"))
        assert not [number for number in (A, B, C) if number[2:] in shown]


def test_a_peer_is_found_by_its_name() -> None:
    assert peer_named(SETTINGS, None) is None
    assert peer_named(SETTINGS, "pbx") is SETTINGS.peers[0]
    with pytest.raises(Refused) as error:
        peer_named(SETTINGS, "nobody")
    assert error.value.kind == "not_found"


@pytest.mark.outside
def test_a_store_on_a_server_is_explained_and_replayed_alike(tmp_path: Path) -> None:
    place, sealer = new_server_store(tmp_path)
    put(place, sealer, binding())
    shelf = Shelf(place, sealer)  # type: ignore[arg-type]
    shelf.add(call(5), call(10))
    shelf.connection.close()
    rules, asked = Rules(caller_caps=(Cap(2, 300),)), TrialCall(X, A, NOW_S + 60)
    told = explain_by_store(place, sealer, rules, SETTINGS, asked)
    assert (told["outcome"], figures(told, "frequency caps")) == ("frequency_caller", "caller 2 per 5 min: 2 used")
    with closing(connect_reader(place)) as connection:
        told = explain_at(
            connection, sealer, PolicyConfiguration(rules, SETTINGS, 0, "note"), asked._replace(unix_s=NOW_S + 7)
        )
        *_, replayed = what_if(
            connection, sealer, PolicyConfiguration(Rules(caller_caps=(Cap(1, 300),)), SETTINGS, 0), 0, 1 << 52
        )
    assert (told["outcome"], figures(told, "frequency caps")) == ("granted", "caller 2 per 5 min: 1 used")
    assert (replayed.attempts, replayed.newly_refused) == (2, {"frequency_caller": 1})
    drop(place)
