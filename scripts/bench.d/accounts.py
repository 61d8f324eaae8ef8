"""What each call of a load must leave: a record, an event at the webhook, and HEP packets at the collector."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import servers
from mix import KINDS, Counted, Mix

FEWEST_PACKETS = {"answered": 10, "no_binding": 3, "cancelled": 10, "busy": 6}  # messages of a call on both sides


class Record(NamedTuple):
    call_id: str
    outcome: str
    business: str | None


def compare(arrivals: sqlite3.Connection, relay: str, folder: Path, mix: Mix) -> list[str]:
    """The differences between a relay's calls, records, events and packets. Prints the counts."""
    enter(arrivals, relay, _records(folder))
    by_outcome = "select outcome, count(*) from record where relay = ? group by outcome"
    records = Counter(dict(arrivals.execute(by_outcome, (relay,))))
    called, answered = mix.counted(), mix.answered()
    print(f"\n{relay}\n{_table(called, answered, records)}", flush=True)
    faults = differences(called, answered, records)
    return faults + unmatched(arrivals, relay, EVENTS_MISSING | EVENTS_REPEATED | PACKETS_MISSING)


def enter(arrivals: sqlite3.Connection, relay: str, records: Iterable[Record]) -> None:
    """Put a relay's records beside what has arrived."""
    arrivals.execute("create temp table if not exists record(relay, call_id primary key, outcome, business)")
    arrivals.executemany(f"insert into record values ('{relay}', ?, ?, ?)", records)


def _records(folder: Path) -> Iterator[Record]:
    """All of them, from `relay700 calls list`."""
    command = [*servers.RELAY700, "calls", "list", "--json", "-c", str(folder / "relay.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as listing:
        assert listing.stdout
        for line in listing.stdout:
            record = json.loads(line)
            yield Record(record["call_id"], record["outcome"], record["business"])


def _table(called: Mapping[str, Counted], answered: Mapping[str, Counted], records: Counter[str]) -> str:
    lines = [f"{'calls':12}{'begun':>10}{'as drawn':>10}{'failed':>8}{'by callees':>12}{'failed':>8}{'sent again':>12}"]
    for kind in KINDS:
        one, other = called[kind.name], answered.get(kind.name, Counted())
        again = one.sent_again + other.sent_again
        lines.append(
            f"{kind.name:12}{one.begun:10}{one.good:10}{one.failed:8}{other.good:12}{other.failed:8}{again:12}"
        )
    return "\n".join([*lines, f"records: {dict(sorted(records.items()))}"])


def differences(called: Mapping[str, Counted], answered: Mapping[str, Counted], records: Counter[str]) -> list[str]:
    """Differences between the callers' counts, the callees' counts and the records."""
    faults = []
    expected: Counter[str] = Counter()
    for kind in KINDS:
        one, other = called[kind.name], answered.get(kind.name)
        expected[kind.outcome] += one.good
        if one.failed or one.good != one.begun or not one.good:
            faults.append(f"{kind.name}: of {one.begun} calls {one.good} succeeded, {one.failed} failed")
        if other and (other.failed or other.good != one.good):
            faults.append(f"{kind.name}: at the callees {other.good} calls succeeded, {other.failed} failed")
    faults += [
        f"{outcome}: {expected[outcome]} calls, {records[outcome]} records"
        for outcome in sorted(expected | records)
        if expected[outcome] != records[outcome]
    ]
    return faults


def unmatched(arrivals: sqlite3.Connection, relay: str, rules: Mapping[str, str]) -> list[str]:
    """What breaks one of the rules, with its number. Needs `enter`."""
    found = {what: arrivals.execute(f"select count(*) {rows}", (relay,)).fetchone()[0] for what, rows in rules.items()}
    return [f"{number} {what}" for what, number in found.items() if number]


EVENTS_MISSING = {
    "records without an event": """
        from record where relay = ? and business is not null
        and call_id not in (select call_id from event where call_id is not null)""",
    "calls with several events": """
        from (select 1 from event where relay = ? and kind like 'call.%' group by call_id having count(*) > 1)""",
    "events without a record": """
        from event where relay = ? and kind like 'call.%' and call_id not in (select call_id from record)""",
}
EVENTS_REPEATED = {"events that came more than once": "from event where relay = ? and times > 1"}
_FEWEST = " ".join(f"when '{outcome}' then {number}" for outcome, number in FEWEST_PACKETS.items())
PACKETS_MISSING = {
    "records with too few HEP packets": f"""
        from record left join packets using (call_id)
        where relay = ? and coalesce(sip, 0) < case outcome {_FEWEST} end"""
}
