"""Call records as CSV, JSON lines or Parquet, written in parts, so that no file is in memory as a whole.

Parquet needs pyarrow (150 MB), an extra that is imported on use.

CSV has a header line; JSON lines have the objects of `calls list --json`. In CSV, text that a spreadsheet would read as
a formula (a peer chooses Call-IDs) gets an apostrophe before it, also behind a possible separator.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from typing import Any, Literal

from relay.errors import install_command
from relay.model.call import CallRecord
from relay.privacy.records import Value
from relay.reports.disclosure import TIMES, record_form, with_moments
from relay.service.fields import invalid

Format = Literal["csv", "jsonl", "parquet"]
MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl",
    "parquet": "application/vnd.apache.parquet",
}
PART = 1_000  # records
ROW_GROUP = 10_000  # records that Parquet compresses and reads together
# The begin of a cell, and the signs that make it a formula; full-width ones as well. A spreadsheet may have another
# separator than the comma, and then the quotes of a cell do not protect its parts.
_FORMULA = re.compile(r"""(^|[;,|\t\r\n])([\s"]*)([=+\-@＝＋－＠])|^(?=[\t\r\n])""")
_COUNTS = tuple(name for name in CallRecord._fields if name.endswith(("_packets", "_lost", "_jitter_ms")))
_INTEGERS = ("duration_ms", "sip_status", "q850_cause", "text_bytes", "qualification", *_COUNTS)


def check_format(format_: Format) -> None:
    """Raises Refused if the writer of the format is not installed."""
    if format_ == "parquet" and find_spec("pyarrow") is None:
        command = install_command("parquet")
        raise invalid("format", f"parquet needs the extra relay700[parquet]: `{command}` installs it")


def export_parts(
    records: Iterable[CallRecord], format_: Format, *, reveal: bool = False, for_operator: bool = True
) -> Iterator[bytes]:
    """Yield the file in parts, made one at a time. Real numbers are masked without `reveal`."""
    forms = (record_form(record, reveal=reveal, for_operator=for_operator) for record in records)
    match format_:
        case "csv":
            return _csv_parts(forms)
        case "jsonl":
            return _json_parts(forms)
        case "parquet":
            return _parquet_parts(forms, import_module("pyarrow"), import_module("pyarrow.parquet"))


_Form = dict[str, Value]


def _csv_parts(forms: Iterator[_Form]) -> Iterator[bytes]:
    yield csv_lines([CallRecord._fields])
    while part := list(islice(forms, PART)):
        yield csv_lines([[csv_cell(value) for value in with_moments(form).values()] for form in part])


def csv_lines(rows: Sequence[Sequence[object]]) -> bytes:
    """Lines of CSV."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def csv_cell(value: Value) -> Value:
    """A value as CSV has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return _FORMULA.sub(_as_text, value) if isinstance(value, str) else value


def _as_text(found: re.Match[str]) -> str:
    separator, blanks, sign = found.groups("")
    return f"{separator}{blanks}'{sign}"


def _json_parts(forms: Iterator[_Form]) -> Iterator[bytes]:
    while part := list(islice(forms, PART)):
        yield "".join(f"{json.dumps(with_moments(form), ensure_ascii=False)}\n" for form in part).encode()


def _parquet_parts(forms: Iterator[_Form], pyarrow: Any, parquet: Any) -> Iterator[bytes]:
    schema = _schema(pyarrow)
    sink = _Sink()
    with parquet.ParquetWriter(sink, schema) as writer:
        while part := list(islice(forms, ROW_GROUP)):
            writer.write_table(pyarrow.Table.from_pylist(part, schema=schema))
            yield sink.drain()
    yield sink.drain()


def _schema(pyarrow: Any) -> Any:
    kinds = dict.fromkeys(TIMES, pyarrow.timestamp("ms", tz="UTC"))
    kinds |= dict.fromkeys(_INTEGERS, pyarrow.int64()) | {"legacy": pyarrow.bool_()}
    return pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in CallRecord._fields])


class _Sink(io.RawIOBase):
    """A buffer of written bytes, emptied by `drain`."""

    def __init__(self) -> None:
        self._data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._data += data
        return len(data)

    def drain(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data
