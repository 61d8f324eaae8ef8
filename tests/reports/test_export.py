"""Call records as files for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow.parquet
import pytest

from relay.model.call import CallRecord
from relay.reports.export import MEDIA_TYPES, Format, csv_cell, export_parts
from relay.store.records import RecordFilter, read_all
from tests.support.shelf import REFUSED, Shelf, call
from tests.support.stored import NOW_MS, A, B, X, ended_record

FORMATS = tuple(MEDIA_TYPES)
REAL = (A, B, A[2:], B[2:], "13800000001.example")


def exported(shelf: Shelf, wanted: RecordFilter, format_: Format, *, reveal: bool = False) -> bytes:
    return b"".join(export_parts(read_all(shelf.connection, shelf.sealer, wanted), format_, reveal=reveal))


def read(format_: Format, data: bytes) -> list[dict[str, object]]:
    """The rows as another program reads them: texts in CSV, else values."""
    match format_:
        case "csv":
            return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
        case "jsonl":
            return [json.loads(line) for line in data.splitlines()]
        case "parquet":
            return pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()


@pytest.mark.parametrize("format_", FORMATS)
def test_each_format_has_the_calls_of_the_time_and_business(shelf: Shelf, format_: Format) -> None:
    shelf.add(*(call(n, business="other" if n % 2 else "default") for n in range(6)))
    shelf.follow()
    wanted = RecordFilter(business="other", since_ms=NOW_MS + 2_000, until_ms=NOW_MS + 9_000)
    rows = read(format_, exported(shelf, wanted, format_))
    assert [row["call_id"] for row in rows] == ["c3", "c5"]
    assert all(tuple(row) == CallRecord._fields for row in rows)


@pytest.mark.parametrize("format_", FORMATS)
def test_an_export_without_records_is_a_valid_file(shelf: Shelf, format_: Format) -> None:
    assert read(format_, exported(shelf, RecordFilter(), format_)) == []


@pytest.mark.parametrize("format_", FORMATS)
def test_real_numbers_are_masked_without_reveal(shelf: Shelf, format_: Format) -> None:
    shelf.add(call(1), call(2, number_dialled=B, **REFUSED))
    data = exported(shelf, RecordFilter(), format_)
    assert not [number for number in REAL if number.encode() in data]
    first, second = read(format_, data)
    assert (first["caller"], first["callee"], first["number_dialled"]) == ("138****0001", "139****0002", X)
    assert second["number_dialled"] == "139****0002"
    first, second = read(format_, exported(shelf, RecordFilter(), format_, reveal=True))
    assert (first["caller"], first["callee"], second["number_dialled"]) == (A, B, B)
    assert first["caller_leg_call_id"] == ended_record().caller_leg_call_id


@pytest.mark.parametrize("format_", FORMATS)
def test_numbers_in_an_order_are_masked_for_operators_and_kept_for_its_business_user(
    shelf: Shelf, format_: Format
) -> None:
    texts = {"order_id": "parcel for 138-0000-0001", "industrial_id": "88.101.1/13800000001"}
    shelf.add(call(1, **texts))
    (row,) = read(format_, exported(shelf, RecordFilter(), format_))
    assert (row["order_id"], row["industrial_id"]) == ("parcel for 138****0001", "88.101.1/138****0001")
    own = b"".join(export_parts(read_all(shelf.connection, shelf.sealer, RecordFilter()), format_, for_operator=False))
    for data in (own, exported(shelf, RecordFilter(), format_, reveal=True)):
        (row,) = read(format_, data)
        assert row == row | texts


def test_json_lines_are_those_of_calls_list_json(shelf: Shelf) -> None:
    shelf.add(ended_record())
    (line,) = read("jsonl", exported(shelf, RecordFilter(), "jsonl", reveal=True))
    assert line["received_at"] == "2026-01-01T00:00:00.000Z"
    assert line["answered_at"] == "2026-01-01T00:00:03.000Z"
    assert (line["duration_ms"], line["sip_status"], line["legacy"], line["direction"]) == (10_000, 200, False, None)


def test_null_is_empty_in_csv(shelf: Shelf) -> None:
    shelf.add(call(1, **REFUSED))
    (row,) = read("csv", exported(shelf, RecordFilter(), "csv"))
    assert (row["routed_at"], row["callee"], row["legacy"]) == ("", "", "false")
    assert row["received_at"] == "2026-01-01T00:00:01.000Z"


@pytest.mark.parametrize("text", ["=HYPERLINK(0)", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "＝1+1", "＠x"])
def test_a_peers_text_is_never_a_spreadsheet_formula(shelf: Shelf, text: str) -> None:
    shelf.add(call(1, caller_leg_call_id=text, order_id=text))
    (row,) = read("csv", exported(shelf, RecordFilter(), "csv", reveal=True))
    assert (row["caller_leg_call_id"], row["order_id"]) == (f"'{text}", f"'{text}")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        *((";=1+1", ";'=1+1"), ("a;=1+1", "a;'=1+1"), ("a\t=1", "a\t'=1"), ("a\r\n+1", "a\r\n'+1"), ("a|@x", "a|'@x")),
        *(("a; =1", "a; '=1"), ('a;"=1"', 'a;"\'=1"'), ("a,=1", "a,'=1"), (" =1", " '=1"), ("\u3000=1", "\u3000'=1")),
        *(("a;;＝1", "a;;'＝1"), ("a=b;c+d@e-f", "a=b;c+d@e-f"), ("2026-01-01; x", "2026-01-01; x"), ("", "")),
    ],
)
def test_nor_is_a_part_of_it_where_the_separator_is_another(text: str, written: str) -> None:
    """A spreadsheet takes the separator of its country, or several: `;=1+1` is then a cell of its own."""
    assert csv_cell(text) == written


@pytest.mark.parametrize("format_", FORMATS)
def test_invalid_utf_8_is_replaced(shelf: Shelf, format_: Format) -> None:
    shelf.add(call(1, caller_leg_call_id="a\udcffb", order_id='订单,"1"\n'))
    (row,) = read(format_, exported(shelf, RecordFilter(), format_, reveal=True))
    assert (row["caller_leg_call_id"], row["order_id"]) == ("a�b", '订单,"1"\n')


def test_parquet_has_typed_times_and_numbers(shelf: Shelf) -> None:
    shelf.add(call(1), call(2, kind="message", text_bytes=17))
    row, message = read("parquet", exported(shelf, RecordFilter(), "parquet"))
    assert (row["kind"], row["text_bytes"], message["kind"], message["text_bytes"]) == ("call", None, "message", 17)
    assert row["received_at"] == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert (row["duration_ms"], row["legacy"], row["ringing_at"]) == (
        10_000,
        False,
        datetime(2026, 1, 1, 0, 0, 0, 200_000, UTC),
    )


@pytest.mark.parametrize("format_", FORMATS)
def test_a_part_is_written_before_the_next_records_are_read(format_: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.reports.export.PART", 10)
    monkeypatch.setattr("relay.reports.export.ROW_GROUP", 10)
    taken = 0

    def records() -> Iterator[CallRecord]:
        nonlocal taken
        for n in range(100):
            taken += 1
            yield call(n)

    parts = export_parts(records(), format_)
    size = 0
    while size < 1_000:
        size += len(next(parts))
    assert taken <= 20
    data = b"".join(parts)
    assert taken == 100
    assert data
