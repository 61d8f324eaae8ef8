"""Answers to sources that are no peer's: some, so that a wrong configuration shows, and never a flood."""

from __future__ import annotations

from typing import ClassVar

from relay.call.bucket import Bucket
from relay.call.settings import Peer


class Strangers(Bucket):
    """Over all of them: `per_s` answers a second."""

    # Stands in the record of a refused stranger.
    PEER: ClassVar[Peer] = Peer("", "", 0, "udp", tcp_allowed=False, sources=())
