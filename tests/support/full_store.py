"""A store with at least one row in every table, each written by relay700's own functions.

A new table gets its row here: `tests/store/test_tampering.py` fails while it has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import date
from pathlib import Path
from typing import Final

from structlog import get_logger

from relay.defence.limits import SharedLimits, Tally
from relay.events.follower import Follower
from relay.events.webhooks import make as make_webhook
from relay.model.actions import CallEvent, Commit
from relay.model.capture import CaptureRules
from relay.model.numbers import Parties
from relay.policy.call_policy import RefusedAttempts
from relay.policy.fraud import Signal, Signals, Watch
from relay.policy.rules import Cap, LastCaller, Rules
from relay.service import bindings
from relay.service.businesses import change, set_state
from relay.service.capture import arm
from relay.service.complaints import set_complaints
from relay.service.filings import AnswerWords, FilingWords, add_filing, answer_filing, remove_filing
from relay.service.groups import make_group, remove_members, set_entry
from relay.service.hooks import set_hook
from relay.service.keys import make_key, revoke
from relay.service.numbers import load_prefix, make_pool, new_pool, new_prefix
from relay.service.papers import answer_paper, submit_paper
from relay.service.placement import BindRules
from relay.service.users import add_user, note_failure
from relay.store.audit import purge_audit
from relay.store.bindings import all_bindings
from relay.store.captures import Captures
from relay.store.configurations import put_configuration
from relay.store.connection import PostgresServer
from relay.store.journal.attempts import AttemptFile
from relay.store.journal.journal import Journal
from relay.store.keys import keep_answer, list_keys
from relay.store.maintenance import purge_records
from relay.store.papers import papers_of
from relay.store.postgres.attempts import SharedAttempts
from relay.store.postgres.journal import postgres_journal
from relay.store.sealing import keys as rotation
from relay.store.sqlite.journal import sqlite_journal
from relay.store.unit_of_work import OPERATOR, Actor, UnitOfWork
from relay.store.writer import GroupWriter
from tests.support.acting import Acting
from tests.support.captured import captured
from tests.support.look_ups import LookUps
from tests.support.papers import PAPERS, apply, permit
from tests.support.recorded import keep
from tests.support.stored import NOW_MS, PREFIX, A, B, X, ended_record, live_record
from tests.support.waiting import until
from tests.support.written import bind, written

C, D = "8613700000003", "8613700000004"
RULES: Final = BindRules(parties=Parties(), hooks=True)
FIRMS: Final = ("acme", "bolt")
NUMBERS: Final = 9  # of the prefix: `verify` reads all of them
HOUR_MS: Final = 3_600_000
OPERATOR_CLI: Final = Actor("cli:wang", None, OPERATOR)
_OFF: Final = Signal(0, 0)


def fill(store: Acting, folder: Path) -> None:
    """Write two rows or more of most tables. `folder`: of the key file, recordings and files of nodes."""
    store.now_ms = NOW_MS - HOUR_MS
    store.run(_numbers, OPERATOR_CLI)
    for firm in FIRMS:
        store.run(lambda unit, firm=firm: _firm(unit, firm), OPERATOR_CLI)
    made = [store.run(lambda unit, firm=firm: _service(unit, firm), OPERATOR_CLI) for firm in FIRMS]
    store.now_ms = NOW_MS
    store.run(lambda unit: _changes(unit, made), OPERATOR_CLI)
    for number in range(2):
        store.run(lambda unit, number=number: keep(unit, folder / "recordings", f"c{number}", b"sound"), OPERATOR_CLI)
    store.run(lambda unit: rotation.add(unit, folder / "relay.key"), OPERATOR_CLI)
    asyncio.run(_calls(store, made[0]))
    asyncio.run(_calls_under_way(store, folder, made))
    store.run(lambda unit: purge_records(unit, NOW_MS + 14_000, 1), OPERATOR_CLI)
    store.run(lambda unit: purge_audit(unit, NOW_MS, 1), OPERATOR_CLI)
    with closing(Captures(store.path, store.sealer)) as captures:
        captures.save([captured(1), captured(2)])
    _use_caps(store)


def _numbers(unit: UnitOfWork) -> None:
    for firm, digit in zip(FIRMS, "12", strict=True):
        apply(unit, firm.title(), firm, **PAPERS | {"contact": f"Li Lei {A}"})
        make_pool(unit, new_pool(f"{firm}-pool", firm))
        prefix = PREFIX[:-1] + digit
        load_prefix(unit, new_prefix(prefix), f"{firm}-pool")
        unit.connection.execute("DELETE FROM number WHERE prefix = ? AND number > ?", (prefix, f"{prefix}{NUMBERS:04}"))
    apply(unit, "Idle", "idle")


def _firm(unit: UnitOfWork, firm: str) -> None:
    set_state(unit, firm, "approve", "papers complete")
    make_key(unit, firm, ["calls:read"], name=f"{firm} app")
    user, _ = add_user(unit, f"{firm}.boss", "business_admin", firm)
    note_failure(unit, user)


def _service(unit: UnitOfWork, firm: str) -> list[str]:
    """Return the ids of its bindings, one of each mode."""
    prefix = PREFIX[:-1] + ("1" if firm == FIRMS[0] else "2")
    group = make_group(unit, "riders", RULES, firm, [A, C, D])
    own = {"business": firm, "order_id": "order-1"}
    numbers = [f"{prefix}{serial:04}" for serial in range(1, NUMBERS)]
    of_group = {"group_id": group.group_id, **own}
    made = [
        bind(unit, written("AXB", A, B, x=numbers[0], expires_in="8h", idle_ttl_s=14_400, **own), RULES),
        bind(unit, written("AXYB", A, B, x=numbers[1], y=numbers[2], **own), RULES),
        bind(unit, written("AXN", A, B, x=numbers[3], **own), RULES),
        bind(unit, written("GXB", "", B, x=numbers[4], **of_group), RULES),
        bind(unit, written("GXYB", "", B, x=numbers[5], y=numbers[6], **of_group), RULES),
    ]
    remove_members(unit, group.group_id, [D], RULES)
    set_entry(unit, "business", firm, C, "black")
    set_entry(unit, "binding", made[0].binding_id, D, "black")
    add_filing(unit, firm, FilingWords(A, f"CT-{firm}", "Li Lei", document="11010519491231002X"))
    add_filing(unit, firm, FilingWords(C, f"CU-{firm}"), state="submitted")
    submit_paper(unit, f"business {firm}", permit())
    make_webhook(unit, firm, "https://platform.example/events")
    set_hook(unit, firm, RULES, url="https://platform.example/hook")
    arm(unit, "business", firm, 24 * HOUR_MS, CaptureRules(), None)
    set_complaints(unit, date(2025, 12, 31), firm, prefix, 2)
    keep_answer(unit, f"business {firm}", "request-1", b"fingerprint", 201, b"{}", "/v1/bindings/b1")
    put_configuration(unit, firm, "[sip]")  # as of two nodes
    return [one.binding_id for one in made]


def _changes(unit: UnitOfWork, made: list[list[str]]) -> None:
    for firm, ids in zip(FIRMS, made, strict=True):
        change(unit, firm, max_calls=5)
        bindings.change(unit, ids[0], {"b": D}, RULES)
        bindings.change(unit, ids[0], {"b": B}, RULES)
        bindings.end(unit, ids[2], RULES)
        answer_filing(unit, firm, AnswerWords(C, state="approved"))
        remove_filing(unit, firm, C)
        (paper,) = papers_of(unit.connection, unit.sealer, f"business {firm}")
        answer_paper(unit, paper.id, "accept")
    revoke(unit, make_key(unit, FIRMS[0], ["calls:read"])[0].id)


async def _calls(store: Acting, ids: list[str]) -> None:
    """Calls that ended, and all that the follower makes of them."""
    async with journal_of(store) as journal:
        for number in range(4):
            record = ended_record(
                f"c{number}", business="acme", binding_id=ids[0], ended_at=NOW_MS + 13_000 + 1_000 * number
            )
            journal.queue.append(Commit(0, record._replace(recording=f"c{number}"), None), lambda _: None)
    writer = GroupWriter(store.path, store.sealer, clock_ms=lambda: NOW_MS + 20_000)
    quiet = Watch(Signals(_OFF, _OFF, _OFF))
    follower = Follower(store.path, store.sealer, writer, get_logger(), quiet)
    follower.finish()
    await follower.run()
    await writer.close()


def end_rights(store: Acting) -> None:
    """End a binding and a key, and suspend a business user."""

    def end(unit: UnitOfWork) -> None:
        found = all_bindings(unit.connection, unit.sealer)
        bindings.end(unit, next(one.binding_id for one in found if one.ended_at is None), RULES)
        revoke(unit, list_keys(unit.connection, unit.sealer, "bolt", "", 1)[0].id)
        set_state(unit, "bolt", "suspend", "complaints")

    store.run(end, OPERATOR_CLI)


async def add_record(store: Acting, call_id: str = "later") -> None:
    """One more call that ended."""
    async with journal_of(store) as journal:
        journal.queue.append(Commit(0, ended_record(call_id, ended_at=NOW_MS + 30_000), None), lambda _: None)


async def _calls_under_way(store: Acting, folder: Path, made: list[list[str]]) -> None:
    """Calls that are up, their events and callers; on a server also attempts and counts of the node."""
    attempts = _attempts(store, folder)
    async with journal_of(store, attempts) as journal:
        for number, ids in enumerate(made):
            record = live_record(f"up{number}", binding_id=ids[0])
            journal.queue.append(Commit(0, record, b"dialogs"), lambda _: None)
            journal.queue.emit(CallEvent("ringing", record))
            journal.queue.remember(LastCaller(ids[0], X, A, NOW_MS))
        if attempts is not None:
            attempts.open()
            journal.writer.watch(lambda *_: None, SharedLimits({"calls": Tally()}, {}, RefusedAttempts(), lambda: 0.0))
            for number in range(2):
                attempts.keep(live_record(f"{number}" * 32, answered_at=None, sip_status=None), b"state")
            counts = "SELECT (SELECT count(*) FROM attempt), (SELECT count(*) FROM node_count)"
            await until(lambda: store.reader.execute(counts).fetchone() == (2, 1))


def _attempts(store: Acting, folder: Path) -> SharedAttempts | None:
    """Those of a node; in a file the store has none."""
    if not isinstance(store.path, PostgresServer):
        return None
    file = AttemptFile(folder / "attempts", store.sealer, lambda *_: None)
    return SharedAttempts(file, store.path, store.sealer, (), lambda *_: None)


@asynccontextmanager
async def journal_of(store: Acting, attempts: SharedAttempts | None = None) -> AsyncIterator[Journal]:
    place = store.path
    if isinstance(place, PostgresServer):
        journal = postgres_journal(place, store.sealer, lambda *_: None, attempts)
    else:
        journal = sqlite_journal(place, store.sealer, lambda *_: None)
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()


def _use_caps(store: Acting) -> None:
    """Have a call counted for caps on frequency, which on a server has a row."""
    caps = (Cap(100, 300),)
    with closing(LookUps(store.path, store.sealer, Rules(caller_caps=caps, number_caps=caps))) as look_ups:
        look_ups.fetch(X, A, NOW_MS / 1000)
