from __future__ import annotations

from relay.replay.script import Wording
from relay.sip.message import Request


def message(*headers: tuple[str, str], body: bytes = b"") -> Request:
    return Request.of("INVITE", "sip:x@y", list(headers), body)


def test_numbers_are_replaced_in_headers_and_body() -> None:
    wording = Wording([("13812345678", "19900000001")])
    traced = message(("diversion", "<tel:+8613812345678>"), ("content-type", "application/sdp"), body=b"s=13812345678")
    assert wording.headers(traced) == [("diversion", "<tel:+8619900000001>")]
    assert wording.body(traced) == ([("content-type", "application/sdp")], b"s=19900000001")


def test_longer_numbers_are_replaced_first() -> None:
    wording = Wording([("12345", "aaaaa"), ("0012345", "bbbbb")])
    assert wording.headers(message(("subject", "0012345 and 12345"))) == [("subject", "bbbbb and aaaaa")]


def test_short_numbers_are_not_replaced() -> None:
    assert Wording([("8", "x")]).headers(message(("subject", "8"))) == [("subject", "8")]


def test_dialog_headers_and_credentials_are_left_out() -> None:
    traced = message(("via", "v"), ("call-id", "c"), ("authorization", "Digest"), ("x-cell", "id"), ("privacy", "id"))
    assert Wording([]).headers(traced, without=frozenset({"privacy"})) == [("x-cell", "id")]


def test_invalid_utf8_is_preserved() -> None:
    assert Wording([]).body(message(body=b"\xff\x00"))[1] == b"\xff\x00"
