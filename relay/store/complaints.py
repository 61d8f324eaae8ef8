"""Complaints: their number for each day, business and prefix. Owns the table `complaint`.

`relay.store.purge` deletes old ones.
"""

from __future__ import annotations

from datetime import date

from relay.store.act import Act
from relay.store.connection import Connection

_PUT = """
INSERT INTO complaint (day, business, prefix, count, by) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (day, business, prefix) DO UPDATE SET count = ?4, by = ?5
"""
_OF_DAY = """
SELECT business, prefix, count FROM complaint WHERE day = :day AND (:business IS NULL OR business = :business)
"""


def put_complaints(act: Act, day: date, business: str, prefix: str, count: int) -> None:
    """Set the count, replacing an earlier one."""
    act.connection.execute(_PUT, (day.isoformat(), business, prefix, count, act.actor.name))


def complaints_of(connection: Connection, day: date, business: str | None) -> dict[tuple[str, str], int]:
    """The counts of a day by business and prefix; with `business`, of that one only."""
    rows = connection.execute(_OF_DAY, {"day": day.isoformat(), "business": business}).fetchall()
    return {(whose, prefix): count for whose, prefix, count in rows}
