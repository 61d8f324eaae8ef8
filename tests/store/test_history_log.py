"""The audit log is read from its end backwards, and each entry is verified."""

from __future__ import annotations

from contextlib import closing

import pytest

from relay.errors import StoreError
from relay.store import history_log
from relay.store.audit import purge_audit
from relay.store.database import connect
from relay.store.history import KEY_GRACE_MS
from relay.store.history_log import LogReader
from relay.store.unit_of_work import Actor
from tests.support.acting import Acting

USER = Actor("key:k1", None, frozenset())


@pytest.fixture
def filled(store: Acting, monkeypatch: pytest.MonkeyPatch) -> Acting:
    """With the end of a key in its first line, and its use after that in the last of ten; read two at once."""
    monkeypatch.setattr(history_log, "CHUNK", 2)
    store.run(lambda unit: unit.audit("key.revoke", "k1"))
    for _ in range(8):
        store.run(lambda unit: unit.audit("read", "b1"))
    store.now_ms += KEY_GRACE_MS + 1
    store.run(lambda unit: unit.audit("binding.make", "b1"), USER)
    return store


def test_older_entries_are_read_in_chunks_the_latest_first(filled: Acting) -> None:
    log = LogReader(filled.sealer)
    log.read_new(filled.reader)
    for _ in range(4):
        log.read_older(filled.reader)
        assert (log.is_complete, log.take_faults()) == (False, [])
    log.read_older(filled.reader)
    (fault,) = log.take_faults()
    assert fault.startswith("api_key k1: was used after line 1 ")
    assert (log.is_complete, log.take_faults()) == (True, [])


def test_new_entries_are_read_up_to_the_last(filled: Acting) -> None:
    log = LogReader(filled.sealer)
    log.read_new(filled.reader)
    log.read_older(filled.reader, all_=True)
    assert len(log.take_faults()) == 1
    for _ in range(3):
        filled.run(lambda unit: unit.audit("binding.make", "b1"), USER)
    log.read_new(filled.reader)
    assert len(log.take_faults()) == 3


def test_reading_begins_behind_what_was_purged(filled: Acting) -> None:
    filled.run(lambda unit: purge_audit(unit, filled.now_ms, 3))
    log = LogReader(filled.sealer)
    log.read_new(filled.reader)
    log.read_older(filled.reader, all_=True)
    assert (log.is_complete, log.take_faults()) == (True, [])


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("UPDATE audit SET action = 'read' WHERE seq = 1", "entry 1 of the audit log was altered"),
        ("UPDATE audit SET object = 'b2' WHERE seq = 4", "entry 4 of the audit log was altered"),
        ("DELETE FROM audit WHERE seq = 5", "entry 5 of the audit log is missing"),
        ("DELETE FROM audit WHERE seq = 4", "entry 4 of the audit log is missing"),
    ],
)
def test_altered_and_missing_entries_are_named_and_the_others_count(filled: Acting, deed: str, said: str) -> None:
    with closing(connect(filled.path)) as thief:
        thief.execute(deed)
    log = LogReader(filled.sealer)
    log.read_new(filled.reader)
    log.read_older(filled.reader, all_=True)
    faults = log.take_faults()
    assert any(fault.startswith(said) for fault in faults)
    assert any(fault.startswith("api_key k1: was used after line 1 ") for fault in faults) == ("seq = 1" not in deed)


def test_last_entry_that_was_removed_is_named_and_the_next_ones_count(filled: Acting) -> None:
    log = LogReader(filled.sealer)
    log.read_new(filled.reader)
    log.read_older(filled.reader, all_=True)
    log.take_faults()
    filled.run(lambda unit: unit.audit("read", "b1"))
    with closing(connect(filled.path)) as thief:
        thief.execute("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)")
    log.read_new(filled.reader)
    (fault,) = log.take_faults()
    assert fault.endswith("of the audit log is missing")
    for _ in range(2):
        filled.run(lambda unit: unit.audit("binding.make", "b1"), USER)
    log.read_new(filled.reader)
    faults = log.take_faults()
    assert any(fault.startswith("api_key k1: was used after line 1 ") for fault in faults)


def test_forged_head_is_an_error(filled: Acting) -> None:
    with closing(connect(filled.path)) as thief:
        thief.execute("UPDATE audit_head SET seq = seq + 1")
    with pytest.raises(StoreError, match="the head of the audit log was altered"):
        LogReader(filled.sealer).read_new(filled.reader)
