"""OPTIONS pings to targets of peers with `ping_s`, to detect failure and recovery before a call does.

Any response except 408 and 503 counts as alive. A target with a pending ping is not pinged again: over UDP the request
is retransmitted every T2, so recovery is noticed at once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from relay.peers.targets import TargetState
from relay.privacy.messages import OutgoingRequest, contact_line
from relay.sip.message import Response
from relay.sip.timers import Timer

if TYPE_CHECKING:
    from relay.call.core import Core
    from relay.model.settings import Peer, Settings

SPREAD_S: Final = 1.0  # the first pings of the peers are spread over this time


class Pings:
    """The pings of one engine."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._settings: Settings | None = None  # in force for the timers
        self._timers: dict[str, Timer] = {}  # by peer name

    def follow(self, now: float) -> None:
        """Restart the pings if the configuration is new."""
        if self._settings is self._core.settings:
            return
        self._settings = self._core.settings
        for timer in self._timers.values():
            self._core.timers.cancel(timer)
        self._timers = {}
        for peer in self._settings.peers:
            if peer.health.ping_s:
                self._ask_at(peer, now + self._core.fraction() * min(peer.health.ping_s, SPREAD_S))

    def _ask_at(self, peer: Peer, when: float) -> None:
        self._timers[peer.name] = self._core.timers.set(when, partial(self._ask, peer))

    def _ask(self, peer: Peer, now: float) -> None:
        for place in self._core.peers.places_of(peer.name):
            if place.pinging:  # the last ping is unanswered
                self._core.unreachable(place, now)
            else:
                place.pinging = True
                self._send(place, now)
        self._ask_at(peer, now + peer.health.ping_s)

    def _send(self, place: TargetState, now: float) -> None:
        core, flow = self._core, place.flow
        listener = core.peers.listener(flow)
        uri = f"sip:{place.target.written}"
        constants = f"From: <sip:{listener.sent_by}>;tag={core.token()}\r\nTo: <{uri}>\r\nCall-ID: {core.token()}\r\n"
        request = OutgoingRequest("OPTIONS", uri, constants, 1, f"{contact_line(listener, '')}Max-Forwards: 70\r\n")
        branch = f"z9hG4bK{core.token()}"
        data = request.render(listener, branch)
        core.transactions.request(
            "OPTIONS", branch, data, flow, partial(self._answered, place), partial(self._failed, place), now
        )

    def _answered(self, place: TargetState, response: Response, now: float) -> None:
        status = response.status
        if status < 200:
            return
        place.pinging = False
        self._core.heed(place, response, now)
        if status in (408, 503):
            self._core.unreachable(place, now)
        else:
            self._core.reached(place)

    def _failed(self, place: TargetState, why: str, now: float) -> None:
        place.pinging = False
        # A timeout is counted here only if the ping interval is longer: else `_ask` has counted the silence.
        if why == "transport" or place.peer.health.ping_s >= self._core.settings.timings.transaction_s:
            self._core.unreachable(place, now)
