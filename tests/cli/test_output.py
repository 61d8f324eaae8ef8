"""Tables and JSON of commands."""

from __future__ import annotations

from relay.cli.output import json_line, record_row, shower, table
from relay.reports.disclosure import printable
from tests.support.stored import A, ended_record, live_record


def test_columns_are_as_wide_as_their_cells() -> None:
    assert list(table(("id", "n"), [("a", "1"), ("longer", "2")])) == ["id      n", "a       1", "longer  2"]
    assert list(table(("id", "n"), [])) == ["id  n"]


def test_a_long_table_is_printed_whole() -> None:
    assert len(list(table(("n",), ((str(n),) for n in range(2_500))))) == 2_501


def test_rows_of_a_live_and_an_ended_call() -> None:
    masked = shower(reveal=False)
    assert record_row(live_record(), masked)[1:4] == ("call", "live", "200")
    row = record_row(ended_record(), masked)
    assert row[0] == "2026-01-01T00:00:00.000Z"
    assert row[5:] == ("138****0001", "139****0002", "10.0s", "caller", "c1")
    assert A in record_row(ended_record(), shower(reveal=True))


def test_chinese_is_printed_as_it_is_and_invalid_utf_8_is_replaced() -> None:
    assert json_line({"order_id": "订单"}) == '{"order_id": "订单"}'
    assert printable("订单\udcff") == "订单\ufffd"
