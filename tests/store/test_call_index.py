"""The index keys of an ended call."""

from __future__ import annotations

from relay.store.call_index import beside_key, business_key, call_key, index_rows, number_key, order_key, pair_key
from relay.store.sealing import Sealer
from tests.support.stored import NOW_MS, A, B, X, Y, ended_record

SEALER = Sealer(b"k" * 32)


def keys(**changes: object) -> set[bytes]:
    rows = index_rows(SEALER, ended_record("c1", **changes), 7)
    assert {row[1:] for row in rows} == {(NOW_MS, 7)}
    assert len({key for key, *_ in rows}) == len(rows)
    return {key for key, *_ in rows}


COMMON = {call_key(SEALER, "c1"), order_key(SEALER, "order-1"), business_key(SEALER, "default")}
PARTIES = {beside_key(SEALER, A), beside_key(SEALER, B)}


def test_granted_call_counts_for_its_number_and_its_pair() -> None:
    assert keys() == {*COMMON, *PARTIES, pair_key(SEALER, X, A), number_key(SEALER, X)}


def test_number_only_shown_is_found_but_not_counted() -> None:
    shown = keys(number_shown=Y)
    assert shown - keys() == {beside_key(SEALER, Y)}
    assert number_key(SEALER, Y) not in shown


def test_refused_call_is_found_by_number_and_caller_but_not_counted() -> None:
    refused = keys(routed_at=None, callee=None, number_shown=None, business=None, order_id=None)
    assert refused == {call_key(SEALER, "c1"), beside_key(SEALER, X), beside_key(SEALER, A)}


def test_anonymous_caller_is_not_indexed_as_a_party() -> None:
    assert keys(caller="", callee=None) == {*COMMON, pair_key(SEALER, X, ""), number_key(SEALER, X)}
