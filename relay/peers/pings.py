"""OPTIONS pings to targets of peers with `ping_s`, to detect failure and recovery before a call does.

Any response except 408 and 503 counts as alive. A target with a pending ping is not pinged again: over UDP the request
is retransmitted every T2, so recovery is noticed at once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from relay.peers.targets import TargetState, heed, reached, unreachable
from relay.privacy.messages import OutgoingRequest, contact_line
from relay.sip.message import Response
from relay.sip.timers import Timer

if TYPE_CHECKING:
    from relay.model.settings import Peer, Settings
    from relay.peers.user_agent import UserAgent

SPREAD_S: Final = 1.0  # the first pings of the peers are spread over this time


class Pings:
    """The pings of one engine."""

    def __init__(self, ua: UserAgent) -> None:
        self._ua = ua
        self._settings: Settings | None = None  # in force for the timers
        self._timers: dict[str, Timer] = {}  # by peer name

    def follow(self, settings: Settings, now: float) -> None:
        """Restart the pings if the configuration is new."""
        if self._settings is settings:
            return
        self._settings = settings
        for timer in self._timers.values():
            self._ua.timers.cancel(timer)
        self._timers = {}
        for peer in settings.peers:
            if peer.health.ping_s:
                self._ask_at(peer, now + self._ua.fraction() * min(peer.health.ping_s, SPREAD_S))

    def _ask_at(self, peer: Peer, when: float) -> None:
        self._timers[peer.name] = self._ua.timers.set(when, partial(self._ask, peer))

    def _ask(self, peer: Peer, now: float) -> None:
        for place in self._ua.peers.places_of(peer.name):
            if place.pinging:  # the last ping is unanswered
                unreachable(self._ua.outbox, place, now)
            else:
                place.pinging = True
                self._send(place, now)
        self._ask_at(peer, now + peer.health.ping_s)

    def _send(self, place: TargetState, now: float) -> None:
        ua, flow = self._ua, place.flow
        listener = ua.peers.listener(flow)
        uri = f"sip:{place.target.written}"
        constants = f"From: <sip:{listener.sent_by}>;tag={ua.token()}\r\nTo: <{uri}>\r\nCall-ID: {ua.token()}\r\n"
        request = OutgoingRequest("OPTIONS", uri, constants, 1, f"{contact_line(listener, '')}Max-Forwards: 70\r\n")
        branch = f"z9hG4bK{ua.token()}"
        data = request.render(listener, branch)
        ua.transactions.request(
            "OPTIONS", branch, data, flow, partial(self._answered, place), partial(self._failed, place), now
        )

    def _answered(self, place: TargetState, response: Response, now: float) -> None:
        status = response.status
        if status < 200:
            return
        place.pinging = False
        heed(self._ua.outbox, place, response, now)
        if status in (408, 503):
            unreachable(self._ua.outbox, place, now)
        else:
            reached(self._ua.outbox, place)

    def _failed(self, place: TargetState, why: str, now: float) -> None:
        place.pinging = False
        # A timeout is counted here only if the ping interval is longer: else `_ask` has counted the silence.
        if why == "transport" or place.peer.health.ping_s >= self._ua.timings.transaction_s:
            unreachable(self._ua.outbox, place, now)
