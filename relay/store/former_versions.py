"""Calls routed by a former version of their binding: somebody put an old row back, with its proof, for a moment.

The records hold the party that each call was put through to. A call is named if no version that may have been in force
leads there, and an earlier one does. Versions that differ only in times and limits are not told apart, nor are targets
of a call-back to AXN, GXB or GXYB. Reads only; `relay.store.history` knows the changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from relay.errors import StoreError
from relay.model.binding import GROUP_MODES, Binding
from relay.model.call import CallRecord
from relay.store.bindings import find_binding, history
from relay.store.connection import Connection
from relay.store.history import CALL_GRACE_MS, BindingVersion, History
from relay.store.ledger_check import LedgerFault
from relay.store.record_rows import StoredRecord
from relay.store.sealing.sealer import Sealer


class FormerUse(NamedTuple):
    """A call, and the change before which its binding led there."""

    record: CallRecord
    change: BindingVersion

    def __str__(self) -> str:
        call, line = self.record.call_id, self.change.seq
        what = f"was used as it was before line {line} of the audit log: call {call}"
        return str(LedgerFault("binding", self.record.binding_id or "", what))


def former_uses(
    connection: Connection, sealer: Sealer, log: History, calls: Sequence[StoredRecord]
) -> Iterator[FormerUse]:
    """Yield the calls that used a binding as it was before a change. Call it within `one_moment`."""
    changed = log.changes(sorted({call.record.binding_id or "" for call in calls}))

    @lru_cache(maxsize=1_000)
    def versions(binding_id: str) -> list[Binding]:
        """All versions, oldest first; none if a row was altered, which the check of the rows names."""
        try:
            present = find_binding(connection, sealer, binding_id)
            return [] if present is None else [*history(connection, sealer, binding_id), present]
        except StoreError:
            return []

    for call in calls:
        binding_id = call.record.binding_id or ""
        before = [change for change in changed.get(binding_id, ()) if _is_after(call, change)]
        if before and (found := _former(call.record, before, versions(binding_id))) is not None:
            yield FormerUse(call.record, found)


def _is_after(call: StoredRecord, change: BindingVersion) -> bool:
    """Whether the call came after the change, by the chains and by the clocks."""
    return call.chain_seq > change.records and call.record.received_at > change.at + CALL_GRACE_MS


def _former(record: CallRecord, before: list[BindingVersion], versions: list[Binding]) -> BindingVersion | None:
    """The change that removed the call's target; `before`: the changes before the call."""
    least = max(change.version for change in before)  # of a version that may have been in force
    leads = [version for version in versions if (record.number_dialled, record.callee) in _lines(version)]
    if not leads or any(version.version >= least for version in leads):
        return None
    last = max(version.version for version in leads)
    return min((change for change in before if change.version > last), key=lambda change: change.version)


def _lines(binding: Binding) -> set[tuple[str, str | None]]:
    """The numbers that always lead to the same party, each with that party."""
    to_b, to_a = (binding.x, binding.b), (binding.y or binding.x, binding.a)
    lines = {"a_to_b": {to_b}, "b_to_a": {to_a}}.get(binding.direction, {to_a, to_b})
    if binding.mode in GROUP_MODES:
        return lines - {to_a}
    return lines - {to_b} if binding.mode == "AXN" else lines
