"""A substitute for Sippy's RADIUS client: look-ups of bindings in SQLite, and a record for each ended call.

It speaks that client's protocol (sippy's External_command). A request is its kind, AUTH or ACCT, lines
`Attribute="value"`, and an empty line; an answer is lines `Attribute = 'value'`, 0 (yes) or 1 (no), and an empty line.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LOOK_UP = "select b from bindings where x = ? and a = ? and active = 1 and expires > ?"
RECORD = "insert into records(callid, caller, masked, ended, seconds, cause) values(?, ?, ?, ?, ?, ?)"


class Client:
    """Look-ups and records. A record is durable before its request is answered."""

    def __init__(self, folder: Path, callee: str) -> None:
        self._callee = callee
        self._bindings = sqlite3.connect(folder / "bindings.db")
        self._records = sqlite3.connect(folder / "records.db", isolation_level=None)
        self._records.execute("pragma journal_mode=wal")
        self._records.execute(
            "create table if not exists records(id integer primary key, callid, caller, masked, ended, seconds, cause)"
        )

    def authorise(self, asked: dict[str, str]) -> str:
        """The route, with the 700 number as the caller and no display name; one record per call."""
        caller, number = asked["Calling-Station-Id"], asked["Called-Station-Id"]
        found = self._bindings.execute(LOOK_UP, (number, caller, int(time.time()))).fetchone()
        if found is None:
            return "1\n"
        return f"h323-ivr-in = 'Routing:{found[0]}@{self._callee};cli={number};cnam=;forward_on_fail=1'\n0\n"

    def account(self, told: dict[str, str]) -> str:
        numbers = (told["Calling-Station-Id"], told["Called-Station-Id"])
        what = (told["h323-disconnect-time"], told["Acct-Session-Time"], told["h323-disconnect-cause"])
        self._records.execute(RECORD, (told["Acct-Session-Id"], *numbers, *what))
        return "0\n"


def _requests() -> Iterator[tuple[str, dict[str, str]]]:
    lines: list[str] = []
    for line in map(str.rstrip, sys.stdin):
        if line:
            lines.append(line)
            continue
        pairs = (attribute.partition("=") for attribute in lines[1:])
        yield lines[0], {name: value.strip('"').removeprefix(f"{name}=") for name, _, value in pairs}
        lines.clear()


def main() -> None:
    client = Client(Path(sys.argv[1]), sys.argv[2])
    for kind, attributes in _requests():
        answer = client.authorise(attributes) if kind == "AUTH" else client.account(attributes)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
