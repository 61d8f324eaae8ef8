"""How SQLite finds the rows of a query: by which index, or by reading the whole table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def steps_of(connection: Any, ask: Callable[[], object]) -> list[str]:
    """The steps of EXPLAIN QUERY PLAN for all SELECTs that `ask` runs on an SQLite connection."""
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    try:
        ask()
    finally:
        connection.set_trace_callback(None)
    queries = [query for query in asked if query.lstrip().startswith(("SELECT", "WITH"))]
    return [step for query in queries for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()]
