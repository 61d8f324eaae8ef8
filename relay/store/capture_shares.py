"""Shares of the room for captures: whose captures go when there are too many. It knows sizes, no rows.

Peers have equal shares, and within a peer its business users; what one leaves is lent to others. So the failed calls of
one push out no capture of another who has less. Captures that somebody asked for (`relay700 capture arm`) go last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from relay.model.capture import CapturedCall
from relay.store.sealing.sealer import Sealer

_ARMED: Final = b"\x01"
_OTHER: Final = b"\x00"
_NAME: Final = 8  # bytes of the keyed hash of a name


class CaptureShare(NamedTuple):
    """The owner of a capture's room: peer and business user, by name or by the keyed hashes of a row."""

    is_armed: bool
    peer: bytes
    business: bytes


def share_of(call: CapturedCall) -> CaptureShare:
    """The share that a call is counted in."""
    return CaptureShare(call.is_armed, call.peer.encode(), call.business.encode())


def stored_share(sealer: Sealer, share: CaptureShare) -> bytes:
    """A share as a row has it."""
    peer, business = (sealer.row_mac(b"capture " + name)[:_NAME] for name in (share.peer, share.business))
    return (_ARMED if share.is_armed else _OTHER) + peer + business


def read_share(stored: bytes) -> CaptureShare:
    """The share of a row."""
    return CaptureShare(stored[:1] == _ARMED, stored[1 : 1 + _NAME], stored[1 + _NAME :])


def within_shares(calls: Sequence[CapturedCall], most: int) -> list[CapturedCall]:
    """At most so many of the calls, in their order; each share keeps its last ones."""
    left = cut_amounts(Counter(map(share_of, calls)), len(calls) - most)
    kept = []
    for call in calls:
        if left.get(share := share_of(call), 0) > 0:
            left[share] -= 1
        else:
            kept.append(call)
    return kept


def cut_amounts(sizes: Mapping[CaptureShare, int], above: int) -> dict[CaptureShare, int]:
    """The amount to delete of each share, so that `above` or a little more goes in all. In the unit of `sizes`."""
    found: dict[CaptureShare, int] = {}
    for is_armed in (False, True):
        of_kind = {share: size for share, size in sizes.items() if share.is_armed is is_armed}
        excess = min(above, sum(of_kind.values()))
        if excess > 0:
            found |= _cuts(of_kind, excess)
            above -= excess
    return found


def _cuts(sizes: Mapping[CaptureShare, int], above: int) -> dict[CaptureShare, int]:
    of_peers: dict[bytes, dict[CaptureShare, int]] = {}
    for share, size in sizes.items():
        of_peers.setdefault(share.peer, {})[share] = size
    totals = {peer: sum(shares.values()) for peer, shares in of_peers.items()}
    of_peer = even_share(totals.values(), sum(totals.values()) - above)
    found: dict[CaptureShare, int] = {}
    for peer, shares in of_peers.items():
        most = even_share(shares.values(), min(totals[peer], of_peer))
        found |= {share: size - most for share, size in shares.items() if size > most}
    return found


def even_share(sizes: Collection[int], room: int) -> int:
    """The maximum of each, so that all together fit in `room`: those that need less lend the rest to others."""
    left = len(sizes)
    for size in sorted(sizes):
        if size * left > room:
            return room // left
        room -= size
        left -= 1
    return max(sizes, default=0)
