"""What a replay needs of the configuration and the store: the peers it plays, bindings for the traced numbers."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import product
from typing import NamedTuple

from relay.call.peers import Peers
from relay.call.settings import Peer, Settings
from relay.errors import ConfigError
from relay.net.addresses import is_literal
from relay.replay.script import Attempt
from relay.replay.transport import Endpoint
from relay.service.bindings import BindingRequest, bind
from relay.service.changes import end
from relay.service.releases import BindRules
from relay.store.writer import Run

EXPIRY = "1h"  # of the bindings, should the replay be killed before it ends them
ORDER = "relay700 replay"
_TRIES = 100
_SIZES = (13, 12, 11)  # digits in E.164: of a mobile number, and of what else may be a party


class Stage(NamedTuple):
    relay: Endpoint
    caller: Endpoint
    callee: Endpoint
    caller_peer: Peer  # as whom the relay knows the caller's address
    callee_peer: Peer


class Cast(NamedTuple):
    """The numbers that stand for the traced ones. Parties are E.164 without "+"."""

    a: str
    b: str
    x: str  # dialled by a, shown to b
    binding_id: str


def set_stage(settings: Settings, to: Endpoint | None, caller: Endpoint | None, callee: Endpoint | None) -> Stage:
    """Completes what is not given from the configuration. Raises ConfigError with what is missing in it."""
    peers = Peers(settings)
    callee_peer = _callee_peer(settings, callee)
    caller_peer = _caller_peer(settings, peers, caller, callee_peer)
    problems = [peer for peer in (callee_peer, caller_peer) if isinstance(peer, str)]
    if to is None and not any(listener.transport == "udp" for listener in settings.listeners):
        problems.append("sip.listen: it has no udp: the replay speaks UDP; add one, or say --to udp:HOST:PORT")
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
            [f"--caller-address: it is the callee's, {stage.callee.host}: the relay cannot tell them apart"]
        )
    return stage


def _listener(settings: Settings) -> Endpoint:
    for listener in settings.listeners:
        if listener.transport == "udp":
            any_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}
            return Endpoint(any_host.get(listener.host, listener.host), listener.port)
    raise AssertionError("looked at before")


def _first_target(peer: Peer) -> Endpoint:
    return Endpoint(peer.targets[0].host, peer.targets[0].port)


def _callee_peer(settings: Settings, callee: Endpoint | None) -> Peer | str:
    """The peer whose calls the replay is to answer: it is first in a [[route]]; or what to do about it."""
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
        return f"peer: more than one could be the callee's; say which by --callee-address: {addresses}"
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
        return "peer: none is left for the caller: add a [[peer]] with the caller's address among its sources"
    peer = peers.by_source(caller.host)
    if peer is not None:
        return peer
    return f'peer: none has {caller.host} among its sources: add a [[peer]] with sources = ["{caller.host}/32"]'


@contextlib.contextmanager
def bound(
    attempts: Iterable[Attempt], settings: Settings, stage: Stage, run: Run, rules: BindRules
) -> Iterator[dict[tuple[str, str], Cast]]:
    """A binding for each pair of traced caller and callee, ended with the block. Raises Refused, ConfigError."""
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
    """A random number that may be bound, and that the relay sends to `peer` first."""
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
            "give it a [[route]] of its own prefix"
        ]
    )
