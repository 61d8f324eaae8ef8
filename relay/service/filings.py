"""The rules for filing: carriers want to know a business user's A numbers before they carry calls of them.

What is kept is the number and the reference of its filing; papers and photos stay with the carrier. A numbers are party
a of AXB, AXYB and AXN, and of GXB and GXYB the members of the group, with party a where there is one.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from relay.call.binding import Binding
from relay.call.numbers import normalise_party
from relay.call.parties import MOBILES_ALONE, Parties, parse_party
from relay.errors import Refused
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.service.releases import BindRules
from relay.store.act import Act
from relay.store.connection import Connection
from relay.store.filings import Filing, find_filing, is_filed, put_filing, unfiled_members, withdraw_filing
from relay.store.sealing import Sealer
from relay.store.writer import Run

LONGEST_REFERENCE = 128
COLUMNS = ("number", "reference")
CHUNK = 200  # filings of an act

_Row = tuple[int, list[str] | Refused]  # where it ends in the file, and its cells


class Outcome(NamedTuple):
    """What became of one line of a file; `refused` is None where the number was filed."""

    line: int
    refused: Refused | None


def add_filing(act: Act, business: str, number: str, reference: str, parties: Parties = MOBILES_ALONE) -> Filing:
    """Files an A number, or gives its filing another reference. It works with the next call. Raises Refused.

    It is one of the `parties` that may be bound: of any other no call could be carried.
    """
    filing = _put(act, business, number, reference, parties)
    details: dict[str, object] = {"number": filing.number, "reference": filing.reference}
    act.audit("filing.add", filing.business, business=filing.business, details=details)
    return filing


def remove_filing(act: Act, business: str, number: str) -> Filing:
    """Withdraws it: from the next call on the number is not filed. Raises Refused."""
    owner = get_business(act, business).id
    party = fields.parsed("number", number, normalise_party)  # also one that could not be filed any more
    if not withdraw_filing(act, owner, party):
        raise Refused("not_found", "number", "it is not filed")
    act.audit("filing.remove", owner, business=owner, details={"number": party})
    return _found(act, owner, party)


def import_filings(
    lines: Iterable[str], business: str, run: Run, parties: Parties = MOBILES_ALONE
) -> Iterator[Outcome]:
    """Files the number on each line of a CSV file (number, reference), a chunk at a time. Bad lines are left out."""
    rows = _rows(lines)
    while chunk := list(islice(rows, CHUNK)):
        yield from run(partial(_file_rows, business=business, rows=chunk, parties=parties))


def _rows(lines: Iterable[str]) -> Iterator[_Row]:
    """With their line in the file. A first line may name the columns."""
    reader = csv.reader(lines)
    while True:
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, fields.invalid("line", f"it is no CSV: {error}")
            continue
        if any(cells) and not (reader.line_num == 1 and tuple(map(str.lower, cells)) == COLUMNS):
            yield reader.line_num, cells


def _file_rows(act: Act, business: str, rows: Sequence[_Row], parties: Parties) -> list[Outcome]:
    outcomes = []
    for line, cells in rows:
        try:
            if isinstance(cells, Refused):
                raise cells
            if len(cells) != len(COLUMNS):
                raise fields.invalid("line", f"it has {len(cells)} cells: write number,reference")
            number, reference = cells
            _put(act, business, number, reference, parties)
            outcomes.append(Outcome(line, None))
        except Refused as refused:
            outcomes.append(Outcome(line, refused))
    if filed := sum(outcome.refused is None for outcome in outcomes):
        act.audit("filing.import", business, business=business, details={"filed": filed})
    return outcomes


def _put(act: Act, business: str, number: str, reference: str, parties: Parties) -> Filing:
    owner = get_business(act, business).id
    party = fields.parsed("number", number, partial(parse_party, parties=parties))
    given = fields.text("reference", reference, LONGEST_REFERENCE)
    if given is None:
        raise fields.invalid("reference", "it is missing: name the carrier's reference of the filing")
    put_filing(act, owner, party, given)
    return _found(act, owner, party)


def _found(act: Act, business: str, number: str) -> Filing:
    filing = find_filing(act.connection, act.sealer, business, number)
    assert filing is not None  # it was just written
    return filing


# -- what filing gates


def check_filing(act: Act, binding: Binding, rules: BindRules) -> None:
    """Raises Refused where an A number of the binding is not filed, and must be."""
    field, problem = _unfiled(act.connection, act.sealer, binding) if rules.filing == "require" else ("", "")
    if field:
        raise Refused("not_filed", field, f"{problem}: `relay700 filings add`, or POST /v1/filings, files a number")


def note_unfiled(act: Act, binding: Binding, rules: BindRules) -> None:
    """A binding that was made or changed all the same stands in the audit log."""
    field, _ = _unfiled(act.connection, act.sealer, binding) if rules.filing == "warn" else ("", "")
    if field:
        act.audit("binding.not_filed", binding.binding_id, business=binding.business, details={"field": field})


def filing_warning(connection: Connection, sealer: Sealer, binding: Binding, rules: BindRules) -> str | None:
    """What of it whoever has made or changed the binding is told."""
    field, problem = _unfiled(connection, sealer, binding) if rules.filing == "warn" else ("", "")
    return f"{field}: {problem}" if field else None


def _unfiled(connection: Connection, sealer: Sealer, binding: Binding) -> tuple[str, str]:
    """The field, and in words what of it is not filed; "" where all are."""
    if binding.a is not None and not is_filed(connection, sealer, binding.business, binding.a):
        return "a", "it is an A number that is not filed"
    if binding.group_id is not None and (count := unfiled_members(connection, binding.business, binding.group_id)):
        return "group_id", f"{count} of its members are A numbers that are not filed"
    return "", ""
