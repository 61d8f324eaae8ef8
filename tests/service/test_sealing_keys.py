"""Sealing keys: added, used, resealed with and dropped, on a store of either kind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from relay.call.binding import Binding
from relay.errors import Refused, StoreError
from relay.policy.last_caller import LastCaller
from relay.service import sealing_keys as service
from relay.service.changes import BindingChange, change
from relay.service.filings import add_filing
from relay.service.groups import make_group, remove_members
from relay.service.keys import make_key
from relay.service.lists import set_entry
from relay.service.retention import TWO_YEARS_MS, Retention, purge
from relay.store.act import Act
from relay.store.audit_log import AuditQuery, newest_entries, verify_audit
from relay.store.bindings import history
from relay.store.businesses import find_business, state_changes
from relay.store.database import open_store
from relay.store.filings import find_filing
from relay.store.groups import find_groups, members_at, members_between
from relay.store.journal_rows import caller_row, open_caller
from relay.store.key_file import make_key as make_key_file
from relay.store.key_file import read_key_file
from relay.store.keys import list_keys
from relay.store.lists import find_entries, of_business
from relay.store.reseal import RESEALED, needs, reseal
from relay.store.sealing_keys import key_in_use, sealing_keys
from relay.store.webhooks import Webhook, put_webhook, webhooks_of
from relay.store.writer import Writer
from tests.service.conftest import RULES, Desk
from tests.support.acting import Acting
from tests.support.stored import NOW_MS, A, B, X, Y

HOOK = Webhook("w1", "acme", "https://a.example/hook", "whsec_x", ("call.ended",), "none", None, 0, 0, NOW_MS)


def added(desk: Acting, key_file: Path) -> int:
    return desk.run(lambda act: service.add(act, key_file))


def used(desk: Acting, key_id: int, *unaware: str) -> None:
    desk.run(lambda act: service.use(act, key_id, unaware))


def dropped(desk: Acting, key_id: int) -> None:
    needed = needs(desk.reader).get(key_id, {})
    desk.run(lambda act: service.drop(act, key_id, needed))


def refused(do: Callable[[], object]) -> str:
    with pytest.raises(Refused) as refusal:
        do()
    return refusal.value.problem


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "relay.key"


def filled(desk: Desk) -> Binding:
    """A row in every table that is resealed."""
    desk.business("acme", contact="Wang 13800000009")
    group = desk.run(lambda act: make_group(act, "riders", RULES, "acme", ["13700000003", "13700000004"]))
    desk.run(lambda act: remove_members(act, group.group_id, ["13700000004"], RULES))
    desk.run(lambda act: set_entry(act, "business", "acme", "13600000005", "black"))
    desk.run(lambda act: add_filing(act, "acme", A, "CT-1"))
    desk.run(lambda act: make_key(act, "acme", ["bindings:read"]))
    desk.run(lambda act: put_webhook(act, HOOK))
    made: Binding = desk.bind(x=X, business="acme", order_id="o1")
    desk.bind("AXN", x=Y, business="acme", order_id="o2")
    change_ = BindingChange(b="13500000007")
    changed = desk.run(lambda act: change(act, made.binding_id, change_, RULES))
    last = LastCaller(made.binding_id, X, A, NOW_MS)
    put = "INSERT INTO last_caller (binding_id, number, caller_hash, sealed, at) VALUES (?, ?, ?, ?, ?)"
    desk.run(lambda act: act.connection.execute(put, caller_row(act.sealer, last)))
    return changed


def read(desk: Desk, made: Binding) -> list[Any]:
    """All that `filled` left, in clear."""
    reader, sealer = desk.reader, desk.sealer
    (group,) = find_groups(reader, sealer, "acme", "", 9)
    _, number, _, sealed, _ = reader.execute("SELECT * FROM last_caller").fetchone()
    return [
        desk.binding(made.binding_id),
        *history(reader, sealer, made.binding_id),
        *(find_business(reader, sealer, "acme"), state_changes(reader, sealer, "acme")),
        *(group, list(members_at(reader, sealer, group.group_id, desk.now_ms))),
        list(members_between(reader, sealer, group.group_id, 0, desk.now_ms + 1)),
        [key.signing_key for key in list_keys(reader, sealer, "acme", "", 9)],
        [entry.number for entry in find_entries(reader, sealer, of_business("acme"), b"", 9)],
        find_filing(reader, sealer, "acme", A),
        webhooks_of(reader, sealer, "acme", "", 9),
        open_caller(sealer, made.binding_id, number, sealed),
    ]


# -- adding and using


def test_an_added_key_is_in_the_file_and_not_in_use(desk: Desk, key_file: Path) -> None:
    assert added(desk, key_file) == 2
    assert list(read_key_file(key_file).masters) == [1, 2]
    assert (key_in_use(desk.reader), desk.sealer.key_id) == (1, 1)


def test_a_key_that_is_used_seals_what_is_new_and_all_is_found_as_before(desk: Desk, key_file: Path) -> None:
    before = desk.bind(x=X)
    used(desk, added(desk, key_file))
    after = desk.bind("AXB", "13700000003", "13600000004", x=Y)
    assert [desk.reaches(X, A), desk.reaches(Y, "8613700000003")] == [B, "8613600000004"]
    sealed_with = "SELECT substr(sealed, 1, 1) FROM binding WHERE id = ?"
    assert [desk.one(sealed_with, made.binding_id)[0] for made in (before, after)] == [b"\x01", b"\x02"]
    with pytest.raises(Refused, match="is bound on"):
        desk.bind(x=X, business="default", b="13500000007")
    assert verify_audit(desk.reader, desk.sealer).broken is None


def test_another_process_that_writes_turns_to_the_key_with_its_next_act(desk: Desk, key_file: Path) -> None:
    other = open_store(desk.path, key_file)
    with closing(Writer(desk.path, other)) as writer:
        used(desk, added(desk, key_file))
        assert (other.key_id, other.key_ids) == (1, [1])
        writer.run(desk.actor, lambda act: act.audit("test", "x"))
        assert (other.key_id, other.key_ids) == (2, [1, 2])


def test_another_process_that_only_reads_finds_the_key_when_it_meets_it(desk: Desk, key_file: Path) -> None:
    other = open_store(desk.path, key_file)
    used(desk, added(desk, key_file))
    desk.bind(x=X)
    assert [entry.entry.action for entry in newest_entries(desk.reader, other, AuditQuery(), None, 2)] == [
        "binding.make",
        "sealing_key.use",
    ]


def test_what_an_end_between_file_and_store_has_left_is_entered_by_the_next_add(desk: Desk, key_file: Path) -> None:
    class Ended(Exception):
        pass

    def add_and_end(act: Act) -> None:
        service.add(act, key_file)
        raise Ended

    with pytest.raises(Ended):
        desk.run(add_and_end)
    assert [key.id for key in sealing_keys(desk.reader)] == [1]
    assert added(desk, key_file) == 2
    assert list(read_key_file(key_file).masters) == [1, 2]


def test_a_key_is_not_used_while_somebody_does_not_have_it(desk: Desk, key_file: Path) -> None:
    added(desk, key_file)
    assert (
        refused(lambda: used(desk, 2, "the node b"))
        == "the node b does not have the key 2 yet: copy the key file there"
    )
    assert key_in_use(desk.reader) == 1


def test_what_cannot_be_used_is_refused(desk: Desk, key_file: Path) -> None:
    used(desk, added(desk, key_file))
    assert refused(lambda: used(desk, 1)) == "the key 1 was in use before the key 2: add a new one"
    assert refused(lambda: used(desk, 2)) == "the key 2 is in use already"
    assert refused(lambda: used(desk, 3)).startswith("the store has no key 3")


def test_a_node_whose_file_lacks_the_new_key_can_neither_add_nor_use(
    desk: Desk, key_file: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "other" / "relay.key"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(key_file.read_bytes())
    elsewhere.chmod(0o600)
    other = open_store(desk.path, elsewhere)
    added(desk, key_file)
    with closing(Writer(desk.path, other)) as writer:
        problem = refused(lambda: writer.run(desk.actor, lambda act: service.add(act, elsewhere)))
        assert problem == f"{elsewhere} does not have the key 2: copy it from where it was added"
        assert "does not have the key 2" in refused(lambda: writer.run(desk.actor, lambda act: service.use(act, 2, [])))
        used(desk, 2)
        with pytest.raises(StoreError, match=rf"the key 2, which the key file {elsewhere} does not have: add its line"):
            writer.run(desk.actor, lambda act: act.audit("test", "x"))


# -- opening


def test_a_store_does_not_open_without_a_key_that_was_in_use(desk: Desk, key_file: Path) -> None:
    before = key_file.read_bytes()
    used(desk, added(desk, key_file))
    key_file.write_bytes(before)
    with pytest.raises(StoreError, match=r"relay\.key does not have the key 2, which the store needs: put its line in"):
        open_store(desk.path, key_file)


def test_a_store_opens_without_a_key_that_never_was_in_use(desk: Desk, key_file: Path) -> None:
    before = key_file.read_bytes()
    added(desk, key_file)
    key_file.write_bytes(before)
    assert open_store(desk.path, key_file).key_id == 1


def test_a_store_does_not_open_with_another_key_of_the_same_id(desk: Desk, key_file: Path, tmp_path: Path) -> None:
    added(desk, key_file)
    wrong = tmp_path / "wrong.key"
    make_key_file(wrong)
    mine, theirs = read_key_file(key_file).masters[2].hex(), read_key_file(wrong).masters[1].hex()
    key_file.write_text(key_file.read_text().replace(mine, theirs))
    with pytest.raises(StoreError, match=r"relay\.key has another key 2 than the store: put the right one back"):
        open_store(desk.path, key_file)


# -- resealing and dropping


def test_what_lives_on_is_resealed_and_reads_as_before(desk: Desk, key_file: Path) -> None:
    made = filled(desk)
    before = read(desk, made)
    empty = [rows.table for rows in RESEALED if desk.one(f"SELECT count({rows.column}) FROM {rows.table}") == (0,)]
    assert empty == []
    used(desk, added(desk, key_file))
    assert reseal(desk.path, desk.sealer) > len(RESEALED)
    assert read(desk, made) == before
    assert set(needs(desk.reader)[1]) == {"audit"}
    assert reseal(desk.path, desk.sealer) == 0


def test_an_end_in_its_midst_loses_nothing_and_the_next_pass_goes_on(desk: Desk, key_file: Path) -> None:
    made = filled(desk)
    before = read(desk, made)
    used(desk, added(desk, key_file))
    asked = iter(range(100))
    part = reseal(desk.path, desk.sealer, lambda: next(asked) < 3)
    assert read(desk, made) == before
    assert part > 0 and reseal(desk.path, desk.sealer) > 0
    assert (read(desk, made), set(needs(desk.reader)[1])) == (before, {"audit"})


def test_a_row_that_is_changed_while_it_is_resealed_stays_changed(desk: Desk, key_file: Path) -> None:
    made = desk.bind(x=X)
    used(desk, added(desk, key_file))
    asked = 0

    def change_it() -> bool:
        """Between the look at the row and the act."""
        nonlocal asked
        asked += 1
        if asked == 1:
            desk.run(lambda act: change(act, made.binding_id, BindingChange(b="13500000007"), RULES))
        return True

    reseal(desk.path, desk.sealer, change_it)
    assert desk.reaches(X, A) == "8613500000007"


def test_a_key_is_dropped_when_all_that_needs_it_is_purged(desk: Desk, key_file: Path, tmp_path: Path) -> None:
    made = desk.bind(x=X)
    used(desk, added(desk, key_file))
    assert refused(lambda: dropped(desk, 2)) == "the key 2 is in use: add another and use that first"
    assert "the key 1 is needed still, by audit" in refused(lambda: dropped(desk, 1))
    reseal(desk.path, desk.sealer)
    desk.now_ms += TWO_YEARS_MS + 60_000
    purge(desk.writer, Retention(), tmp_path, desk.now_ms)
    reseal(desk.path, desk.sealer)  # the checkpoint
    dropped(desk, 1)
    assert service.forget(key_file, 1, desk.sealer.hash_keys)
    again = open_store(desk.path, key_file)
    assert (again.key_ids, again.key_id) == ([2], 2)
    assert verify_audit(desk.reader, again).broken is None
    assert desk.binding(made.binding_id).b == B
    assert not service.forget(key_file, 1, desk.sealer.hash_keys)
    dropped(desk, 1)


def test_a_key_that_never_was_in_use_is_dropped_at_once_and_its_id_never_comes_again(
    desk: Desk, key_file: Path
) -> None:
    dropped(desk, added(desk, key_file))
    service.forget(key_file, 2, desk.sealer.hash_keys)
    assert added(desk, key_file) == 3
    assert refused(lambda: used(desk, 2)).startswith("the key 2 was in use before")


def test_the_last_id_is_the_last(desk: Desk, key_file: Path) -> None:
    added(desk, key_file)
    desk.run(lambda act: act.connection.execute("UPDATE sealing_key SET id = 255 WHERE id = 2"))
    service.forget(key_file, 2, desk.sealer.hash_keys)
    desk.run(lambda act: act.connection.execute("UPDATE sealing_key SET dropped_at = 1 WHERE id = 255"))
    assert "255 keys" in refused(lambda: added(desk, key_file))


def test_the_acts_stand_in_the_audit_log(desk: Desk, key_file: Path) -> None:
    desk.bind(x=X)
    used(desk, added(desk, key_file))
    reseal(desk.path, desk.sealer)
    dropped(desk, added(desk, key_file))
    entries = [logged.entry for logged in newest_entries(desk.reader, desk.sealer, AuditQuery(), None, 5)]
    assert [(entry.action, entry.object_) for entry in entries] == [
        ("sealing_key.drop", "3"),
        ("sealing_key.add", "3"),
        ("sealing_key.reseal", "2"),
        ("sealing_key.use", "2"),
        ("sealing_key.add", "2"),
    ]
