"""Fast path for OPTIONS of peers outside dialogs (RFC 3261 11): answered from the raw bytes, without state.

Used under load only, since just the full parser detects malformed ones. It costs a fraction of a parse, so that a
flood of keepalives, genuine or forged, is a negligible load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.call import masking
from relay.call.stateless import Glance

if TYPE_CHECKING:
    from relay.call.core import Core
    from relay.call.settings import Settings
    from relay.sip.flow import Flow

MOST_BYTES: Final = 4096  # longer ones are parsed
DRAINING: Final = "Retry-After: 30\r\n"

_OK: Final = b"SIP/2.0 200 OK\r\n"
_UNAVAILABLE: Final = b"SIP/2.0 503 Service Unavailable\r\n"


class Options:
    """The fast path of one engine. `draining`: answer 503."""

    def __init__(self, core: Core) -> None:
        self.draining = False
        self._core = core
        self._glance = Glance()
        self._end_of_to = f";tag={core.stateless_tag}\r\n".encode()
        self.follow(core.settings)

    def follow(self, settings: Settings) -> None:
        """Apply the capabilities of a new configuration."""
        self.capabilities = masking.CAPABILITIES_WITH_MESSAGE if settings.sms else masking.CAPABILITIES
        self._rest = _end(self.capabilities)

    def take(self, data: bytes, flow: Flow, now: float, *, is_behind: bool) -> bool:
        """Answer the OPTIONS, or drop it if we are behind and its peer is over its limit.

        False: to be parsed, since there is no load, or it is not a plain OPTIONS of a known peer.
        """
        core = self._core
        peer = core.peers.by_source(flow.host)
        if peer is None or not (is_behind or core.shares.has_strayed(peer.name, now)) or not _is_usual(data):
            return False
        glimpse = self._glance.read(data, flow)
        if glimpse is None or not glimpse.is_of(b"OPTIONS"):
            return False
        if not core.shares.admits_stray(peer.name, now) and is_behind:
            return True
        if self.draining:
            answer = glimpse.answer(_UNAVAILABLE, self._end_of_to, _END_OF_DRAINING)
        else:
            answer = glimpse.answer(_OK, self._end_of_to, self._rest)
        if is_behind:
            core.send_in_any_order(answer.data, answer.flow)
        else:
            core.send(answer.data, answer.flow)
        return True


def _is_usual(data: bytes) -> bool:
    """Whether it can be answered without a parse: short, and without Require, which may need 420 (RFC 3261 8.2.2.3)."""
    start = data.find(b"\r\n")
    return len(data) <= MOST_BYTES and data.endswith(b" SIP/2.0", 0, start) and data.lower().find(b"require") < 0


def _end(extra: str) -> bytes:
    return f"\r\n{extra}Content-Length: 0\r\n\r\n".encode()


_END_OF_DRAINING: Final = _end(DRAINING)
