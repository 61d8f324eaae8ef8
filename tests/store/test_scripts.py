"""The rules for scripts of a store, and that all statements tolerate columns that a later version adds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from relay.store.connection import PostgresServer
from relay.store.scripts import Script, schema_of, scripts_of

# An INSERT that does not name its columns.
_UNNAMED = re.compile(r"INSERT (?:OR \w+ )?INTO\s+[\w{.}]+\s+(?:AS \w+\s+)?(?:VALUES|SELECT)|SELECT \*(?! FROM unnest)")


def test_every_statement_names_its_columns() -> None:
    """A later version may have added a column that the running relay does not know."""
    for file in Path("relay").rglob("*.py"):
        found = _UNNAMED.search(file.read_text())
        assert not found, f"{file}: {found[0] if found else ''}"


@pytest.mark.parametrize(
    "statement",
    [
        'f"INSERT INTO {chain.head_table} VALUES (1, ?1)"',
        "INSERT OR REPLACE INTO last_caller VALUES",
        "\nINSERT INTO audit\nSELECT ?",
        "SELECT * FROM binding",
    ],
)
def test_statement_without_columns_is_found(statement: str) -> None:
    assert _UNNAMED.search(statement)


# The rules of `relay.store.scripts`, as far as the text of a script shows


FILE = scripts_of(schema_of(Path("relay.db")))
SERVER = scripts_of(schema_of(PostgresServer("", "", Path())))

# For a new column or index SQLite reads a whole STRICT table, with the store locked.
SMALL = {"business", "api_key", "pool", "prefix", "webhook", "party_group", "cursor", "checkpoint", "filing"}
ENDLESS = {"call_record", "record_index", "audit", "binding_change", "past_party", "recording"}

_MAKES = re.compile(r"CREATE TABLE (\w+) \(")
_INDEXES = re.compile(r"CREATE (?:UNIQUE )?INDEX (\w+) ON (\w+) ")
_INDEXES_CONCURRENTLY = re.compile(r"CREATE INDEX CONCURRENTLY (\w+) ON \w+ \([\w, ]+\)(?: WHERE \w+ IS NOT NULL)?$")
_ADDS = re.compile(r"ALTER TABLE (\w+) ADD COLUMN \w+ (.*)")
_FILLS = re.compile(r"INSERT INTO (\w+) \([\w, ]+\) (?:VALUES |SELECT [\w, ]+ FROM (?:business)\b)")  # of a small table
_RAISES = re.compile(r"UPDATE schema_least SET least = (\d+)$")
_DROPS = re.compile(r"(?:DROP (?:TABLE|INDEX)|ALTER TABLE \w+ DROP COLUMN) \w+$")
_CHECKED = re.compile(r"\b(CHECK|REFERENCES|UNIQUE|PRIMARY KEY|GENERATED|COLLATE \"(?!C\"))")
_CONSTANT = re.compile(r"\bDEFAULT (?:'[^']*'|-?\d+)")


def faults(script: Script, number: int, is_file: bool) -> Iterator[str]:
    """The broken rules, in words. `number`: of the script, from 1."""
    statements = [_plain(statement) for statement in script.statements()]
    made = {found[1] for statement in statements if (found := _MAKES.match(statement))}
    raised = [int(found[1]) for statement in statements if (found := _RAISES.match(statement))]
    if raised not in ([], [number]):
        yield f"it raises the least to {raised}, which is not its own number"
    if len({found[1] for statement in statements if (found := _ADDS.match(statement))}) > 1:
        yield "it changes more than one table, and would wait for one with the other locked"
    if not is_file and script.is_concurrent:
        yield from _faults_of_concurrent(statements)
        return
    for statement in statements:
        fault = _fault(statement, made, is_file, may_drop=bool(raised))
        if fault:
            yield f"{statement}: {fault}"


def _fault(statement: str, made: set[str], is_file: bool, *, may_drop: bool) -> str:
    if _MAKES.match(statement) or _RAISES.match(statement) or (_DROPS.match(statement) and may_drop):
        return ""
    if found := _FILLS.match(statement):
        return "" if found[1] in made else "only tables of its own"
    if found := _INDEXES.match(statement):
        if found[2] in made or (is_file and found[2] in SMALL):
            return ""
        return "writers wait until it is made"
    if found := _ADDS.match(statement):
        if is_file and found[1] in ENDLESS:
            return "it is read to its end: make a table beside it"
        if _CHECKED.search(found[2]):
            return "all rows are read to check that"
        if "NOT NULL" in found[2] and not _CONSTANT.search(found[2]):
            return "an earlier relay gives it no value"
        return ""
    return "no such thing"


def _faults_of_concurrent(statements: list[str]) -> Iterator[str]:
    """Whether the script first drops the invalid index that a killed run leaves.

    Relays of the previous version see the index before its script is vouched for. Any other index is foreign to them.
    """
    found = _INDEXES_CONCURRENTLY.match(statements[-1])
    if not found or statements[:-1] != [f"DROP INDEX CONCURRENTLY IF EXISTS {found[1]}"]:
        yield "one index a script, behind DROP INDEX CONCURRENTLY IF EXISTS"


def _plain(statement: str) -> str:
    return " ".join(re.sub(r"--.*", "", statement).split()).removesuffix(";").replace("( ", "(").strip()


@pytest.mark.parametrize(("scripts", "is_file"), [(FILE, True), (SERVER, False)], ids=["file", "server"])
def test_every_script_behind_the_first_follows_the_rules(scripts: Sequence[Script], is_file: bool) -> None:
    for number, script in enumerate(scripts, 1):
        assert script.name.startswith(f"{number:03}_")
        assert number == 1 or not list(faults(script, number, is_file)), script.name


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE later (id INTEGER, at INTEGER NOT NULL) STRICT;\nCREATE INDEX later_at ON later (at);",
        "ALTER TABLE binding ADD COLUMN later TEXT; -- for what",
        "ALTER TABLE binding ADD COLUMN later TEXT NOT NULL DEFAULT '';",
        "CREATE INDEX later ON webhook (next_at);",
        "CREATE TABLE later (\n id INTEGER\n);\nINSERT INTO later (id) VALUES (1);",
        "DROP TABLE complaint;\nUPDATE schema_least SET least = 9;",
    ],
)
def test_allowed_script_of_a_file(text: str) -> None:
    assert not list(faults(Script("", text), 9, is_file=True))


@pytest.mark.parametrize(
    "text",
    [
        "ALTER TABLE binding DROP COLUMN x;",
        "ALTER TABLE binding RENAME COLUMN x TO z;",
        "ALTER TABLE binding RENAME TO tie;",
        "ALTER TABLE binding ADD COLUMN later TEXT NOT NULL;",
        "ALTER TABLE binding ADD COLUMN later INTEGER NOT NULL DEFAULT (unixepoch());",
        "ALTER TABLE binding ADD COLUMN later INTEGER CHECK (later IN (0, 1));",
        "ALTER TABLE binding ADD COLUMN a TEXT;\nALTER TABLE route ADD COLUMN b TEXT;",
        "ALTER TABLE call_record ADD COLUMN later TEXT;",
        "UPDATE binding SET record = 1;",
        "DELETE FROM outbox;",
        "INSERT INTO pool (id, created_at) VALUES ('later', 0);",
        "INSERT INTO pool SELECT id FROM business;",
        "DROP TABLE complaint;",
        "DROP TABLE complaint;\nUPDATE schema_least SET least = 8;",
        "CREATE INDEX later ON call_record (call_id);",
    ],
)
def test_forbidden_script_of_a_file(text: str) -> None:
    assert list(faults(Script("", text), 9, is_file=True))


@pytest.mark.parametrize(
    "text",
    [
        "ALTER TABLE call_record ADD COLUMN later bigint NOT NULL DEFAULT 0;",
        "DROP INDEX CONCURRENTLY IF EXISTS later;\nCREATE INDEX CONCURRENTLY later ON binding (record);",
    ],
)
def test_allowed_script_of_a_server(text: str) -> None:
    assert not list(faults(Script("", text), 3, is_file=False))


@pytest.mark.parametrize(
    "text",
    [
        "CREATE INDEX later ON webhook (next_at);",
        "CREATE INDEX CONCURRENTLY later ON binding (record);",
        "DROP INDEX CONCURRENTLY IF EXISTS later;\nCREATE INDEX CONCURRENTLY other ON binding (record);",
        "ALTER TABLE binding ADD COLUMN later text;\nCREATE INDEX CONCURRENTLY later ON binding (record);",
        "ALTER TABLE call_record ALTER COLUMN call_id TYPE bytea;",
        "ALTER TABLE call_record ADD CONSTRAINT later CHECK (ended_at > 0);",
    ],
)
def test_forbidden_script_of_a_server(text: str) -> None:
    assert list(faults(Script("", text), 3, is_file=False))
