"""Reports of an outage: each reason once. The place of a store in messages."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.store.connection import (
    MOST_ALTERED,
    LookupOutage,
    PostgresServer,
    WriteOutage,
    is_server_url,
    transaction,
)
from tests.store.conftest import Reported

STORE = Path("/relay.db")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://relay:s3cret@10.0.0.1/relay",
        "postgresql://h/relay?sslpassword=s3cret&password=s3cret&user=r",
        "postgresql://relay@[::1]:5432,h:5433/relay",
    ],
)
@pytest.mark.parametrize("password", ["s3cret", "it's", 'a"b', "a b", "a?b#c:d", "a@b", "a/b", "a/b@c"])
def test_passwords_of_urls_are_left_out(url: str, password: str) -> None:
    assert str(PostgresServer(url.replace("s3cret", password), "a", STORE)) == url.replace("s3cret", "***")


@pytest.mark.parametrize(
    "url",
    [
        *("postgresql:///relay", "postgresql://r@h/d", "postgresql://h:5432", "postgresql://[::1]:5432,h:5433/relay"),
        *("postgresql://r:p%2Fq%40!$&'()*+,;=:x~@h/d", "postgresql://%2Frun%2Fpostgresql/d", "postgresql://r:密码@h/d"),
        "postgresql://relay@/d?host=/run/postgresql&target_session_attrs=read-write&options=-c%20jit%3Doff",
    ],
)
def test_a_url_that_the_drivers_read_as_it_is_meant_is_good(url: str) -> None:
    assert is_server_url(url)


@pytest.mark.parametrize("password", ["a/b", "a@b", "a#b", "a?b", "a%b", "a b", "a[b", "a%2xb", "s3cret/with@sl:ash"])
def test_a_password_with_a_character_that_ends_it_is_not_given_to_a_driver(password: str) -> None:
    """A driver takes what follows for a host or port, and prints it."""
    assert not is_server_url(f"postgresql://relay:{password}@h/d")


@pytest.mark.parametrize(
    "url", ["postgresql://relay:s3cret", "postgresql://h/d?password=a&b", "postgresql://h/d?a=b=c"]
)
def test_a_url_without_its_end_is_not_given_to_a_driver(url: str) -> None:
    assert not is_server_url(url)


def test_the_known_password_is_hidden_wherever_it_stands() -> None:
    server = PostgresServer("postgresql://relay:p%2Fs3cret@h/d?sslpassword=k3y", "a", STORE)
    text = "cannot read p/s3cret, p%2Fs3cret or k3y at h"
    assert server.without_secrets(text) == "cannot read ***, *** or *** at h"
    assert PostgresServer("postgresql://relay@h/d", "a", STORE).without_secrets(text) == text


def test_each_reason_is_reported_once_and_the_end_of_an_outage() -> None:
    told: Reported = []
    outage = WriteOutage(STORE, "nothing", lambda *each: told.append(each))
    outage.is_over(0)
    for reason in ("full", "full", "", "gone", "full"):
        outage.failed(StoreError(reason))
    assert outage.lasts
    outage.is_over(7)
    outage.is_over(7)
    assert not outage.lasts
    assert [fields.get("reason", fields.get("backlog")) for _, fields in told] == [
        *("full", "no answer in time", "gone", 7)
    ]
    assert all(fields["store"] == "/relay.db" for _, fields in told)


def test_end_of_an_outage_reported_by_an_earlier_process_is_reported() -> None:
    told: Reported = []
    outage = WriteOutage(STORE, "nothing", lambda *each: told.append(each))
    outage.began_before()
    assert outage.lasts
    outage.is_over(3)
    outage.is_over(0)
    assert told == [("journal.recovered", {"store": "/relay.db", "backlog": 3})]


@pytest.mark.parametrize("times", [1, 2])
def test_failed_look_ups_are_reported_once_per_outage(times: int) -> None:
    told: Reported = []
    outage = LookupOutage(STORE, lambda *each: told.append(each))
    for _ in range(times):
        outage.is_over()
        outage.failed("gone")
        outage.failed("still gone")
        outage.is_over()
        outage.is_over()
    assert [event for event, _ in told] == ["lookup.failed", "lookup.recovered"] * times
    assert told[0][1]["reason"] == "gone"


def test_altered_rows_are_reported_once_each_up_to_a_limit() -> None:
    told: Reported = []
    outage = LookupOutage(STORE, lambda *each: told.append(each))
    for number in (*range(MOST_ALTERED + 1), 0):
        outage.altered(f"row {number}")
    assert [fields["reason"] for _, fields in told] == [f"row {number}" for number in range(MOST_ALTERED)]


def test_altered_row_is_reported_again_after_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.store.connection.AGAIN_S", 0.0)
    told: Reported = []
    outage = LookupOutage(STORE, lambda *each: told.append(each))
    for _ in range(2):
        outage.altered("row 1")
    assert [fields["reason"] for _, fields in told] == ["row 1"] * 2


# -- Transactions of a file wait for other writers


def connected(path: Path, patience_s: float) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=patience_s, isolation_level=None, check_same_thread=False)


def test_transaction_begins_once_another_writer_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    with closing(connected(path, 20)) as holder, closing(connected(path, 20)) as waiting:
        holder.execute("BEGIN IMMEDIATE")
        threading.Timer(0.05, holder.execute, ["COMMIT"]).start()
        with transaction(waiting):
            assert not holder.in_transaction
        assert waiting.execute("PRAGMA busy_timeout").fetchone() == (20_000,)


def test_transaction_fails_if_another_writer_stays(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    with closing(connected(path, 20)) as holder, closing(connected(path, 0.01)) as waiting:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"), transaction(waiting):
            pass
        assert not waiting.in_transaction
        assert waiting.execute("PRAGMA busy_timeout").fetchone() == (10,)
