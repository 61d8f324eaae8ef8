"""A repeated failure is logged once, and its end once."""

from __future__ import annotations

from relay.errors import StoreError
from relay.events.outage import Outage
from tests.events.conftest import Log


def test_begin_and_end_of_an_outage_are_logged_once() -> None:
    log = Log()
    outage = Outage("follower", log.logger)
    outage.over()
    for _ in range(3):
        outage.failed(StoreError("disk full"))
    outage.over()
    outage.over()
    outage.failed(StoreError("disk full"))
    assert log.events() == ["follower.failed", "follower.recovered", "follower.failed"]
    assert log.said[0][1]["reason"] == "disk full"
