"""The daily report: calls and messages of each business user on each prefix. Days are China's.

It counts calls received on the day that have ended; complaints are entered by hand. Distinct parties are counted in
memory, 100 bytes each; none is written anywhere.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import NamedTuple

from relay.model.call import PROBE_BUSINESS, CallRecord
from relay.service.fields import DAY_MS, midnight_ms
from relay.store.businesses import complaints_of
from relay.store.call_counts import prefix_of
from relay.store.connection import Connection
from relay.store.records import RecordFilter, read_all
from relay.store.sealing.sealer import Sealer


class DailyLine(NamedTuple):
    """One business user on one prefix. Attempts to call = answered + unanswered + all refused."""

    day: date
    business: str  # "" for refused attempts without a business user
    prefix: str  # "" if no 700 number was dialled
    attempts: int
    answered: int
    unanswered: int  # busy, no answer, cancelled and the like
    refused: dict[str, int]  # not routed, by outcome
    talk_ms: int
    parties: int  # distinct parties of calls and messages
    complaints: int
    messages: int  # text messages received
    messages_delivered: int

    @property
    def minutes(self) -> float:
        return round(self.talk_ms / 60_000, 1)


class _DayTally:
    def __init__(self) -> None:
        self.answered = self.unanswered = self.talk_ms = self.messages = self.messages_delivered = 0
        self.refused: Counter[str] = Counter()
        self.parties: set[int] = set()

    def add(self, record: CallRecord) -> None:
        if record.kind == "message":
            self.messages += 1
            self.messages_delivered += record.outcome == "delivered"
        elif record.routed_at is None and record.outcome != "cancelled":
            self.refused[record.outcome or "failed"] += 1
        elif record.answered_at is None:
            self.unanswered += 1
        else:
            self.answered += 1
        self.talk_ms += record.duration_ms or 0
        self.parties.update(int(f"1{party}") for party in (record.caller, record.callee) if party and party.isdecimal())

    def line(self, day: date, key: tuple[str, str], complaints: int) -> DailyLine:
        refused = dict(sorted(self.refused.items()))
        return DailyLine(
            day,
            *key,
            attempts=self.answered + self.unanswered + sum(refused.values()),
            answered=self.answered,
            unanswered=self.unanswered,
            refused=refused,
            talk_ms=self.talk_ms,
            parties=len(self.parties),
            complaints=complaints,
            messages=self.messages,
            messages_delivered=self.messages_delivered,
        )


def daily(connection: Connection, sealer: Sealer, day: date, business: str | None = None) -> list[DailyLine]:
    """Lines sorted by business and prefix: those of `business`, or of all but the probe.

    Reads all records of the day: use a thread.
    """
    since_ms, until_ms = day_span(day)
    tallies: dict[tuple[str, str], _DayTally] = {}
    for record in read_all(connection, sealer, RecordFilter(business=business, since_ms=since_ms, until_ms=until_ms)):
        if business is None and record.business == PROBE_BUSINESS:
            continue
        key = (record.business or "", prefix_of(record.number_dialled))
        tallies.setdefault(key, _DayTally()).add(record)
    complaints = complaints_of(connection, day, business)
    keys = sorted(tallies.keys() | complaints.keys())
    return [tallies.get(key, _DayTally()).line(day, key, complaints.get(key, 0)) for key in keys]


def day_span(day: date) -> tuple[int, int]:
    """The first millisecond of a day in China, and that of the next day, as Unix time."""
    begin_ms = midnight_ms(day)
    return begin_ms, begin_ms + DAY_MS


def daily_csv(lines: Iterable[DailyLine]) -> str:
    """The report as CSV, a column per field; refusals as "outcome=count", separated by blanks."""
    text = io.StringIO(newline="")
    write = csv.writer(text).writerow
    write(["minutes" if name == "talk_ms" else name for name in DailyLine._fields])
    for line in lines:
        refused = " ".join(f"{outcome}={count}" for outcome, count in line.refused.items())
        write((line._asdict() | {"refused": refused, "talk_ms": line.minutes}).values())
    return text.getvalue()
