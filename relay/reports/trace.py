"""Who was behind a number at a time (溯源): bindings, groups and calls of that time, in clear.

asked = writer.run(actor, lambda act: ask_trace(act, number, at_ms, reason))
trace(path, sealer, asked)
"""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple

from relay.model.binding import Binding
from relay.model.call import CallRecord
from relay.reports.disclosure import DisclosureRequest, ask
from relay.store.bindings import bindings_at
from relay.store.connection import Connection, Place
from relay.store.database import connect_reader, store_errors
from relay.store.groups import members_at
from relay.store.record_rows import StoredRecord
from relay.store.records import LONGEST_CALL_MS, Wanted, live_calls, read_stored
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork


class Trace(NamedTuple):
    """`bindings` have the parties of that time, and their end as known now. `calls` are in order of arrival."""

    number: str
    at_ms: int
    bindings: list[Binding]
    members: dict[str, list[str]]  # of that time, by group, sorted
    calls: list[CallRecord]


def ask_trace(act: UnitOfWork, number: str, at_ms: int, reason: str) -> DisclosureRequest:
    """Request a traceback. `number`: a 700 number or a party, normalised. Raises Refused without a reason."""
    return ask(act, "traceback", number, at_ms, at_ms + 1, reason)


def trace(path: Place, sealer: Sealer, asked: DisclosureRequest) -> Trace:
    """Read the traceback. Opens its own connection, so that it can run in a thread. Raises StoreError."""
    number, at_ms = asked.number, asked.since_ms
    with store_errors(path), closing(connect_reader(path)) as connection:
        bindings = list(bindings_at(connection, sealer, number, at_ms))
        groups = sorted({binding.group_id for binding in bindings if binding.group_id is not None})
        members = {group: sorted(members_at(connection, sealer, group, at_ms)) for group in groups}
        ended, up = calls_between(connection, sealer, number, at_ms, at_ms + 1)
    calls = sorted((*(one.record for one in ended), *up), key=lambda record: record.received_at)
    return Trace(number, at_ms, bindings, members, calls)


class Between(NamedTuple):
    """Calls in a span of time, each list in order of arrival."""

    ended: list[StoredRecord]
    up: list[CallRecord]


def calls_between(connection: Connection, sealer: Sealer, number: str, since_ms: int, until_ms: int) -> Between:
    """The calls of a number between two times, `until_ms` not included."""
    wanted = Wanted(number=number, since_ms=since_ms - LONGEST_CALL_MS, until_ms=until_ms)
    # Live calls first: a call that ends meanwhile is then found twice rather than never.
    up = [record for record in live_calls(connection, sealer) if wanted.fits(record)]
    read = list(read_stored(connection, sealer, wanted))
    ended = [one for one in read if one.record.ended_at is not None and one.record.ended_at >= since_ms]
    over = {one.record.call_id for one in read}
    return Between(
        sorted(ended, key=lambda one: (one.record.received_at, one.chain_seq)),
        sorted((record for record in up if record.call_id not in over), key=lambda record: record.received_at),
    )
