"""The rules of filings: carriers require a business user to file its A numbers before they carry calls from them.

The store keeps the number and the carrier's reference; documents and photos stay with the carrier. A numbers are party
a of AXB, AXYB and AXN; of GXB and GXYB the members of the group, and party a if there is one.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from relay.errors import Refused
from relay.model.binding import Binding
from relay.model.numbers import MOBILES_ALONE, Parties, normalise_party, parse_party
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.service.placement import BindRules
from relay.store.connection import Connection
from relay.store.filings import Filing, find_filing, is_filed, put_filing, unfiled_members, withdraw_filing
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import Run

LONGEST_REFERENCE = 128
COLUMNS = ("number", "reference")
CHUNK = 200  # filings per unit of work

_Row = tuple[int, list[str] | Refused]  # line number of its end, and its cells


class Outcome(NamedTuple):
    """The result of one line of a file; `refused` is None if the number was filed."""

    line: int
    refused: Refused | None


def add_filing(act: UnitOfWork, business: str, number: str, reference: str, parties: Parties = MOBILES_ALONE) -> Filing:
    """File an A number, or change the reference of its filing, effective from the next call. Raises Refused.

    The number must be of a kind in `parties`: no other can be bound.
    """
    filing = _put(act, business, number, reference, parties)
    details: dict[str, object] = {"number": filing.number, "reference": filing.reference}
    act.audit("filing.add", filing.business, business=filing.business, details=details)
    return filing


def remove_filing(act: UnitOfWork, business: str, number: str) -> Filing:
    """Withdraw a filing, effective from the next call. Raises Refused."""
    owner = get_business(act, business).id
    party = fields.parsed("number", number, normalise_party)  # of any kind: `parties` may have changed since
    if not withdraw_filing(act, owner, party):
        raise Refused("not_found", "number", "not filed by this business user")
    act.audit("filing.remove", owner, business=owner, details={"number": party})
    return _found(act, owner, party)


def import_filings(
    lines: Iterable[str], business: str, run: Run, parties: Parties = MOBILES_ALONE
) -> Iterator[Outcome]:
    """File the number on each line of a CSV file (number, reference), in chunks. Invalid lines are skipped."""
    rows = _rows(lines)
    while chunk := list(islice(rows, CHUNK)):
        yield from run(partial(_file_rows, business=business, rows=chunk, parties=parties))


def _rows(lines: Iterable[str]) -> Iterator[_Row]:
    """The rows of a CSV file with their line numbers. The first line may be a header."""
    reader = csv.reader(lines)
    while True:
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, fields.invalid("line", f"must be CSV: {error}")
            continue
        if any(cells) and not (reader.line_num == 1 and tuple(map(str.lower, cells)) == COLUMNS):
            yield reader.line_num, cells


def _file_rows(act: UnitOfWork, business: str, rows: Sequence[_Row], parties: Parties) -> list[Outcome]:
    outcomes = []
    for line, cells in rows:
        try:
            if isinstance(cells, Refused):
                raise cells
            if len(cells) != len(COLUMNS):
                raise fields.invalid("line", f"must have 2 cells (number,reference), not {len(cells)}")
            number, reference = cells
            _put(act, business, number, reference, parties)
            outcomes.append(Outcome(line, None))
        except Refused as refused:
            outcomes.append(Outcome(line, refused))
    if filed := sum(outcome.refused is None for outcome in outcomes):
        act.audit("filing.import", business, business=business, details={"filed": filed})
    return outcomes


def _put(act: UnitOfWork, business: str, number: str, reference: str, parties: Parties) -> Filing:
    owner = get_business(act, business).id
    party = fields.parsed("number", number, partial(parse_party, parties=parties))
    given = fields.text("reference", reference, LONGEST_REFERENCE)
    if given is None:
        raise fields.invalid("reference", "required: the carrier's reference of the filing")
    put_filing(act, owner, party, given)
    return _found(act, owner, party)


def _found(act: UnitOfWork, business: str, number: str) -> Filing:
    filing = find_filing(act.connection, act.sealer, business, number)
    assert filing is not None  # it was just written
    return filing


# -- filing of a binding's A numbers


def check_filing(act: UnitOfWork, binding: Binding, rules: BindRules) -> None:
    """Raise Refused if filing is required and an A number of the binding is not filed."""
    field, problem = _unfiled(act.connection, act.sealer, binding) if rules.filing == "require" else ("", "")
    if field:
        raise Refused("not_filed", field, f"{problem}: file first (`relay700 filings add`, or POST /v1/filings)")


def note_unfiled(act: UnitOfWork, binding: Binding, rules: BindRules) -> None:
    """Write an audit line if unfiled A numbers cause a warning only, and one of the binding is not filed."""
    field, _ = _unfiled(act.connection, act.sealer, binding) if rules.filing == "warn" else ("", "")
    if field:
        act.audit("binding.not_filed", binding.binding_id, business=binding.business, details={"field": field})


def filing_warning(connection: Connection, sealer: Sealer, binding: Binding, rules: BindRules) -> str | None:
    """The warning about unfiled A numbers for the response; None if there is none."""
    field, problem = _unfiled(connection, sealer, binding) if rules.filing == "warn" else ("", "")
    return f"{field}: {problem}" if field else None


def _unfiled(connection: Connection, sealer: Sealer, binding: Binding) -> tuple[str, str]:
    """The field with an unfiled A number, and the problem; "" and "" if all are filed."""
    if binding.a is not None and not is_filed(connection, sealer, binding.business, binding.a):
        return "a", "this A number is not filed"
    if binding.group_id is not None and (count := unfiled_members(connection, binding.business, binding.group_id)):
        return "group_id", f"{count} members of the group (A numbers) are not filed"
    return "", ""
