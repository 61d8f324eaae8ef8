"""The row of a call record: encoding and decoding."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import StoreError
from relay.model.call import CallRecord
from relay.store.record_rows import (
    COLUMNS,
    decode_record,
    encode_record,
    insert,
    open_row,
    open_written_row,
    row_of,
)
from relay.store.sealing.sealer import Sealer
from tests.support.stored import A, B, ended_record

SEALER = Sealer(b"k" * 32)
LINK = (7, b"hash")

NUMBERS = st.one_of(
    st.just(""),
    st.integers(100, 10**15 - 1).map(str),
    st.integers(0, 10**12 - 1).map(lambda serial: f"700{serial:012d}"),
)
WORDS = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)
WHOLE = st.none() | st.integers(0, 2**62)
PEERS_TEXT = st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape"))
RECORDS = st.builds(
    CallRecord,
    *(st.text("0123456789abcdef", min_size=32, max_size=32), WORDS, WORDS, WORDS, WORDS),
    *(NUMBERS, st.none() | NUMBERS, NUMBERS, st.none() | NUMBERS),
    *(st.text(st.characters(codec="utf-8"), max_size=9), WORDS, st.integers(0, 2**62)),
    *(WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, WORDS, WORDS, WORDS),
    *(PEERS_TEXT, st.none() | PEERS_TEXT, WORDS, st.booleans()),
    *([WHOLE] * 6),
    *(st.sampled_from(["call", "message"]), WHOLE, WORDS, WHOLE, WORDS, WORDS, WORDS),
)


@given(RECORDS)
def test_any_record_is_read_back_unchanged(record: CallRecord) -> None:
    row, encoded = row_of(SEALER, record)
    assert open_row(SEALER, (*row, *LINK))[:4] == (record, encoded, *LINK)
    assert decode_record(encoded) == record


def test_record_without_industrial_id_has_the_older_form() -> None:
    fields: list[object] = list(ended_record())
    legs = [str(leg).encode() for leg in fields[22:24]]
    old = b"\x05" + msgspec.msgpack.encode((fields[:22] + fields[24:35], *legs))
    assert encode_record(ended_record()) == old
    assert decode_record(old) == ended_record()
    with pytest.raises(StoreError):
        decode_record(b"\x05" + msgspec.msgpack.encode((fields[:22] + fields[24:34], *legs)))


def test_row_has_no_plain_real_number_and_no_text_of_a_peer() -> None:
    shown = repr(row_of(SEALER, ended_record())[0])
    for secret in (A[2:], B[2:], "a84b4c76e66710", "order-1"):
        assert secret not in shown


@pytest.mark.parametrize("column", COLUMNS[:-2])
def test_change_of_any_column_is_an_error(column: str) -> None:
    row: list[Any] = [*row_of(SEALER, ended_record())[0], *LINK]
    place = COLUMNS.index(column)
    row[place] = b"\x01other" if isinstance(row[place], bytes) else "other"
    with pytest.raises(StoreError, match="was altered"):
        open_row(SEALER, tuple(row))


def test_follower_believes_the_search_columns_and_computes_no_hash() -> None:
    row, encoded = row_of(SEALER, ended_record())
    other = (*row[:-3], b"a caller's hash..", b"a callee's hash..", row[-1])
    assert open_written_row(SEALER, (*other, *LINK)) == (
        ended_record(),
        encoded,
        *LINK,
        b"a caller's hash..",
        b"a callee's hash..",
    )


@pytest.mark.parametrize("column", ["caller_hash", "callee_hash", "chain_hash", "sealed"])
def test_follower_takes_no_row_with_a_value_of_another_type(column: str) -> None:
    row: list[Any] = [*row_of(SEALER, ended_record())[0], *LINK]
    for value in (7, "text", None if column != "callee_hash" else b""):
        row[COLUMNS.index(column)] = value
        with pytest.raises(StoreError, match="was altered"):
            open_written_row(SEALER, tuple(row))


def test_follower_takes_no_record_with_the_content_of_another() -> None:
    one, other = (row_of(SEALER, ended_record(call_id))[0] for call_id in ("c1", "c2"))
    with pytest.raises(StoreError, match="c1 was altered: it holds another record"):
        open_written_row(SEALER, (*one[:-1], other[-1], *LINK))


def test_sealed_bytes_that_are_not_a_record_are_an_altered_record() -> None:
    row, _ = row_of(SEALER, ended_record())
    for plaintext in (b"", b"\x01\x93", encode_record(ended_record())[:-1], b"\x01\x93\x90\xc4\x00\xc0"):
        with pytest.raises(StoreError, match="c1 was altered"):
            open_row(SEALER, (*row[:-1], SEALER.seal(plaintext, b"record"), *LINK))


@pytest.mark.parametrize("field", CallRecord._fields)
def test_chain_covers_each_field(field: str) -> None:
    assert encode_record(ended_record()) != encode_record(ended_record(**{field: "other"}))


@given(st.lists(st.tuples(st.integers(), st.binary(max_size=3) | st.none()), max_size=100))
def test_multi_row_insert_equals_single_inserts(rows: list[tuple[int, bytes | None]]) -> None:
    rows = [(number % 2**63, value) for number, value in rows]
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE many (id INTEGER PRIMARY KEY, number, value)")
        connection.execute("CREATE TABLE one (id INTEGER PRIMARY KEY, number, value)")
        insert(connection, "INSERT INTO many (number, value) VALUES", rows)
        for row in rows:
            connection.execute("INSERT INTO one (number, value) VALUES (?, ?)", row)
        many, one = (connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in ("many", "one"))
    assert many == one
    connection.close()
