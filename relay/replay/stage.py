"""Preparation of a replay: the peers to play, from the configuration, and bindings for the traced numbers."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import product
from typing import NamedTuple

from relay.errors import ConfigError
from relay.model.settings import Peer, Settings
from relay.net.hosts import is_literal
from relay.peers.peers import Peers
from relay.replay.script import Attempt
from relay.replay.trace import Endpoint
from relay.service.bindings import BindingRequest, bind
from relay.service.changes import end
from relay.service.releases import BindRules
from relay.store.writer import Run

EXPIRY = "1h"  # of the bindings, in case the replay is killed before it ends them
ORDER = "relay700 replay"
_TRIES = 100
_SIZES = (13, 12, 11)  # E.164 digits of a mobile number, and of other parties


class Stage(NamedTuple):
    relay: Endpoint
    caller: Endpoint
    callee: Endpoint
    caller_peer: Peer  # the peer of the caller's address
    callee_peer: Peer


class Cast(NamedTuple):
    """The replacements of traced numbers. Parties are E.164 without "+"."""

    a: str
    b: str
    x: str  # dialled by a, shown to b
    binding_id: str


def set_stage(settings: Settings, to: Endpoint | None, caller: Endpoint | None, callee: Endpoint | None) -> Stage:
    """Fill in missing addresses from the configuration. Raises ConfigError with what it lacks."""
    peers = Peers(settings)
    callee_peer = _callee_peer(settings, callee)
    caller_peer = _caller_peer(settings, peers, caller, callee_peer)
    problems = [peer for peer in (callee_peer, caller_peer) if isinstance(peer, str)]
    if to is None and not any(listener.transport == "udp" for listener in settings.listeners):
        problems.append("sip.listen: no UDP listener, which the replay needs; add one, or give --to udp:HOST:PORT")
    if problems or isinstance(callee_peer, str) or isinstance(caller_peer, str):
        raise ConfigError(problems)
    stage = Stage(
        to or _listener(settings),
        caller or Endpoint(caller_peer.targets[0].host, 0),
        callee or _first_target(callee_peer),
        caller_peer,
        callee_peer,
    )
    if stage.caller.host == stage.callee.host:
        raise ConfigError(
            [f"--caller-address: must differ from the callee's, {stage.callee.host}: the relay knows peers by address"]
        )
    return stage


def _listener(settings: Settings) -> Endpoint:
    for listener in settings.listeners:
        if listener.transport == "udp":
            any_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}
            return Endpoint(any_host.get(listener.host, listener.host), listener.port)
    raise AssertionError("checked by set_stage")


def _first_target(peer: Peer) -> Endpoint:
    return Endpoint(peer.targets[0].host, peer.targets[0].port)


def _callee_peer(settings: Settings, callee: Endpoint | None) -> Peer | str:
    """The peer to play as callee, first in a [[route]]; or the error text."""
    first = [route.peers[0] for route in settings.routes if route.peers]
    reached = [
        peer for peer in settings.peers if peer.name in first and peer.targets and peer.targets[0].transport == "udp"
    ]
    if callee is not None:
        reached = [peer for peer in reached if _first_target(peer) == callee]
    if not reached:
        address = str(callee or "127.0.0.22:5060")
        return (
            f'peer: none with the uri "sip:{address};transport=udp" is the first of a [[route]]: '
            "add both, so that the relay sends the replay's calls to the replay"
        )
    if len(reached) > 1:
        addresses = ", ".join(f"{_first_target(peer)} ({peer.name})" for peer in reached)
        return f"peer: several can be the callee; choose one by --callee-address: {addresses}"
    return reached[0]


def _caller_peer(settings: Settings, peers: Peers, caller: Endpoint | None, callee_peer: Peer | str) -> Peer | str:
    if caller is None:
        others = [
            peer
            for peer in settings.peers
            if peer is not callee_peer and peer.targets and is_literal(peer.targets[0].host)
        ]
        if others:
            return others[0]
        return "peer: no second peer for the caller: add a [[peer]] with the caller's address among its sources"
    peer = peers.by_source(caller.host)
    if peer is not None:
        return peer
    return f'peer: none has {caller.host} among its sources: add a [[peer]] with sources = ["{caller.host}/32"]'


@contextlib.contextmanager
def bound(
    attempts: Iterable[Attempt], settings: Settings, stage: Stage, run: Run, rules: BindRules
) -> Iterator[dict[tuple[str, str], Cast]]:
    """Bind each traced pair of caller and callee until the block ends. Raises Refused, ConfigError."""
    casts: dict[tuple[str, str], Cast] = {}
    parties: dict[tuple[str, str], str] = {}
    try:
        for attempt in attempts:
            pair = (attempt.caller, attempt.callee)
            if pair in casts:
                continue
            a = parties.setdefault(("caller", attempt.caller), f"86199{secrets.randbelow(10**8):08}")
            b = parties.setdefault(("callee", attempt.callee), _callee_number(settings, stage.callee_peer, rules))
            request = BindingRequest("AXB", f"+{a}", f"+{b}", expires_in=EXPIRY, order_id=ORDER)
            binding = run(partial(bind, request=request, rules=rules))
            casts[pair] = Cast(a, b, binding.x, binding.binding_id)
        yield casts
    finally:
        for cast in casts.values():
            run(partial(end, binding_id=cast.binding_id, rules=rules))


def _callee_number(settings: Settings, peer: Peer, rules: BindRules) -> str:
    """A random number that may be a party, and that is routed to `peer` first."""
    peers = Peers(settings)
    starts = [route.prefix for route in settings.routes if route.peers[:1] == (peer.name,)]
    for start, size in product(starts, _SIZES):
        start = start if not "86139".startswith(start) else "86139"
        digits = size - len(start)
        for _ in range(_TRIES if digits > 0 else 0):
            number = f"{start}{secrets.randbelow(10**digits):0{digits}}"
            if rules.parties.allow(number) and peers.choose(number)[:1] == (peer,):
                return number
    raise ConfigError(
        [
            f'route: no number that [numbers] parties allows goes to the peer "{peer.name}" first: '
            "give that peer a [[route]] with its own prefix"
        ]
    )
