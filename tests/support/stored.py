"""Records and bindings for tests of the store, the journal and the commands."""

from __future__ import annotations

from contextlib import closing

from relay.model.binding import Binding
from relay.model.call import CallRecord
from relay.model.numbers import Parties
from relay.service.placement import BindRules, allocate_and_store, release_numbers
from relay.store.bindings import find_binding, update
from relay.store.connection import Connection, Place
from relay.store.record_index import IndexRow, index_rows
from relay.store.record_rows import open_row, row_of
from relay.store.records import RecordFilter, live_calls, read_all
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.writer import Writer

PREFIX = "70010000001"
X, Y = PREFIX + "0001", PREFIX + "0002"
A, B = "8613800000001", "8613900000002"
_NUMBER = "INSERT INTO number (number, prefix, pool) VALUES (?, '', 'default') ON CONFLICT DO NOTHING"
PBX = Parties(extensions=(("8000", "8999"),))  # mobile numbers, and extensions of a PBX
NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def rows_of(sealer: Sealer, record: CallRecord, seq: int) -> list[IndexRow]:
    """The index rows of an ended record."""
    row, _ = row_of(sealer, record)
    return index_rows(sealer, open_row(sealer, (*row, seq, b"")))


def binding(binding_id: str = "b1", **changes: object) -> Binding:
    """An AXB binding of A and B on X, made at NOW_MS, without an end."""
    made = Binding(binding_id, "AXB", "default", "order-1", X, None, A, B, NOW_MS, None)
    return made._replace(**changes)  # type: ignore[arg-type]


def put(path: Place, sealer: Sealer, *bindings: Binding, now_ms: int = NOW_MS) -> None:
    """Make them in a store, adding missing numbers. Raises Refused."""

    def do(unit: UnitOfWork) -> None:
        for made in bindings:
            numbers = [number for number in (made.x, made.y) if number]
            unit.connection.executemany(_NUMBER, [(n,) for n in numbers])
            allocate_and_store(unit, made, [200] * len(numbers))

    with closing(Writer(path, sealer, clock_ms=lambda: now_ms)) as writer:
        writer.run(RELAY, do)


def end(path: Place, sealer: Sealer, binding_id: str, now_ms: int = NOW_MS) -> None:
    """Unbind one of them."""

    def do(unit: UnitOfWork) -> None:
        found = find_binding(unit.connection, unit.sealer, binding_id)
        assert found is not None
        release_numbers(unit, found, BindRules())
        update(unit, found._replace(ended_at=now_ms, released_at=now_ms))

    with closing(Writer(path, sealer, clock_ms=lambda: now_ms)) as writer:
        writer.run(RELAY, do)


def all_records(connection: Connection, sealer: Sealer) -> list[CallRecord]:
    """The records of all calls, ended and up, in order of arrival."""
    found = [*read_all(connection, sealer, RecordFilter()), *live_calls(connection, sealer)]
    return sorted(found, key=lambda record: record.received_at)


def live_record(call_id: str = "c1", **changes: object) -> CallRecord:
    """A live call from A through X to B."""
    record = CallRecord(
        call_id=call_id,
        binding_id="b1",
        mode="AXB",
        business="default",
        order_id="order-1",
        number_dialled=X,
        number_shown=X,
        caller=A,
        callee=B,
        peer_in="pbx",
        peer_out="carrier",
        received_at=NOW_MS,
        routed_at=NOW_MS + 1,
        ringing_at=NOW_MS + 200,
        answered_at=NOW_MS + 3_000,
        ended_at=None,
        duration_ms=None,
        sip_status=200,
        q850_cause=None,
        outcome=None,
        ended_by=None,
        end_reason=None,
        caller_leg_call_id="a84b4c76e66710@13800000001.example",
        callee_leg_call_id="f00d" * 8,
    )
    return record._replace(**changes)


def ended_record(call_id: str = "c1", **changes: object) -> CallRecord:
    """The same call, hung up by its caller after ten seconds."""
    record = live_record(call_id)._replace(
        ended_at=NOW_MS + 13_000,
        duration_ms=10_000,
        q850_cause=16,
        outcome="answered",
        ended_by="caller",
        end_reason="bye",
    )
    return record._replace(**changes)
