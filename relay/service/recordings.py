"""The rules of reading and deleting recordings: by whom, with what line in the audit log, and by links that end.

A link is the path of a WAV file with its time, its key and a MAC: whoever has it needs no key of their own. It ends
with its key, when that is revoked, rotated or expires, and with its business user.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlencode

from relay.errors import Refused
from relay.service import fields
from relay.service.fields import format_moment
from relay.store.keys import ApiKey, find_key
from relay.store.recordings import Channels, Recording, delete_file, file_of, find_recording, mark_deleted
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

RECORDINGS: Final = "recordings:read"

LINK_S: Final = 600  # usual life of a link
LONGEST_LINK_S: Final = 7 * 86_400
SHORTEST_LINK_S: Final = 10


def ask_recording(
    unit: UnitOfWork, call_id: str, reason: str = "", details: dict[str, object] | None = None
) -> Recording:
    """Write the reading to the audit log and return the recording. An operator needs a reason. Raises Refused."""
    why = fields.reason(reason, required=unit.actor.business is None)
    found = _found(unit, call_id)
    unit.audit("recording.read", call_id, business=found.business or None, reason=why, details=details or {})
    return found


def _found(unit: UnitOfWork, call_id: str) -> Recording:
    """A recording that the actor may read. Raises Refused."""
    found = find_recording(unit.connection, unit.sealer, call_id) if call_id.isprintable() else None
    if found is None or unit.actor.business not in (None, found.business):
        raise Refused("not_found", "", "there is no recording of such a call, or not yet")
    _check_kept(found)
    return found


def _check_kept(recording: Recording) -> None:
    if recording.purged_at is not None:
        raise Refused("not_found", "", f"the recording was deleted at {format_moment(recording.purged_at)}")


# -- Deletion before the end of the retention


def delete_recording(unit: UnitOfWork, kept_in: Path, call_id: str, reason: str) -> Recording:
    """Mark a recording as deleted; `delete_file` must follow, once this is committed. Raises Refused.

    The row stays as long as the call's record, and is proven like it, so `verify` knows a deletion from a loss. A
    repetition is allowed as long as the file is there.
    """
    why = fields.reason(reason, required=True)
    found = find_recording(unit.connection, unit.sealer, call_id)
    if found is None:
        raise Refused("not_found", "", "there is no recording of such a call, or not yet")
    if not file_of(kept_in, call_id).exists():
        if found.purged_at is not None:
            raise Refused("ended", "", f"the recording was deleted at {format_moment(found.purged_at)}")
        raise Refused("state_conflict", "", f"its file is not in {kept_in} here: delete it on the node that has it")
    deleted = found if found.purged_at is not None else found._replace(purged_at=unit.now_ms)
    mark_deleted(unit, deleted)
    details: dict[str, object] = {"sha256": found.sha256, "length_ms": found.length_ms}
    unit.audit("recording.delete", call_id, business=found.business or None, reason=why, details=details)
    return deleted


def delete_marked(kept_in: Path, call_id: str) -> None:
    """Delete the file of a recording that is marked. Raises StoreError if that fails: repeat it all then."""
    delete_file(file_of(kept_in, call_id))


# -- Links


class RecordingLink(NamedTuple):
    """The signed part of a link. `expires_s`: Unix seconds."""

    call_id: str
    channels: Channels
    expires_s: int
    key_id: str

    def path(self, sealer: Sealer) -> str:
        """The path with its query."""
        query = {"channels": self.channels, "expires": self.expires_s, "key": self.key_id}
        query |= {"sig": self.signature(sealer)}
        return f"/recordings/{self.call_id}.wav?{urlencode(query)}"

    def signature(self, sealer: Sealer) -> str:
        """A keyed MAC of 128 bits, in hexadecimal digits."""
        return sealer.row_mac(
            f"recording link {self.call_id} wav {self.channels} {self.expires_s} {self.key_id}".encode()
        ).hex()


def make_link(
    unit: UnitOfWork, call_id: str, key_id: str, *, channels: Channels = "mono", life_s: int = LINK_S, reason: str = ""
) -> RecordingLink:
    """A link to a recording's WAV file, bound to a key that may read it. Raises Refused."""
    if not SHORTEST_LINK_S <= life_s <= LONGEST_LINK_S:
        raise fields.invalid("expires_in_s", f"must be {SHORTEST_LINK_S} to {LONGEST_LINK_S} seconds (7 days)")
    why = fields.reason(reason, required=unit.actor.business is None)
    found = _found(unit, call_id)
    key = find_key(unit.connection, unit.sealer, key_id)
    if key is None or not _may_read(key, found, unit.now_ms):
        raise Refused("not_found", "key", f"there is no valid key {key_id} that has {RECORDINGS} for this call")
    last_ms = unit.now_ms + 1000 * life_s
    link = RecordingLink(call_id, channels, min(last_ms, key.expires_at or last_ms) // 1000, key_id)
    details: dict[str, object] = {"key": key_id, "channels": channels, "expires_at": 1000 * link.expires_s}
    unit.audit("recording.link", call_id, business=found.business or None, reason=why, details=details)
    return link


def _may_read(key: ApiKey, recording: Recording, now_ms: int) -> bool:
    return key.is_good(now_ms) and RECORDINGS in key.scopes and key.business in (None, recording.business)


def link_over() -> Refused:
    """The refusal of a link, the same for each fault."""
    return Refused("unauthorised", "", "the link is wrong or has ended: ask for a new one")


def is_signed(sealer: Sealer, link: RecordingLink, signature: str) -> bool:
    return hmac.compare_digest(link.signature(sealer), signature)


def follow_link(unit: UnitOfWork, link: RecordingLink, source: str) -> Recording:
    """Write the reading by a link, whose signature holds, to the audit log and return the recording.

    The actor is the link's key; `source`: the address that asks. Raises Refused.
    """
    key = find_key(unit.connection, unit.sealer, link.key_id)
    found = find_recording(unit.connection, unit.sealer, link.call_id)
    if 1000 * link.expires_s <= unit.now_ms or key is None or found is None or not _may_read(key, found, unit.now_ms):
        raise link_over()
    _check_kept(found)
    details: dict[str, object] = {"expires_at": 1000 * link.expires_s, "channels": link.channels, "source": source}
    unit.audit("recording.read", link.call_id, business=found.business or None, details=details)
    return found
