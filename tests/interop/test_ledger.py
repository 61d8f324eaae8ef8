"""Somebody who has the database and not the key changes rows while a relay serves: it is found, and grants nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from relay.store.connection import PostgresServer
from relay.store.database import connect
from tests.interop.test_nodes import node
from tests.story.calls import Ends, assert_sees_none_of, call, refused
from tests.support import postgres
from tests.support.addresses import RELAY, free
from tests.support.ledger_attacks import Copies
from tests.support.phone import Phone
from tests.support.relay_process import A, B, RelayProcess, Setup, X
from tests.support.waiting import until_seen

pytestmark = pytest.mark.outside

A2 = "13800000002"


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    """With a binding on X that was unbound, and A's own on another number."""
    relay = RelayProcess(tmp_path, Setup(), (A, A2, B))
    relay.start()
    yield relay
    assert relay.stop() == 0


@pytest.fixture
async def ends(relay: RelayProcess) -> AsyncIterator[Ends]:
    async with Phone(relay.setup.caller) as left, Phone(relay.setup.callee) as right:
        yield Ends(relay, left, right)


def bind(relay: RelayProcess) -> str:
    return str(relay.answer("bind", "AXB", "--a", A, "--b", B, "--x", X, "--json")["binding_id"])


def steal(relay: RelayProcess, *statements: str) -> None:
    with closing(sqlite3.connect(relay.folder / "relay.db", timeout=20)) as thief:
        for statement in statements:
            thief.execute(statement)
        thief.commit()


def found(relay: RelayProcess, row: str) -> None:
    """Within the minute that the relay has for it."""
    relay.wait_for_event("ledger.fault", timeout_s=60, matching=lambda event: row in event["fault"])


async def test_a_binding_that_was_ended_is_not_revived(ends: Ends, relay: RelayProcess) -> None:
    binding = bind(relay)
    with closing(sqlite3.connect(relay.folder / "relay.db")) as thief:
        (old,) = thief.execute("SELECT proof FROM ledger WHERE table_name = 'binding'").fetchone()
        routes = thief.execute("SELECT row_key, proof FROM ledger WHERE table_name = 'route'").fetchall()
    assert relay.command("unbind", binding).returncode == 0
    assert (await refused(ends, A, X)).status == 403
    with closing(sqlite3.connect(relay.folder / "relay.db", timeout=20)) as thief:
        thief.execute(
            "UPDATE binding SET ended_at = NULL, ended_by = NULL, released_at = NULL, version = 1,"
            " changed_at = NULL, changed_by = NULL"
        )
        thief.execute("UPDATE route SET free_at = NULL")
        thief.execute("UPDATE ledger SET proof = ? WHERE table_name = 'binding'", (old,))
        thief.executemany("UPDATE ledger SET proof = ?2 WHERE table_name = 'route' AND row_key = ?1", routes)
        thief.commit()
    found(relay, "binding ")  # its id is in the log as numbers are, masked
    assert (await refused(ends, A, X)).status == 503
    assert relay.calls()[-1]["outcome"] == "store_failed"
    assert_sees_none_of(bytes(ends.left.raw_received), [B])
    said = relay.command("verify")
    assert (said.returncode, f"binding {binding}: was put back" in said.stderr) == (1, True)


@pytest.mark.parametrize(
    ("deed", "row"),
    [
        ("UPDATE business SET state = 'approved'", "business default"),
        ("UPDATE binding SET direction = 'both'", "binding "),
        ("DELETE FROM list_entry", "list_entry business default"),
    ],
)
async def test_what_was_taken_back_is_not_given_again(ends: Ends, relay: RelayProcess, deed: str, row: str) -> None:
    bind(relay)
    await call(ends, A, X)
    for command in (
        ("business", "suspend", "default", "--reason", "complaints"),
        ("lists", "black", "business", "default", A),
        ("bindings", "change", str(relay.answer("bindings", "list", "--json")["binding_id"]), "--direction", "b_to_a"),
    ):
        done = relay.command(*command)
        assert done.returncode == 0, done.stderr
    assert (await refused(ends, A, X)).status == 403
    steal(relay, deed)
    found(relay, row)
    assert (await refused(ends, A, X)).status == 503


async def test_a_store_that_is_as_it_was_at_an_earlier_time_serves_no_call(ends: Ends, relay: RelayProcess) -> None:
    """The ledger's own head is put back, too: it is known how far it had come."""
    with closing(sqlite3.connect(relay.folder / "relay.db")) as thief:
        old = thief.execute("SELECT revision, sealed FROM ledger_head").fetchone()
    bind(relay)
    anchor = relay.folder / "relay.db.anchor"
    before = anchor.read_text()
    await call(ends, A, X)
    await until_seen(lambda: anchor.read_text() != before)  # else the first check of all rows finds it, after 50 s
    with closing(sqlite3.connect(relay.folder / "relay.db", timeout=20)) as thief:
        thief.execute("UPDATE ledger_head SET (revision, sealed) = (?, ?)", old)
        thief.commit()
    assert (await refused(ends, A, X)).status == 503
    relay.wait_for_event("ledger.fault", timeout_s=60)


# -- Someone who knows how the ledger works: old proofs, and no notes of triggers


async def test_a_binding_put_back_with_its_proof_stays_refused_over_a_restart(ends: Ends, relay: RelayProcess) -> None:
    binding = bind(relay)
    await call(ends, A, X)
    put_back = copies(relay, "binding", "route")
    assert relay.command("unbind", binding).returncode == 0
    put_back()
    found(relay, ": was put back as it was before line ")
    assert (await refused(ends, A, X)).status == 503
    put_back()
    assert (await refused(ends, A, X)).status == 503
    assert relay.stop() == 0
    relay.start()
    assert (await refused(ends, A, X)).status == 503
    said = relay.command("verify")
    assert (said.returncode, f"binding {binding}: was put back as it was before line " in said.stderr) == (1, True)
    accepted = relay.command("verify", "--accept", "--no-rest", "--reason", "we looked")
    assert f"binding {binding} is in force again, as it was accepted" in accepted.stderr
    await call(ends, A, X)


async def test_a_suspended_business_user_put_back_with_its_proof_is_refused(ends: Ends, relay: RelayProcess) -> None:
    bind(relay)
    put_back = copies(relay, "business")
    assert relay.command("business", "suspend", "default", "--reason", "complaints").returncode == 0
    put_back()
    found(relay, "business default: was put back")
    assert (await refused(ends, A, X)).status == 503


async def test_a_revoked_key_put_back_for_a_moment_stays_refused(tmp_path: Path) -> None:
    relay = RelayProcess(tmp_path, Setup(api=free(RELAY)), (A, B))
    relay.start()
    try:
        relay.wait_for_event("api.listening")
        made = relay.answer("keys", "make", "--operator", "--json")
        assert await asyncio.to_thread(status_of, relay, made["secret"]) == 200
        put_back = copies(relay, "api_key")
        assert relay.command("keys", "revoke", made["id"]).returncode == 0
        genuine = copies(relay, "api_key")
        assert await asyncio.to_thread(status_of, relay, made["secret"]) == 401
        put_back()
        found(relay, "api_key ")
        genuine()  # as if nothing had happened
        assert await asyncio.to_thread(status_of, relay, made["secret"]) == 503
        said = relay.command("verify")
        assert said.returncode == 1
        assert f"api_key {made['id']}: " in said.stderr
    finally:
        assert relay.stop() == 0


def status_of(relay: RelayProcess, secret: str) -> int:
    """The answer to a request that only reads."""
    authorization = {"Authorization": f"Bearer {secret}"}
    address = f"http://{relay.setup.api}/v1/bindings"
    return httpx.get(address, headers=authorization, trust_env=False, timeout=20).status_code


async def test_a_binding_put_back_on_a_server_is_refused_by_each_node(tmp_path: Path) -> None:
    with postgres.new_url() as url, ExitStack() as stack:
        first, second = (node(tmp_path, url, name, Setup()) for name in ("a", "b"))
        for relay in (first, second):
            stack.callback(relay.stop_if_running)
            relay.start()
        place = PostgresServer(url, "thief", tmp_path / "thief")
        binding = bind(first)
        with closing(connect(place)) as thief:
            kept = Copies(thief, "binding", "route")
            assert first.command("unbind", binding).returncode == 0
            kept.put_back(thief)
            found(first, ": was put back as it was before line ")
        for relay in (first, second):
            async with Phone(relay.setup.caller) as left, Phone(relay.setup.callee) as right:
                assert (await refused(Ends(relay, left, right), A, X)).status == 503


def copies(relay: RelayProcess, *tables: str) -> Callable[[], None]:
    """Copy the rows of some tables and their proofs; what is returned puts them back."""
    with closing(connect(relay.folder / "relay.db")) as thief:
        kept = Copies(thief, *tables)

    def put_back() -> None:
        with closing(connect(relay.folder / "relay.db")) as thief:
            kept.put_back(thief)

    return put_back
