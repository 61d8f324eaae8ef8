"""Search of call records: by page, newest first, or one by its id.

A business user's search has its id in `Wanted.business`, a condition of the query rather than a filter afterwards.
"""

from __future__ import annotations

from typing import NamedTuple

from relay.call.record import CallRecord
from relay.store.connection import Connection
from relay.store.record_pages import Found, Position, Wanted, read_page
from relay.store.records import live_calls
from relay.store.sealing import Sealer

MOST_EXAMINED = 2_000  # records read for one page: outcomes are not indexed


class CallQuery(NamedTuple):
    """A search. `outcome`: one of call records."""

    wanted: Wanted
    outcome: str | None = None


class CallPage(NamedTuple):
    """A page, which may be short or empty. The next page starts behind the position `next`; None at the end."""

    items: list[CallRecord]
    next: Position | None


def search(
    connection: Connection, sealer: Sealer, query: CallQuery, after: Position | None = None, limit: int = 50
) -> CallPage:
    """Return a page of ended calls, newest first. Raises StoreError if a record was altered."""
    items: list[CallRecord] = []
    examined = 0
    while True:
        found = read_page(connection, sealer, query.wanted, after, limit, newest_first=True)
        for one in found:
            after = one.position
            examined += 1
            if query.outcome in (None, one.stored.record.outcome):
                items.append(one.stored.record)
                if len(items) == limit:
                    return CallPage(items, _next(found, one, limit))
        if len(found) < limit:
            return CallPage(items, None)
        if examined >= MOST_EXAMINED:
            return CallPage(items, after)


def _next(found: list[Found], last: Found, limit: int) -> Position | None:
    """The position of the next page; None behind the last record of a page that was not full."""
    return None if last is found[-1] and len(found) < limit else last.position


def find_call(connection: Connection, sealer: Sealer, call_id: str, business: str | None = None) -> CallRecord | None:
    """The record of an ended or live call; with `business` only one of theirs."""
    wanted = Wanted(call_id=call_id, business=business)
    ended = read_page(connection, sealer, wanted, None, 1)
    if ended:
        return ended[0].stored.record
    return next((record for record in live_calls(connection, sealer) if wanted.fits(record)), None)
