"""The stored form of a dialog, for msgspec. Not compiled with the rest of relay.sip."""

from __future__ import annotations

import msgspec


class DialogState(msgspec.Struct, array_like=True, frozen=True):
    """A dialog as stored for a restart. Texts are in the form that `Dialog.to_state` makes."""

    call_id: str
    local_tag: str
    remote_tag: str
    local_uri: str
    remote_uri: str
    local_cseq: int
    remote_cseq: int | None
    remote_target: str
    route_set: tuple[str, ...]
    confirmed: bool
    secure: bool
