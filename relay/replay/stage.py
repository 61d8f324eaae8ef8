"""The stage of a replay: peers to play, bindings for the traced numbers, and several attempts played at a time.

Peers come from the configuration, and callers are numbers that theirs may claim. Each attempt has its own phones and
numbers on the lines of both sides, so that no cap on the calls of one caller refuses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, product
from typing import NamedTuple

from relay.errors import ConfigError, Refused
from relay.model.binding import Binding
from relay.model.numbers import format_number
from relay.model.settings import Peer, Settings, may_call_as
from relay.net.hosts import is_literal
from relay.peers.peers import Peers, target_uri, user_for
from relay.replay.comparison import Secrets
from relay.replay.phone import Phone, PhoneLine, open_line
from relay.replay.player import Pace, Player, PlayResult
from relay.replay.script import Attempt, Side, Wording, user_of
from relay.replay.trace import Endpoint
from relay.service import fields
from relay.service.bindings import bind, end
from relay.service.placement import BindRules, PlacementRequest
from relay.sip.uri import uri_host
from relay.store.bindings import BindingQuery, all_bindings
from relay.store.unit_of_work import UnitOfWork
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
def bind_attempts(
    attempts: Iterable[Attempt], settings: Settings, stage: Stage, run: Run, rules: BindRules
) -> Iterator[dict[int, Cast]]:
    """Bind two numbers for each attempt until the block ends; by the attempt's number.

    Raises ConfigError, and Refused for a store with bindings of orders: parties are random numbers, maybe of people.
    """
    run(_require_own_store)
    casts: dict[int, Cast] = {}
    try:
        for attempt in attempts:
            a, b = _caller_number(stage.caller_peer, rules), _callee_number(settings, stage.callee_peer, rules)
            binding = run(partial(_bind, a=a, b=b, rules=rules))
            casts[attempt.number] = Cast(a, b, binding.x, binding.binding_id)
        yield casts
    finally:
        for cast in casts.values():
            run(partial(end, binding_id=cast.binding_id, rules=rules))


def _require_own_store(unit: UnitOfWork) -> None:
    live = all_bindings(unit.connection, unit.sealer, BindingQuery(state="live"), unit.now_ms)
    if any(binding.order_id != ORDER for binding in live):
        raise Refused(
            "conflict",
            "",
            "bindings of orders are in force in this store, and a replay would leave records of calls between random "
            "numbers beside theirs: give it a relay with a store of its own ([store] url)",
        )


def _bind(unit: UnitOfWork, a: str, b: str, rules: BindRules) -> Binding:
    written = {"mode": "AXB", "a": f"+{a}", "b": f"+{b}", "expires_in": EXPIRY, "order_id": ORDER}
    return bind(unit, PlacementRequest(fields.binding(written, rules.parties, unit.now_ms)), rules)


def _caller_number(peer: Peer, rules: BindRules) -> str:
    """A random number that may be a party, and that `peer` may claim."""
    claimed = peer.numbers
    numbers = _numbers(["86199"] if claimed is None else claimed.prefixes)
    if claimed is not None:
        numbers = chain(numbers, _numbers_in(claimed.ranges), claimed.numbers)
    for number in numbers:
        if rules.parties.allow(number) and may_call_as(claimed, number):
            return number
    raise ConfigError(
        [
            f'peer: no number that [numbers] parties allows is among the numbers of the peer "{peer.name}": '
            "choose another one for the callers by --caller-address"
        ]
    )


def _numbers(starts: Iterable[str]) -> Iterator[str]:
    """Random numbers that begin with one of `starts`."""
    for start, size in product(starts, _SIZES):
        start = start if not "86139".startswith(start) else "86139"
        digits = size - len(start)
        for _ in range(_TRIES if digits > 0 else 0):
            yield f"{start}{secrets.randbelow(10**digits):0{digits}}"


def _numbers_in(ranges: Iterable[tuple[str, str]]) -> Iterator[str]:
    for first, last in ranges:
        for _ in range(_TRIES):
            yield f"{int(first) + secrets.randbelow(int(last) - int(first) + 1):0{len(first)}}"


def _callee_number(settings: Settings, peer: Peer, rules: BindRules) -> str:
    """A random number that may be a party, and that is routed to `peer` first."""
    peers = Peers(settings)
    for number in _numbers(route.prefix for route in settings.routes if route.peers[:1] == (peer.name,)):
        if rules.parties.allow(number) and peers.choose(number)[:1] == (peer,):
            return number
    raise ConfigError(
        [
            f'route: no number that [numbers] parties allows goes to the peer "{peer.name}" first: '
            "give that peer a [[route]] with its own prefix"
        ]
    )


# -- The performance of all attempts

AT_ONCE = 20  # concurrent attempts
SHORTEST_NAME = 4  # characters of a display name to search for on the other side


async def play_attempts(
    attempts: Sequence[Attempt], stage: Stage, casts: Mapping[int, Cast], pace: Pace
) -> list[PlayResult]:
    """Play all attempts, at the trace's intervals divided by `pace.speed`."""
    gate = asyncio.Semaphore(AT_ONCE)
    async with open_line(stage.caller) as caller, open_line(stage.callee) as callee:

        async def play(attempt: Attempt) -> PlayResult:
            async with gate:
                return await _Performance(attempt, stage, casts[attempt.number], caller, callee).play(pace)

        playing: list[asyncio.Task[PlayResult]] = []
        for before, attempt in zip([*attempts[:1], *attempts], attempts, strict=False):
            gap_s = (attempt.start_s - before.start_s) / pace.speed
            await asyncio.sleep(min(gap_s, pace.longest_pause_s))
            playing.append(asyncio.create_task(play(attempt)))
        return await asyncio.gather(*playing)


class _Performance:
    """One attempt: its phones, numbers and secrets on both lines."""

    def __init__(self, attempt: Attempt, stage: Stage, cast: Cast, caller: PhoneLine, callee: PhoneLine) -> None:
        self._attempt = attempt
        self._stage = stage
        self._cast = cast
        self._lines = {Side.CALLER: caller, Side.CALLEE: callee}
        self._caller_user = format_number(cast.a, "national")
        self._secrets = {side: Secrets() for side in Side}
        self._changed = asyncio.Event()

    async def play(self, pace: Pace) -> PlayResult:
        cast, relay = self._cast, self._stage.relay
        callee_user = user_for(self._stage.callee_peer, cast.b)
        caller = self._phone(Side.CALLER, ours=self._caller_user, others=cast.x)
        callee = self._phone(Side.CALLEE, ours=cast.x, others=callee_user)
        own_address = self._lines[Side.CALLER].address
        caller.local = f"{_display(self._attempt)}<{target_uri(self._caller_user, *own_address)}>"
        caller.remote = f"<sip:{cast.x}@{uri_host(relay.host)}>"
        self._keep_secrets(caller)
        self._lines[Side.CALLEE].expect(cast.b, callee)
        phones = {Side.CALLER: caller, Side.CALLEE: callee}
        player = Player(self._attempt, phones, self._changed, pace, dialled=target_uri(cast.x, *relay))
        return await player.play(relay, *self._identity())

    def _phone(self, side: Side, *, ours: str, others: str) -> Phone:
        """`ours`, `others`: the replacements of the traced caller's and the traced callee's number on that side."""
        callers, callees = _traced_users(self._attempt, "from"), _traced_users(self._attempt, "to")
        wording = Wording([*((user, ours) for user in callers), *((user, others) for user in callees)])
        return Phone(self._lines[side], wording, self._secrets[side], self._secrets[side.other], self._changed.set)

    def _keep_secrets(self, caller: Phone) -> None:
        """Add the identities of each side. Sent messages are added when they are sent."""
        attempt = self._attempt
        public = {self._stage.relay.host, *(line.address.host for line in self._lines.values())}
        numbers = {Side.CALLER: self._cast.a, Side.CALLEE: self._cast.b}
        hosts = {Side.CALLER: attempt.caller_host, Side.CALLEE: attempt.callee_host}
        for side, hidden in self._secrets.items():
            hidden.add(f"the {side.value}'s number", format_number(numbers[side], "national"))
            hidden.add_host(f"the {side.value}'s address", self._lines[side].address.host)
            if hosts[side] not in public:
                hidden.add_host(f"the {side.value}'s traced address", hosts[side])
        self._secrets[Side.CALLER].add("the caller's Call-ID", caller.call_id)
        if len(name := _display(attempt).strip('" ')) >= SHORTEST_NAME:
            self._secrets[Side.CALLER].add("the caller's name", name)

    def _identity(self) -> tuple[list[tuple[str, str]], frozenset[str]]:
        """Headers to add and to omit, for a peer that asserts the caller's number in P-Asserted-Identity."""
        if self._stage.caller_peer.identity == "from":
            return [], frozenset()
        name = "p-asserted-identity"
        uri = target_uri(self._caller_user, *self._lines[Side.CALLER].address)
        return [(name, f"<{uri}>")], frozenset({name})


def _traced_users(attempt: Attempt, header: str) -> set[str]:
    """The traced user parts that contain digits."""
    users = {user_of(attempt.invite, header), attempt.caller if header == "from" else attempt.callee}
    return {user for user in users if any(character.isdigit() for character in user)}


def _display(attempt: Attempt) -> str:
    """The traced caller's display name, quoted and followed by a blank; "" without one."""
    name = re.sub(r'[\\"]', "", attempt.invite.from_.display)
    return f'"{name}" ' if name else ""
