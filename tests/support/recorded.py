"""A recording in a store, as the backend creates it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from relay.store.recordings import Recording, add_recording, file_of, seal_file
from relay.store.unit_of_work import UnitOfWork


def keep(
    unit: UnitOfWork,
    kept_in: Path,
    call_id: str,
    data: bytes,
    business: str = "default",
) -> Recording:
    """Insert the row, and write the file."""
    seal_file(file_of(kept_in, call_id), unit.sealer, "aes-256-gcm", call_id, [data])
    made = Recording(call_id, business, unit.now_ms, 1_500, len(data), hashlib.sha256(data).hexdigest())
    add_recording(unit, made)
    return made
