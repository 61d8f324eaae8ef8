"""A right put back with its old proof meets its change at the look-up: on other nodes, and after a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.errors import StoreError
from relay.policy.call_policy import CallPolicy
from relay.policy.rules import Rules
from relay.service import keys
from relay.service.bindings import change, end
from relay.service.businesses import set_state
from relay.service.filings import FilingWords, add_filing, remove_filing
from relay.service.groups import add_members, make_group, remove_entry, remove_members, set_entry
from relay.service.numbers import lock, unlock
from relay.store.connection import one_moment
from relay.store.database import Reader, connect, open_store
from relay.store.keys import find_key
from relay.store.ledger import learn_head, read_ledger_head, require_proofs, sign_all
from relay.store.ledger_check import PUT_BACK, ledger_faults
from relay.store.migrate import LEFT_OUT
from relay.store.recent_changes import ChangeCount, change_faults, note_changes, take_changes
from relay.store.sealing.sealer import KEPT_CHANGES, Sealer, load_key
from relay.store.unit_of_work import UnitOfWork
from tests.service.conftest import RULES, Backend
from tests.support import places
from tests.support.ledger_attacks import Copies
from tests.support.look_ups import LookUps
from tests.support.stored import PBX, A, B, X, Y

C = "8613700000003"
RIGHTS: Final = Rules(parties=PBX)


class Process:
    """A process that grants, beside the one that writes: with its own memory."""

    def __init__(self, backend: Backend, sealer: Sealer, rules: Rules = RIGHTS) -> None:
        self._backend, self.sealer = backend, sealer
        self.routes = LookUps(backend.path, sealer, rules)
        self._policy = CallPolicy(self.routes.fetch, rules, lambda last: None)

    def reaches(self, number: str, caller: str) -> str:
        answer = self._policy.look_up(number, caller, self._backend.now_ms / 1000)
        return getattr(answer, "callee", "") or getattr(answer, "outcome", "")

    def is_good(self, key_id: str) -> bool:
        found = find_key(self._backend.reader, self.sealer, key_id)
        return found is not None and found.is_good(self._backend.now_ms)

    def learn(self) -> None:
        """As once a second."""
        learn_head(self._backend.reader, self.sealer)
        self.routes.look()

    def close(self) -> None:
        self.routes.close()


def process(backend: Backend, folder: Path, rules: Rules = RIGHTS) -> Process:
    return Process(backend, load_key(folder / "relay.key"), rules)


def restarted(backend: Backend, folder: Path, rules: Rules = RIGHTS) -> Process:
    return Process(backend, open_store(backend.path, folder / "relay.key"), rules)


class Ended(NamedTuple):
    """A right that has ended, and is put back."""

    tables: tuple[str, ...]
    end: Callable[[Backend], object]
    call: tuple[str, str] = (X, A)
    former: str = B  # whom the call reached
    rules: Rules = RIGHTS


def _binding(backend: Backend) -> str:
    return str(backend.bindings()[0].binding_id)


def _change(**fields: object) -> Callable[[Backend], object]:
    return lambda backend: backend.run(lambda unit: change(unit, _binding(backend), fields, RULES))


def _group(backend: Backend) -> str:
    return str(backend.one("SELECT id FROM party_group")[0])


ENDED: Final = {
    "binding": Ended(
        ("binding", "route"), lambda backend: backend.run(lambda unit: end(unit, _binding(backend), RULES))
    ),
    "b of a binding": Ended(("binding", "route"), _change(b=C)),
    "direction of a binding": Ended(("binding",), _change(direction="b_to_a")),
    "route": Ended(("route",), _change(b=C), (X, B), A),
    "member": Ended(
        ("route", "group_member", "party_group"),
        lambda backend: backend.run(lambda unit: remove_members(unit, _group(backend), [C], RULES)),
        (Y, C),
    ),
    "member of the group alone": Ended(
        ("route",),
        lambda backend: backend.run(lambda unit: remove_members(unit, _group(backend), [C], RULES)),
        (Y, C),
    ),
    "entry of a list": Ended(
        ("list_entry",),
        lambda backend: backend.run(lambda unit: remove_entry(unit, "binding", backend.white, "13800000009")),
        ("700100000010003", "8613800000009"),
    ),
    "business user": Ended(
        ("business",), lambda backend: backend.run(lambda unit: set_state(unit, "acme", "suspend", "complaints"))
    ),
    "number": Ended(("number",), lambda backend: backend.run(lambda unit: lock(unit, X, "fraud"))),
    "filing": Ended(
        ("filing",),
        lambda backend: backend.run(lambda unit: remove_filing(unit, "acme", A)),
        rules=RIGHTS._replace(filing_required=True),
    ),
}
EACH: Final = pytest.mark.parametrize("what", ENDED)


class Bound(Backend):
    """A store with a right of each kind."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.business("acme")
        self.bind(business="acme", order_id="1", x=X)
        group = self.run(lambda unit: make_group(unit, "riders", RULES, "acme", [C]))
        self.bind("GXB", "", business="acme", order_id="2", x=Y, group_id=group.group_id)
        self.white = self.bind(
            "AXN", "13900000002", "", business="acme", order_id="3", x="700100000010003", white_only=True
        ).binding_id
        self.run(lambda unit: set_entry(unit, "binding", self.white, "13800000009", "white"))
        self.run(lambda unit: add_filing(unit, "acme", FilingWords(A, "r")))


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Bound]:
    with closing(Bound(tmp_path)) as bound:
        yield bound


def thief_copies(bound: Bound, *tables: str) -> Copies:
    with closing(connect(bound.path)) as thief:
        return Copies(thief, *tables)


def put_back(bound: Bound, copies: Copies) -> None:
    with closing(connect(bound.path)) as thief:
        copies.put_back(thief)


@EACH
def test_right_put_back_is_refused_by_another_process_from_the_first_call(
    bound: Bound, tmp_path: Path, what: str
) -> None:
    ended = ENDED[what]
    with closing(process(bound, tmp_path, ended.rules)) as node:
        assert node.reaches(*ended.call) == ended.former
        copies = thief_copies(bound, *ended.tables)
        ended.end(bound)
        assert node.reaches(*ended.call) not in (ended.former, "store_failed")
        node.learn()
        assert node.reaches(*ended.call) not in (ended.former, "store_failed")
        put_back(bound, copies)
        assert node.reaches(*ended.call) == "store_failed"


@EACH
def test_right_put_back_is_refused_after_a_restart(bound: Bound, tmp_path: Path, what: str) -> None:
    ended = ENDED[what]
    copies = thief_copies(bound, *ended.tables)
    ended.end(bound)
    put_back(bound, copies)
    with closing(restarted(bound, tmp_path, ended.rules)) as node:
        assert node.reaches(*ended.call) == "store_failed"


@EACH
def test_right_put_back_is_refused_by_the_process_that_ended_it(bound: Bound, what: str) -> None:
    ended = ENDED[what]
    bound.apply_config(ended.rules)
    copies = thief_copies(bound, *ended.tables)
    ended.end(bound)
    put_back(bound, copies)
    assert bound.reaches(*ended.call) == "store_failed"


@EACH
def test_right_put_back_is_named(bound: Bound, tmp_path: Path, what: str) -> None:
    ended = ENDED[what]
    copies = thief_copies(bound, *ended.tables)
    ended.end(bound)
    put_back(bound, copies)
    with one_moment(bound.reader):
        found = [*ledger_faults(bound.reader, load_key(tmp_path / "relay.key"))]
    assert {fault.table for fault in found if fault.what == PUT_BACK} <= set(ended.tables)
    assert any(fault.what == PUT_BACK and fault.row_key for fault in found)


@pytest.mark.parametrize("how", ["learned", "restarted", "own"])
def test_key_put_back_is_refused(bound: Bound, tmp_path: Path, how: str) -> None:
    made, _ = bound.run(lambda unit: keys.make_key(unit, "acme", ["calls:read"]))
    with closing(process(bound, tmp_path)) as node:
        assert node.is_good(made.id)
        copies = thief_copies(bound, "api_key")
        bound.run(lambda unit: keys.revoke(unit, made.id))
        node.learn()
        assert not node.is_good(made.id)
        put_back(bound, copies)
        sealer = {"learned": node.sealer, "own": bound.sealer}.get(how) or open_store(
            bound.path, tmp_path / "relay.key"
        )
        with pytest.raises(StoreError, match="is not as relay700 wrote it"):
            find_key(bound.reader, sealer, made.id)


HEADS: Final = {
    "lowered": "UPDATE ledger_head SET revision = 1",
    "removed": "DELETE FROM ledger_head",
    "put back": "UPDATE ledger_head SET revision = ?, sealed = ?",
}


@pytest.mark.parametrize("how", HEADS)
@pytest.mark.parametrize("right", ["key", "business user"])
def test_right_put_back_with_the_head_of_the_ledger_is_refused(bound: Bound, how: str, right: str) -> None:
    made, _ = bound.run(lambda unit: keys.make_key(unit, "acme", ["calls:read"]))
    head = bound.one("SELECT revision, sealed FROM ledger_head")
    with closing(Reader(bound.path)) as reader, closing(Process(bound, bound.sealer)) as node:
        assert reader.read(lambda connection: find_key(connection, bound.sealer, made.id))
        assert node.reaches(X, A) == B
        copies = thief_copies(bound, "api_key" if right == "key" else "business")
        if right == "key":
            bound.run(lambda unit: keys.revoke(unit, made.id))
        else:
            ENDED[right].end(bound)
        put_back(bound, copies)
        with closing(connect(bound.path)) as thief:
            thief.execute(HEADS[how], head if how == "put back" else ())
        assert right == "key" or node.reaches(X, A) == "store_failed"
        with pytest.raises(StoreError):
            reader.read(lambda connection: find_key(connection, bound.sealer, made.id))


def test_row_put_back_and_then_changed_by_relay700_is_not_proven(bound: Bound, tmp_path: Path) -> None:
    copies = thief_copies(bound, "binding", "route")
    _change(b=C)(bound)
    put_back(bound, copies)
    with pytest.raises(StoreError, match="is not as relay700 wrote it"):
        _change(direction="a_to_b")(bound)
    bound.run(lambda unit: unit.connection.execute("UPDATE binding SET max_call_s = 60 WHERE x = ?", (X,)))
    with closing(restarted(bound, tmp_path)) as node:
        assert node.reaches(X, A) == "store_failed"


def test_right_that_an_operator_accepts_is_granted_again(bound: Bound, tmp_path: Path) -> None:
    copies = thief_copies(bound, "business")
    with closing(process(bound, tmp_path)) as node:
        ENDED["business user"].end(bound)
        node.learn()
        put_back(bound, copies)
        assert node.reaches(X, A) == "store_failed"
        bound.run(lambda unit: sign_all(unit.connection, unit.sealer))
        assert node.reaches(X, A) == B
        node.learn()
        assert (node.reaches(X, A), bound.reaches(X, A)) == (B, B)
    assert faults(bound) == []


def _put_text(path: Path, table: str, sql: str) -> None:
    """Have a column of bytes hold text that is not UTF-8, in a file whose schema is the same afterwards."""
    with closing(connect(path)) as thief:
        (strict,) = thief.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        thief.execute("PRAGMA writable_schema = ON")
        thief.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (strict.replace(") STRICT", ")"), table))
        thief.execute("PRAGMA writable_schema = RESET")
    with closing(connect(path)) as thief:
        thief.execute(sql)
        thief.execute("PRAGMA writable_schema = ON")
        thief.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (strict, table))
        thief.execute("PRAGMA writable_schema = RESET")


IN_A_FILE: Final = pytest.mark.parametrize("store_kind", [places.FILE], indirect=True)
_TEXT: Final = "CAST(x'ff' AS TEXT)"


@IN_A_FILE
@pytest.mark.parametrize(
    ("table", "sql"),
    [
        ("ledger_head", f"UPDATE ledger_head SET sealed = {_TEXT}"),
        ("ledger_change", f"UPDATE ledger_change SET named = {_TEXT}"),
    ],
)
def test_text_that_cannot_be_read_hides_no_foreign_trigger(bound: Bound, tmp_path: Path, table: str, sql: str) -> None:
    with closing(process(bound, tmp_path)) as node:
        assert node.reaches(X, A) == B
        ENDED["number"].end(bound)
        bound.run(lambda unit: unlock(unit, X))
        _put_text(bound.path, table, sql)
        with closing(connect(bound.path)) as thief:
            thief.execute("CREATE TRIGGER another AFTER INSERT ON audit BEGIN SELECT 1; END")
        node.routes.look()
        assert node.reaches(X, A) == "store_failed"


@IN_A_FILE
def test_change_that_cannot_be_read_hides_no_other(bound: Bound, tmp_path: Path) -> None:
    with closing(process(bound, tmp_path)) as node:
        assert node.reaches(X, A) == B
        copies = thief_copies(bound, "business")
        ENDED["business user"].end(bound)
        bound.run(lambda unit: lock(unit, Y, "fraud"))
        last = "(SELECT max(seq) FROM ledger_change)"
        _put_text(bound.path, "ledger_change", f"UPDATE ledger_change SET named = {_TEXT} WHERE seq = {last}")
        node.learn()
        put_back(bound, copies)
        assert node.reaches(X, A) == "store_failed"


# -- No honest row is refused


def test_right_that_ends_and_begins_again_is_granted(bound: Bound, tmp_path: Path) -> None:
    with closing(process(bound, tmp_path)) as node:
        for _ in range(3):
            for do, reached in (
                (lambda unit: set_state(unit, "acme", "suspend", "asked"), "business_suspended"),
                (lambda unit: set_state(unit, "acme", "resume", "asked"), B),
                (lambda unit: lock(unit, X, "fraud"), "number_locked"),
                (lambda unit: unlock(unit, X), B),
            ):
                bound.run(do)
                assert node.reaches(X, A) == reached
                node.learn()
                assert node.reaches(X, A) == reached
            for step, reached in ((remove_members, "no_binding"), (add_members, B)):
                bound.run(lambda unit, step=step: step(unit, _group(bound), [C], RULES))
                node.learn()
                assert (node.reaches(Y, C), bound.reaches(Y, C)) == (reached, reached)
    assert faults(bound) == []


def test_moment_from_before_a_change_refuses_nothing(bound: Bound) -> None:
    """A long reading sees a row as it was, though its process knows of the change by now."""
    with one_moment(bound.reader):
        require_proofs(bound.reader, bound.sealer, "business", ["acme"])
        ENDED["business user"].end(bound)
        require_proofs(bound.reader, bound.sealer, "business", ["acme"])
        assert [*ledger_faults(bound.reader, bound.sealer)] == []
    require_proofs(bound.reader, bound.sealer, "business", ["acme"])


def test_unit_of_work_that_is_undone_leaves_nothing(bound: Bound, tmp_path: Path) -> None:
    def undone(unit: UnitOfWork) -> None:
        set_state(unit, "acme", "suspend", "asked")
        raise RuntimeError

    before = [dict(rows) for rows in bound.sealer.outdated.values()]
    with pytest.raises(RuntimeError):
        bound.run(undone)
    assert [dict(rows) for rows in bound.sealer.outdated.values()] == before
    with closing(restarted(bound, tmp_path)) as node:
        assert node.reaches(X, A) == B


def test_readers_beside_a_writer_are_refused_nothing(bound: Bound, tmp_path: Path) -> None:
    """Rows change while others read them, and learn of it before, between and after."""
    sealer, rounds = load_key(tmp_path / "relay.key"), 150
    reader = Reader(bound.path)
    done: list[bool] = []

    def write() -> None:
        for _ in range(rounds):
            for step in ("suspend", "resume"):
                bound.run(lambda unit, step=step: set_state(unit, "acme", step, "asked"))

    def learn() -> None:
        while not done:
            reader.read(lambda connection: learn_head(connection, sealer))

    def read() -> int:
        found = 0
        with closing(connect(bound.path)) as own:
            while not done:
                found += require_proofs(own, sealer, "business", ["acme"])
                found += reader.read(lambda connection: require_proofs(connection, sealer, "business", ["acme"]))
                found += require_proofs(own, bound.sealer, "business", ["acme"])
        return found

    def call() -> set[str]:
        with closing(Process(bound, sealer)) as node:
            found = set()
            while not done:
                found.add(node.reaches(X, A))
            return found

    with ThreadPoolExecutor(4) as threads:
        reads = [threads.submit(read), threads.submit(read)]
        calls, learns = threads.submit(call), threads.submit(learn)
        try:
            write()
        finally:
            done.append(True)
        assert all(each.result() > 0 for each in reads)
        assert calls.result() <= {B, "business_suspended"}
        learns.result()


STEPS: Final[dict[str, Callable[[Backend], object]]] = {
    "suspend": lambda backend: backend.run(lambda unit: set_state(unit, "acme", "suspend", "asked")),
    "resume": lambda backend: backend.run(lambda unit: set_state(unit, "acme", "resume", "asked")),
    "lock": lambda backend: backend.run(lambda unit: lock(unit, X, "fraud")),
    "unlock": lambda backend: backend.run(lambda unit: unlock(unit, X)),
    "b": _change(b=C),
    "b again": _change(b=B),
    "join": lambda backend: backend.run(lambda unit: add_members(unit, _group(backend), [A], RULES)),
    "leave": lambda backend: backend.run(lambda unit: remove_members(unit, _group(backend), [A], RULES)),
    "bar": lambda backend: backend.run(lambda unit: set_entry(unit, "business", "acme", A, "black")),
    "let": lambda backend: backend.run(lambda unit: remove_entry(unit, "business", "acme", A)),
    "unbind": lambda backend: backend.run(lambda unit: end(unit, _binding(backend), RULES)),
    "bind": lambda backend: backend.bind(business="acme", x=X),
}


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=st.lists(st.sampled_from([*STEPS, "learn", "restart", "sign", "call"]), min_size=5, max_size=30))
def test_honest_changes_are_never_taken_for_put_back(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("honest")
    with closing(Bound(folder)) as bound:
        node = process(bound, folder)
        for step in steps:
            if step == "learn":
                node.learn()
            elif step == "restart":
                node.close()
                node = restarted(bound, folder)
            elif step == "sign":
                bound.run(lambda unit: sign_all(unit.connection, unit.sealer))
            elif step in STEPS:
                try:
                    STEPS[step](bound)
                except StoreError:
                    raise
                except Exception:  # refused in this state
                    continue
            for caller in (A, B, C):
                for number in (X, Y):
                    said = node.reaches(number, caller)
                    assert said != "store_failed"
                    assert said == bound.reaches(number, caller)
        node.close()
        assert faults(bound) == []


# -- What is kept


def faults(bound: Bound) -> list[str]:
    with one_moment(bound.reader):
        return [str(fault) for fault in ledger_faults(bound.reader, bound.sealer)]


@pytest.mark.parametrize(
    ("deed", "named"),
    [
        ("DELETE FROM ledger_change", "rows were removed"),
        ("DELETE FROM ledger_change WHERE seq = (SELECT max(seq) FROM ledger_change)", "rows were removed"),
        ("DELETE FROM ledger_change WHERE seq = (SELECT min(seq) FROM ledger_change)", "rows were removed"),
        ("UPDATE ledger_change SET revision = 1", "was altered"),
        ("UPDATE ledger_change SET named = mac", "was altered"),
        ("UPDATE ledger_change SET seq = seq + 1000", "rows were removed"),
    ],
)
def test_altered_memory_is_named(bound: Bound, deed: str, named: str) -> None:
    for what in ("business user", "b of a binding", "number"):
        ENDED[what].end(bound)
    assert faults(bound) == []
    with closing(connect(bound.path)) as thief:
        thief.execute(deed)
    (found,) = faults(bound)
    assert found.startswith("ledger_change: ")
    assert named in found
    bound.run(lambda unit: sign_all(unit.connection, unit.sealer))
    assert faults(bound) == []


def test_store_keeps_the_latest_changes_and_has_no_gap(bound: Bound) -> None:
    sealer, changes = bound.sealer, ChangeCount()
    bound.connection.execute("DELETE FROM ledger_change")
    for revision in range(1, 70):
        rows = [("binding", f"b{revision} {place}") for place in range(500)]
        changes, statements = note_changes(sealer, changes, revision, rows)
        for statement in statements:
            bound.connection.execute(*statement)
        assert [*change_faults(bound.connection, sealer, changes)] == []
    (kept,) = bound.one("SELECT count(*) FROM ledger_change")
    assert KEPT_CHANGES / 500 <= kept <= (KEPT_CHANGES + 1_000) / 500


def test_process_remembers_the_latest_changes_of_each_table(bound: Bound) -> None:
    sealer = bound.sealer
    sealer.outdate([("business", "acme")], 5)
    for revision in range(6, 306):
        sealer.outdate([("binding", f"b{revision} {place}") for place in range(100)], revision)
    assert sealer.outdated["business"]["acme"] == 4
    assert KEPT_CHANGES <= len(sealer.outdated["binding"]) <= KEPT_CHANGES + 5_000
    assert "b305 99" in sealer.outdated["binding"]
    assert "b6 0" not in sealer.outdated["binding"]


def test_changes_are_learned_anew_when_they_are_counted_anew(bound: Bound) -> None:
    sealer = bound.sealer
    changes, statements = note_changes(sealer, ChangeCount(), 7_000, [("business", "acme")])
    rows = [parameters for sql, parameters in statements if "INSERT" in sql]
    sealer.learned_changes = 50
    take_changes(sealer, changes, rows)  # type: ignore[arg-type]
    assert sealer.outdated["business"]["acme"] == 6_999
    assert sealer.learned_changes == 1


def test_change_of_no_row_is_not_noted(bound: Bound) -> None:
    before = read_ledger_head(bound.reader, bound.sealer).changes
    bound.bind(business="acme", x="700100000010009", order_id="9", a="13800000007", b="13800000008")
    assert read_ledger_head(bound.reader, bound.sealer).changes == before


def test_memory_is_not_moved_to_a_server() -> None:
    assert "ledger_change" in LEFT_OUT
