"""Sealing keys: adding, using, resealing and dropping, on both kinds of store."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from relay.errors import Refused, StoreError
from relay.model.binding import Binding
from relay.model.capture import CaptureRules
from relay.policy.rules import LastCaller
from relay.service.capture import arm
from relay.service.filings import FilingWords, add_filing
from relay.service.groups import make_group, remove_members, set_entry
from relay.service.keys import make_key
from relay.service.papers import submit_paper
from relay.service.retention import TWO_YEARS_MS, Retention, purge
from relay.service.users import add_user
from relay.store.audit import AuditQuery, newest_entries, verify_audit
from relay.store.bindings import history
from relay.store.businesses import find_business, state_changes
from relay.store.capture_arms import list_arms
from relay.store.configurations import find_configuration, put_configuration
from relay.store.database import open_store
from relay.store.filings import filing_at, find_filing
from relay.store.groups import find_entries, find_groups, members_between, of_business
from relay.store.hooks import Hook, find_hook, put_hook
from relay.store.journal.rows import caller_row, open_caller
from relay.store.keys import list_keys
from relay.store.maintenance import RESEALED, count_rows_by_key, reseal
from relay.store.papers import papers_of, read_file
from relay.store.sealing import keys as rotation
from relay.store.sealing.keys import key_in_use, sealing_keys
from relay.store.sealing.sealer import make_key as make_key_file
from relay.store.sealing.sealer import read_key_file
from relay.store.unit_of_work import UnitOfWork
from relay.store.users import find_user
from relay.store.webhooks import Webhook, put_webhook, webhooks_of
from relay.store.writer import Writer
from tests.service.conftest import RULES, Backend
from tests.support.acting import Acting
from tests.support.papers import permit
from tests.support.stored import NOW_MS, A, B, X, Y
from tests.support.written import change

WEBHOOK = Webhook("w1", "acme", "https://a.example/hook", "whsec_x", ("call.ended",), "none", None, 0, 0, NOW_MS)
HOOK = Hook("acme", "https://a.example/ask", "hook_x", "none", False, None, NOW_MS, NOW_MS)


def added(backend: Acting, key_file: Path) -> int:
    return backend.run(lambda unit: rotation.add(unit, key_file))


def used(backend: Acting, key_id: int, *unaware: str) -> None:
    backend.run(lambda unit: rotation.use(unit, key_id, unaware))


def dropped(backend: Acting, key_id: int) -> None:
    needed = count_rows_by_key(backend.reader).get(key_id, {})
    backend.run(lambda unit: rotation.drop(unit, key_id, needed))


def refused(do: Callable[[], object]) -> str:
    with pytest.raises(Refused) as refusal:
        do()
    return refusal.value.problem


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "relay.key"


def filled(backend: Backend) -> Binding:
    """Add a row to every table that is resealed."""
    backend.business("acme", contact="Wang 13800000009")
    group = backend.run(lambda unit: make_group(unit, "riders", RULES, "acme", ["13700000003", "13700000004"]))
    backend.run(lambda unit: remove_members(unit, group.group_id, ["13700000004"], RULES))
    backend.run(lambda unit: set_entry(unit, "business", "acme", "13600000005", "black"))
    backend.run(lambda unit: add_filing(unit, "acme", FilingWords(A, "CT-1", "张三", document="11010519491231002X")))
    backend.now_ms += 1
    backend.run(lambda unit: add_filing(unit, "acme", FilingWords(A, "CT-2")))
    backend.run(lambda unit: make_key(unit, "acme", ["bindings:read"]))
    backend.run(lambda unit: arm(unit, "number", A, 3_600_000, CaptureRules(), None))
    backend.run(lambda unit: put_webhook(unit, WEBHOOK))
    backend.run(lambda unit: put_hook(unit, HOOK))
    backend.run(lambda unit: put_configuration(unit, "", "[sip]"))
    backend.run(lambda unit: add_user(unit, "acme.boss", "business_admin", "acme"))
    backend.run(lambda unit: submit_paper(unit, "business acme", permit()))
    made: Binding = backend.bind(x=X, business="acme", order_id="o1")
    backend.bind("AXN", x=Y, business="acme", order_id="o2")
    change_ = {"b": "13500000007"}
    changed = backend.run(lambda unit: change(unit, made.binding_id, change_, RULES))
    last = LastCaller(made.binding_id, X, A, NOW_MS)
    put = "INSERT INTO last_caller (binding_id, number, caller_hash, sealed, at) VALUES (?, ?, ?, ?, ?)"
    backend.run(lambda unit: unit.connection.execute(put, caller_row(unit.sealer, last)))
    return changed


def read(backend: Backend, made: Binding) -> list[Any]:
    """All rows of `filled`, in clear."""
    reader, sealer = backend.reader, backend.sealer
    (group,) = find_groups(reader, sealer, "acme", "", 9)
    _, number, _, sealed, _ = reader.execute("SELECT * FROM last_caller").fetchone()
    return [
        backend.binding(made.binding_id),
        *history(reader, sealer, made.binding_id),
        *(find_business(reader, sealer, "acme"), state_changes(reader, sealer, "acme")),
        group,
        list(members_between(reader, sealer, group.group_id, 0, backend.now_ms + 1)),
        [key.signing_key for key in list_keys(reader, sealer, "acme", "", 9)],
        [entry.number for entry in find_entries(reader, sealer, of_business("acme"), b"", 9)],
        find_filing(reader, sealer, "acme", A),
        filing_at(reader, sealer, "acme", A, backend.now_ms - 1),
        (webhooks_of(reader, sealer, "acme", "", 9), find_hook(reader, sealer, "acme")),
        (find_configuration(reader, sealer, "", backend.now_ms), find_user(reader, sealer, "acme.boss")),
        [(paper, read_file(reader, sealer, paper)) for paper in papers_of(reader, sealer, "business acme")],
        list_arms(reader, sealer, backend.now_ms, "", 9),
        open_caller(sealer, made.binding_id, number, sealed),
    ]


# -- adding and using


def test_an_added_key_is_in_the_file_and_not_in_use(backend: Backend, key_file: Path) -> None:
    assert added(backend, key_file) == 2
    assert list(read_key_file(key_file).masters) == [1, 2]
    assert (key_in_use(backend.reader), backend.sealer.key_id) == (1, 1)


def test_a_used_key_seals_new_rows_and_old_rows_stay_readable(backend: Backend, key_file: Path) -> None:
    before = backend.bind(x=X)
    used(backend, added(backend, key_file))
    after = backend.bind("AXB", "13700000003", "13600000004", x=Y)
    assert [backend.reaches(X, A), backend.reaches(Y, "8613700000003")] == [B, "8613600000004"]
    sealed_with = "SELECT substr(sealed, 1, 1) FROM binding WHERE id = ?"
    assert [backend.one(sealed_with, made.binding_id)[0] for made in (before, after)] == [b"\x01", b"\x02"]
    with pytest.raises(Refused, match="is bound on"):
        backend.bind(x=X, business="default", b="13500000007")
    assert verify_audit(backend.reader, backend.sealer).broken is None


def test_another_writer_uses_the_key_from_its_next_unit_of_work(backend: Backend, key_file: Path) -> None:
    other = open_store(backend.path, key_file)
    with closing(Writer(backend.path, other)) as writer:
        used(backend, added(backend, key_file))
        assert (other.key_id, other.key_ids) == (1, [1])
        writer.run(backend.actor, lambda unit: unit.audit("test", "x"))
        assert (other.key_id, other.key_ids) == (2, [1, 2])


def test_another_reader_loads_the_key_when_it_needs_it(backend: Backend, key_file: Path) -> None:
    other = open_store(backend.path, key_file)
    used(backend, added(backend, key_file))
    backend.bind(x=X)
    assert [entry.entry.action for entry in newest_entries(backend.reader, other, AuditQuery(), None, 2)] == [
        "binding.make",
        "sealing_key.use",
    ]


def test_add_registers_a_key_left_in_the_file_by_a_crash(backend: Backend, key_file: Path) -> None:
    class Ended(Exception):
        pass

    def add_and_end(unit: UnitOfWork) -> None:
        rotation.add(unit, key_file)
        raise Ended

    with pytest.raises(Ended):
        backend.run(add_and_end)
    assert [key.id for key in sealing_keys(backend.reader)] == [1]
    assert added(backend, key_file) == 2
    assert list(read_key_file(key_file).masters) == [1, 2]


def test_use_is_refused_while_a_process_lacks_the_key(backend: Backend, key_file: Path) -> None:
    added(backend, key_file)
    assert (
        refused(lambda: used(backend, 2, "the node b"))
        == "the node b does not have the key 2 yet: copy the key file there"
    )
    assert key_in_use(backend.reader) == 1


def test_use_is_refused_for_old_current_and_unknown_keys(backend: Backend, key_file: Path) -> None:
    used(backend, added(backend, key_file))
    assert refused(lambda: used(backend, 1)) == "the key 1 was replaced or dropped: add a new one"
    assert refused(lambda: used(backend, 2)) == "the key 2 is already in use"
    assert refused(lambda: used(backend, 3)).startswith("the store has no key 3")


def test_add_and_use_are_refused_on_a_node_without_the_new_key(
    backend: Backend, key_file: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "other" / "relay.key"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(key_file.read_bytes())
    elsewhere.chmod(0o600)
    other = open_store(backend.path, elsewhere)
    added(backend, key_file)
    with closing(Writer(backend.path, other)) as writer:
        problem = refused(lambda: writer.run(backend.actor, lambda unit: rotation.add(unit, elsewhere)))
        assert problem == f"{elsewhere} lacks the key 2: copy it from the node that added it"
        assert "lacks the key 2" in refused(lambda: writer.run(backend.actor, lambda unit: rotation.use(unit, 2, [])))
        used(backend, 2)
        with pytest.raises(StoreError, match=rf"the key 2, which the key file {elsewhere} does not have: add its line"):
            writer.run(backend.actor, lambda unit: unit.audit("test", "x"))


# -- opening


def test_a_store_does_not_open_without_a_key_that_was_in_use(backend: Backend, key_file: Path) -> None:
    before = key_file.read_bytes()
    used(backend, added(backend, key_file))
    key_file.write_bytes(before)
    with pytest.raises(StoreError, match=r"relay\.key does not have the key 2, which the store needs: add its line"):
        open_store(backend.path, key_file)


def test_a_store_opens_without_a_key_that_was_never_in_use(backend: Backend, key_file: Path) -> None:
    before = key_file.read_bytes()
    added(backend, key_file)
    key_file.write_bytes(before)
    assert open_store(backend.path, key_file).key_id == 1


def test_a_store_does_not_open_with_another_key_of_the_same_id(
    backend: Backend, key_file: Path, tmp_path: Path
) -> None:
    added(backend, key_file)
    wrong = tmp_path / "wrong.key"
    make_key_file(wrong)
    mine, theirs = read_key_file(key_file).masters[2].hex(), read_key_file(wrong).masters[1].hex()
    key_file.write_text(key_file.read_text().replace(mine, theirs))
    with pytest.raises(StoreError, match=r"relay\.key has another key 2 than the store: put the right one back"):
        open_store(backend.path, key_file)


# -- resealing and dropping


def test_reseal_covers_all_rows_but_the_audit_log(backend: Backend, key_file: Path) -> None:
    made = filled(backend)
    before = read(backend, made)
    empty = [rows.table for rows in RESEALED if backend.one(f"SELECT count({rows.column}) FROM {rows.table}") == (0,)]
    assert empty == []
    used(backend, added(backend, key_file))
    assert reseal(backend.path, backend.sealer) > len(RESEALED)
    assert read(backend, made) == before
    assert set(count_rows_by_key(backend.reader)[1]) == {"audit"}
    assert reseal(backend.path, backend.sealer) == 0


def test_an_interrupted_reseal_loses_nothing_and_is_continued(backend: Backend, key_file: Path) -> None:
    made = filled(backend)
    before = read(backend, made)
    used(backend, added(backend, key_file))
    asked = iter(range(100))
    part = reseal(backend.path, backend.sealer, lambda: next(asked) < 3)
    assert read(backend, made) == before
    assert part > 0 and reseal(backend.path, backend.sealer) > 0
    assert (read(backend, made), set(count_rows_by_key(backend.reader)[1])) == (before, {"audit"})


def test_reseal_keeps_a_concurrent_change(backend: Backend, key_file: Path) -> None:
    made = backend.bind(x=X)
    used(backend, added(backend, key_file))
    asked = 0

    def change_it() -> bool:
        """Change the binding after its row was read and before it is resealed."""
        nonlocal asked
        asked += 1
        if asked == 1:
            backend.run(lambda unit: change(unit, made.binding_id, {"b": "13500000007"}, RULES))
        return True

    reseal(backend.path, backend.sealer, change_it)
    assert backend.reaches(X, A) == "8613500000007"


def test_drop_is_refused_until_no_row_needs_the_key(backend: Backend, key_file: Path, tmp_path: Path) -> None:
    made = backend.bind(x=X)
    used(backend, added(backend, key_file))
    assert refused(lambda: dropped(backend, 2)) == "the key 2 is in use: add and use another first"
    assert "the key 1 is still needed by rows of audit " in refused(lambda: dropped(backend, 1))
    reseal(backend.path, backend.sealer)
    backend.now_ms += TWO_YEARS_MS + 60_000
    purge(backend.writer, Retention(), tmp_path, backend.now_ms)
    reseal(backend.path, backend.sealer)  # the checkpoint
    dropped(backend, 1)
    assert rotation.forget(key_file, 1, backend.sealer.hash_keys)
    again = open_store(backend.path, key_file)
    assert (again.key_ids, again.key_id) == ([2], 2)
    assert verify_audit(backend.reader, again).broken is None
    assert backend.binding(made.binding_id).b == B
    assert not rotation.forget(key_file, 1, backend.sealer.hash_keys)
    dropped(backend, 1)


def test_an_unused_key_is_dropped_at_once_and_its_id_not_reused(backend: Backend, key_file: Path) -> None:
    dropped(backend, added(backend, key_file))
    rotation.forget(key_file, 2, backend.sealer.hash_keys)
    assert added(backend, key_file) == 3
    assert refused(lambda: used(backend, 2)).startswith("the key 2 was replaced or dropped")


def test_add_is_refused_after_the_last_id(backend: Backend, key_file: Path) -> None:
    added(backend, key_file)
    columns = "proof, added_at, used_at, dropped_at"
    copy = f"INSERT INTO sealing_key (id, {columns}) SELECT 255, {columns} FROM sealing_key WHERE id = 2"
    backend.run(lambda unit: unit.connection.execute(copy))
    backend.run(lambda unit: unit.connection.execute("DELETE FROM sealing_key WHERE id = 2"))
    rotation.forget(key_file, 2, backend.sealer.hash_keys)
    backend.run(lambda unit: unit.connection.execute("UPDATE sealing_key SET dropped_at = 1 WHERE id = 255"))
    assert "255 keys" in refused(lambda: added(backend, key_file))


def test_changes_of_sealing_keys_are_audited(backend: Backend, key_file: Path) -> None:
    backend.bind(x=X)
    used(backend, added(backend, key_file))
    reseal(backend.path, backend.sealer)
    dropped(backend, added(backend, key_file))
    entries = [logged.entry for logged in newest_entries(backend.reader, backend.sealer, AuditQuery(), None, 5)]
    assert [(entry.action, entry.object_) for entry in entries] == [
        ("sealing_key.drop", "3"),
        ("sealing_key.add", "3"),
        ("sealing_key.reseal", "2"),
        ("sealing_key.use", "2"),
        ("sealing_key.add", "2"),
    ]
