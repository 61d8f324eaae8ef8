from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Literal

import pytest

from relay.config.parties import read_parties
from relay.config.tables import NumbersTable
from relay.errors import ConfigError, Refused
from relay.model.binding import Binding
from relay.model.settings import Account, CallerNumbers, Listener, Peer, PeerRoute, Settings
from relay.replay.stage import bind_attempts, set_stage
from relay.replay.trace import Endpoint
from relay.service import fields
from relay.service.bindings import bind, end
from relay.service.numbers import ensure_numbers
from relay.service.placement import BindRules, PlacementRequest
from relay.store.bindings import all_bindings
from relay.store.database import connect_reader
from relay.store.sealing.sealer import load_key
from relay.store.unit_of_work import operator_cli
from relay.store.writer import Run, Writer
from tests.replay.messages import attempts_of
from tests.support.places import new_store
from tests.support.targets import target_at

PREFIX = "70010000001"


def peer(name: str, host: str, port: int = 5060) -> Peer:
    return Peer(name, (target_at(host, port),), False, (ip_network(host),))


CALLERS, CALLEES = peer("callers", "127.0.0.11"), peer("callees", "127.0.0.22", 5070)


def settings(
    *routes: PeerRoute,
    peers: tuple[Peer, ...] = (CALLERS, CALLEES),
    listen: str = "127.0.0.10",
    transport: Literal["udp", "tcp"] = "udp",
) -> Settings:
    return Settings((Listener(transport, listen, 5060, listen),), peers, routes, (PREFIX,))


ALL_TO_CALLEES = PeerRoute("", ("callees",))
ALL_OURS = (None, None, None)  # no option given


def test_addresses_default_to_the_configuration() -> None:
    stage = set_stage(settings(ALL_TO_CALLEES), None, None, None)
    assert stage.relay == Endpoint("127.0.0.10", 5060)
    assert stage.caller == Endpoint("127.0.0.11", 0)
    assert stage.callee == Endpoint("127.0.0.22", 5070)
    assert (stage.caller_peer, stage.callee_peer) == (CALLERS, CALLEES)


def test_a_wildcard_listener_is_reached_on_loopback() -> None:
    assert set_stage(settings(ALL_TO_CALLEES, listen="0.0.0.0"), None, None, None).relay.host == "127.0.0.1"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_given_addresses_override_the_configuration(transport: Literal["udp", "tcp"]) -> None:
    to, caller, callee = Endpoint("127.0.0.9", 5), Endpoint("127.0.0.11", 6), Endpoint("127.0.0.22", 5070)
    assert set_stage(settings(ALL_TO_CALLEES, transport=transport), to, caller, callee)[:3] == (to, caller, callee)


def test_of_several_callees_the_first_peer_is_played() -> None:
    stage = set_stage(settings(ALL_TO_CALLEES, PeerRoute("86138", ("callers",))), *ALL_OURS)
    assert (stage.caller_peer, stage.callee_peer) == (CALLEES, CALLERS)


def test_a_peer_without_an_address_is_not_used() -> None:
    phone = Peer("phone", (), False, (), login=Account("1001", "secret"))
    stage = set_stage(
        settings(PeerRoute("861", ("phone",)), ALL_TO_CALLEES, peers=(phone, CALLERS, CALLEES)), *ALL_OURS
    )
    assert (stage.caller_peer, stage.callee_peer) == (CALLERS, CALLEES)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            (settings(ALL_TO_CALLEES), None, None, Endpoint("127.0.0.23", 9)),
            'peer: none with the uri "sip:127.0.0.23:9',
        ),
        ((settings(ALL_TO_CALLEES, transport="tcp"), None, None, None), "sip.listen: no UDP listener"),
        ((settings(), None, None, None), "is the first of a \\[\\[route\\]\\]: add both"),
        ((settings(ALL_TO_CALLEES), None, Endpoint("127.0.0.12", 0), None), "none has 127.0.0.12 among its sources"),
        ((settings(ALL_TO_CALLEES, peers=(CALLEES,)), None, None, None), "no second peer for the caller"),
        ((settings(ALL_TO_CALLEES), None, Endpoint("127.0.0.22", 0), None), "the relay knows peers by address"),
    ],
)
def test_missing_configuration_is_reported(given: tuple[Settings, Endpoint, Endpoint, Endpoint], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        set_stage(*given)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    path = tmp_path / "relay.db"
    with closing(Writer(path, new_store(path, tmp_path / "relay.key"))) as writer:
        operator_runs = partial(writer.run, operator_cli())
        operator_runs(lambda unit: ensure_numbers(unit, [PREFIX]))
        yield operator_runs


def bindings_in(folder: Path) -> list[Binding]:
    path = folder / "relay.db"
    with closing(connect_reader(path)) as reader:
        return list(all_bindings(reader, load_key(folder / "relay.key")))


TWO_CALLS = ["> INVITE 1 new sdp", "< 407 1 INVITE", "> INVITE 2 new sdp"]


@pytest.mark.parametrize("prefix", ["", "86", "86139", "8610", "44", "861391234567"])
def test_each_attempt_gets_a_binding_whose_callee_is_routed_to_the_callee_s_address(
    tmp_path: Path, run: Run, prefix: str
) -> None:
    routes = settings(PeerRoute(prefix, ("callees",)), PeerRoute("861", ("callers",)), PeerRoute("4", ("callers",)))
    stage = set_stage(routes, None, None, Endpoint("127.0.0.22", 5070))
    if prefix in ("", "86"):
        routes = settings(PeerRoute(prefix, ("callees",)))
    table = NumbersTable(parties=("mobile", "landline", "foreign"), countries=("GB",))
    rules = BindRules(parties=read_parties(table, []))
    with bind_attempts(attempts_of(*TWO_CALLS), routes, stage, run, rules) as casts:
        assert list(casts) == [1, 2]
        made = bindings_in(tmp_path)
        assert {(each.a, each.b, each.x) for each in made} == {(cast.a, cast.b, cast.x) for cast in casts.values()}
        assert all((each.b or "").startswith(prefix) and each.expires_at is not None for each in made)
    assert all(each.ended_at is not None for each in bindings_in(tmp_path))


@pytest.mark.parametrize("numbers", ["138*", "13800000000-13800000999", "13800000001"])
def test_callers_are_numbers_that_their_peer_may_claim(tmp_path: Path, run: Run, numbers: str) -> None:
    claimed = CallerNumbers(
        numbers=frozenset(["8613800000001"] if numbers == "13800000001" else []),
        prefixes=("86138",) if numbers == "138*" else (),
        ranges=(("8613800000000", "8613800000999"),) if "-" in numbers else (),
    )
    stage = set_stage(settings(ALL_TO_CALLEES, peers=(replace(CALLERS, numbers=claimed), CALLEES)), *ALL_OURS)
    with bind_attempts(attempts_of(*TWO_CALLS), settings(ALL_TO_CALLEES), stage, run, BindRules()):
        assert all(claimed.allow(each.a or "") for each in bindings_in(tmp_path))


def test_a_caller_without_an_allowed_number_is_reported(run: Run) -> None:
    extensions = replace(CALLERS, numbers=CallerNumbers(ranges=(("1000", "1999"),)))
    stage = set_stage(settings(ALL_TO_CALLEES, peers=(extensions, CALLEES)), *ALL_OURS)
    bindings = bind_attempts(attempts_of(*TWO_CALLS), settings(ALL_TO_CALLEES), stage, run, BindRules())
    with pytest.raises(ConfigError, match=r'among the numbers of the peer "callers"'), bindings:
        pass


def test_a_store_with_bindings_of_orders_is_refused(tmp_path: Path, run: Run) -> None:
    """Replayed parties are random numbers, which would be in its records and evidence beside real ones."""
    routes, attempts, rules = settings(ALL_TO_CALLEES), attempts_of(*TWO_CALLS), BindRules()
    stage = set_stage(routes, None, None, None)
    with bind_attempts(attempts, routes, stage, run, rules), bind_attempts(attempts, routes, stage, run, rules):
        pass
    written = {"mode": "AXB", "a": "13800000001", "b": "13900000002", "order_id": "1"}
    order = run(lambda unit: bind(unit, PlacementRequest(fields.binding(written, rules.parties, unit.now_ms)), rules))
    with pytest.raises(Refused, match="store of its own"), bind_attempts(attempts, routes, stage, run, rules):
        pass
    assert len(bindings_in(tmp_path)) == 5
    run(lambda unit: end(unit, order.binding_id, rules))
    with bind_attempts(attempts, routes, stage, run, rules):
        pass


def test_bindings_are_ended_when_the_replay_fails(tmp_path: Path, run: Run) -> None:
    stage = set_stage(settings(ALL_TO_CALLEES), None, None, None)
    with (
        pytest.raises(KeyError),
        bind_attempts(attempts_of(*TWO_CALLS), settings(ALL_TO_CALLEES), stage, run, BindRules()),
    ):
        raise KeyError
    assert [binding.ended_at is not None for binding in bindings_in(tmp_path)] == [True, True]


def test_a_callee_without_a_routed_number_is_reported(run: Run) -> None:
    stage = set_stage(settings(ALL_TO_CALLEES), None, None, None)
    shadowed = settings(PeerRoute("86139", ("callees",)), *(PeerRoute(f"86139{n}", ("callers",)) for n in range(10)))
    bindings = bind_attempts(attempts_of(*TWO_CALLS), shadowed, stage, run, BindRules())
    with pytest.raises(ConfigError, match=r'no number that .* allows goes to the peer "callees"'), bindings:
        pass
