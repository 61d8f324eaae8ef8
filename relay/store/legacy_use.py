"""The live bindings on old middle numbers, for what is left to do before these end. Reads only."""

from __future__ import annotations

from typing import Final, NamedTuple

from relay.store.connection import Connection
from relay.store.numbers import LEGACY_POOL


class LegacyBindings(NamedTuple):
    """The live bindings of a business user that are on an old number."""

    live: int
    outlasting: int  # of these, without an end, or with one after the old numbers'


_LATEST: Final = "CASE WHEN idle_ttl_s IS NULL THEN expires_at ELSE max_expires_at END"
_COUNT: Final = f"""
SELECT business, count(*), CAST(sum(CASE WHEN coalesce({_LATEST}, :ends + 1) > :ends THEN 1 ELSE 0 END) AS bigint)
FROM binding WHERE released_at IS NULL AND (expires_at IS NULL OR expires_at > :now) AND id IN (
    SELECT b.id FROM number n JOIN binding b ON b.x = n.number WHERE n.pool = '{LEGACY_POOL}'
    UNION SELECT b.id FROM number n JOIN binding b ON b.y = n.number WHERE n.pool = '{LEGACY_POOL}'
) GROUP BY business
"""


def legacy_bindings(connection: Connection, now_ms: int, ends_ms: int) -> dict[str, LegacyBindings]:
    """By business user, those that have some. `ends_ms`: the end of the old numbers."""
    rows = connection.execute(_COUNT, {"now": now_ms, "ends": ends_ms}).fetchall()
    return {business: LegacyBindings(count, outlasting) for business, count, outlasting in rows}
