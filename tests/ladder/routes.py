"""Route sets over the limits of new dialogs: an earlier version may have stored some."""

from __future__ import annotations

from tests.ladder.ladder import Ladder

HOPS = 6900  # each becomes a Route line of ten bytes: 69 kB


def lengthen_route_set(ladder: Ladder, host: str, hops: int = HOPS) -> None:
    """Give the dialog with that side a route set of so many hops, the first of which is its own."""
    (leg,) = [leg for leg in ladder.engine._dialogs.legs.values() if leg.flow.host == host]
    leg.dialog._route((f"<sip:{host};lr>", *["a"] * hops), leg.dialog.remote_target, None)
    leg._destination = None
