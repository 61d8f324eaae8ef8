"""Runs a trace's attempts against the relay, several at a time, with lines, phones and numbers for each."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from relay.model.numbers import format_number
from relay.peers.peers import target_uri, user_for
from relay.replay.comparison import Secrets
from relay.replay.line import Line, open_line
from relay.replay.phone import Phone
from relay.replay.player import Pace, Played, Player
from relay.replay.script import Attempt, Side, Wording, user_of
from relay.replay.stage import Cast, Stage
from relay.sip.uri import uri_host

AT_ONCE = 20  # concurrent attempts
SHORTEST_NAME = 4  # characters of a display name to search for on the other side


async def perform(
    attempts: Sequence[Attempt], stage: Stage, casts: dict[tuple[str, str], Cast], pace: Pace
) -> list[Played]:
    """Play all attempts, at the trace's intervals divided by `pace.speed`."""
    gate = asyncio.Semaphore(AT_ONCE)
    pairs = {
        pair: asyncio.Lock() for pair in casts
    }  # one attempt at a time per pair: an INVITE is known by the number called
    async with open_line(stage.caller) as caller, open_line(stage.callee) as callee:

        async def play(attempt: Attempt) -> Played:
            pair = (attempt.caller, attempt.callee)
            async with pairs[pair], gate:
                return await _Performance(attempt, stage, casts[pair], caller, callee).play(pace)

        playing: list[asyncio.Task[Played]] = []
        for before, attempt in zip([*attempts[:1], *attempts], attempts, strict=False):
            gap_s = (attempt.start_s - before.start_s) / pace.speed
            await asyncio.sleep(min(gap_s, pace.longest_pause_s))
            playing.append(asyncio.create_task(play(attempt)))
        return await asyncio.gather(*playing)


class _Performance:
    """One attempt: its phones, numbers and secrets on both lines."""

    def __init__(self, attempt: Attempt, stage: Stage, cast: Cast, caller: Line, callee: Line) -> None:
        self._attempt = attempt
        self._stage = stage
        self._cast = cast
        self._lines = {Side.CALLER: caller, Side.CALLEE: callee}
        self._caller_user = format_number(cast.a, "national")
        self._secrets = {side: Secrets() for side in Side}
        self._changed = asyncio.Event()

    async def play(self, pace: Pace) -> Played:
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
        for side, secrets in self._secrets.items():
            secrets.add(f"the {side.value}'s number", format_number(numbers[side], "national"))
            secrets.add_host(f"the {side.value}'s address", self._lines[side].address.host)
            if hosts[side] not in public:
                secrets.add_host(f"the {side.value}'s traced address", hosts[side])
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
