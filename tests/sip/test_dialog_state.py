"""The stored form of a dialog."""

from __future__ import annotations

import msgspec
import pytest

from relay.sip.dialog_state import DialogState

STATE = DialogState(
    "c1", "ours", "theirs", "<sip:a@h>", "<sip:b@h>", 7, None, "<sip:b@192.0.2.2>", ("<sip:p;lr>",), True, False
)


def test_it_is_stored_without_names_and_read_back() -> None:
    stored = msgspec.json.encode(STATE)
    assert stored.startswith(b'["c1","ours","theirs",')
    assert msgspec.json.decode(stored, type=DialogState) == STATE


@pytest.mark.parametrize(
    "wrong", [b'["c1"]', b'{"call_id":"c1"}', b'["c1","o","t","u","u","7",null,"x",[],true,false]']
)
def test_another_form_is_refused(wrong: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(wrong, type=DialogState)
