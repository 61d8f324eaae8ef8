"""OPTIONS to the targets of peers that want it: how one that is gone is found before a call meets it, and found again.

Whatever a target answers but 408 and 503 says that it is there. One that is asked already is not asked again: over UDP
the request repeats itself every T2, so it is heard of as soon as it is back.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from relay.call.compose import OutgoingRequest
from relay.call.leg import contact_line
from relay.call.places import Place, retry_after_s
from relay.sip.message import Response
from relay.sip.timers import Timer

if TYPE_CHECKING:
    from relay.call.core import Core

SPREAD_S = 1.0  # over which the first pings are spread


class Pings:
    """All pings of one relay."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._timers: dict[Place, Timer] = {}

    def follow(self, places: Sequence[Place], now: float) -> None:
        """Asks these from now on, as often as their peers' `ping_s` says, and no others."""
        for timer in self._timers.values():
            self._core.timers.cancel(timer)
        self._timers = {}
        for place in places:
            ping_s = place.peer.health.ping_s
            if ping_s:
                self._ask_at(place, now + int(self._core.token()[:4], 16) / 0x10000 * min(ping_s, SPREAD_S))

    def _ask_at(self, place: Place, when: float) -> None:
        self._timers[place] = self._core.timers.set(when, partial(self._ask, place))

    def _ask(self, place: Place, now: float) -> None:
        if place.pinging:  # the last one has no answer yet
            self._core.unreachable(place, now)
        else:
            place.pinging = True
            self._send(place, now)
        self._ask_at(place, now + place.peer.health.ping_s)

    def _send(self, place: Place, now: float) -> None:
        core, flow = self._core, place.flow
        listener = core.peers.listener(flow)
        uri = f"sip:{place.target.written}"
        constants = f"From: <sip:{listener.sent_by}>;tag={core.token()}\r\nTo: <{uri}>\r\nCall-ID: {core.token()}\r\n"
        request = OutgoingRequest("OPTIONS", uri, constants, 1, f"{contact_line(core, flow, '')}Max-Forwards: 70\r\n")
        branch = f"z9hG4bK{core.token()}"
        data = request.render(listener, branch)
        core.transactions.request(
            "OPTIONS", branch, data, flow, partial(self._answered, place), partial(self._failed, place), now
        )

    def _answered(self, place: Place, response: Response, now: float) -> None:
        status = response.status
        if status < 200:
            return
        place.pinging = False
        if status == 503:
            self._core.put_aside(place, retry_after_s(response.get("retry-after")), now)
        if status in (408, 503):
            self._core.unreachable(place, now)
        elif place.failures or place.is_down:
            self._core.reached(place)

    def _failed(self, place: Place, why: str, now: float) -> None:
        place.pinging = False
        # Silence is counted already, each time that it should have been asked anew, if that is more often.
        if why == "transport" or place.peer.health.ping_s >= self._core.settings.timings.transaction_s:
            self._core.unreachable(place, now)
