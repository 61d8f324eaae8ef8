"""What of a text crosses: real numbers do not, however they are written."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.call.numbers import mask_number
from relay.call.text_masking import mask_numbers

SENDER = "8613800000001"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("13900000002", "139****0002"),
        ("call 13900000002, please", "call 139****0002, please"),
        ("打13900000002给我", "打139****0002给我"),
        ("139-0000-0002", "139****0002"),
        ("139 0000 0002", "139****0002"),
        ("139.0000.0002", "139****0002"),
        ("139—0000—0002", "139****0002"),
        ("139 - 0000 - 0002", "139****0002"),
        ("(139)00000002", "(139****0002"),
        ("+8613900000002", "139****0002"),
        ("＋８６ １３９００００００００２", "139****0002"),
        ("+86 139 0000 0002", "139****0002"),
        ("008613900000002", "139****0002"),
        ("00 86 139 0000 0002", "139****0002"),
        ("86-13900000002", "139****0002"),
        ("013900000002", "139****0002"),
        ("1\u200b3\u200b9\u200b0\u200b0\u200b0\u200b0\u200b0\u200b0\u200b0\u200b2", "139****0002"),
        ("①③⑨⓪⓪⓪⓪⓪⓪⓪②", "139****0002"),
        ("١٣٩٠٠٠٠٠٠٠٢", "139****0002"),
        ("1️⃣3️⃣9️⃣0️⃣0️⃣0️⃣0️⃣0️⃣0️⃣0️⃣2", "139****0002"),
        ("一三九零零零零零零零二", "139****0002"),
        ("幺三九〇〇〇〇〇〇〇两", "139****0002"),
        ("壹叁玖零零零零零零零貳", "139****0002"),
        ("幺三勾洞洞洞洞洞洞洞兩", "139****0002"),
        ("〡〣〩〇〇〇〇〇〇〇〢", "139****0002"),
        ("幺三拐洞洞洞洞洞洞洞两", "137****0002"),
        ("一三九 0000 零零零二", "139****0002"),
        ("单号二13900000002", "单号二139****0002"),
        ("20261125 13900000002 2", "20261125 139****0002 2"),
        ("13900000002/13712345678", "139****0002/137****5678"),
        ("010-88886666", "108****6666"),
        ("(0755) 2345 6789", "(755****6789"),
        ("+86 (0)10 8888 6666", "108****6666"),
        ("0311 8888666", "311****8666"),
        ("+44 1632 960001", "441****0001"),
        ("00441632960001", "441****0001"),
        ("+1 (202) 555-0143", "120****0143"),
        ("139/0000/0002", "139****0002"),
        ("139 / 0000 / 0002", "139****0002"),
        ("139／0000＼0002", "139****0002"),
        ("139|0000|0002", "139****0002"),
        ("139\r\n0000\r\n\r\n0002", "139****0002"),
        ("1\n3\n9\n0\n0\n0\n0\n0\n0\n0\n2\n", "139****0002\n"),
        ("139\u20280000\u20290002", "139****0002"),
        ("139          0000          0002", "139****0002"),
        ("139\u20070000\u202f0002", "139****0002"),
        ("1\u03363\u03369\u03360000\u0301000\u03362", "139****0002"),
        ("139\u3164\u31640000\u28000002", "139****0002"),
        ("139,0000,0002", "139****0002"),
        ("139:0000：0002", "139****0002"),
        ("139、0000，0002", "139****0002"),
        ("139*0000#0002", "139****0002"),
        ("一三九、零零零零、零零零二", "139****0002"),
        ("㊀㊂㊈〇〇〇〇〇〇〇㊁", "139****0002"),
        ("0755/2345/6789", "755****6789"),
        ("+44/1632/960001", "441****0001"),
        ("13/10/2026 139/0000/0002", "13/10/2026 139****0002"),
        ("13.50 139/0000/0002", "135****0002"),
        ("139.00/000002", "139****0002"),
        ("13.90 0.00 0.00 2", "139****0002"),
        ("138/1111/2222元", "138****2222元"),
        ("13.50一一一二二二二", "135****2222"),
        ("1350 139 0000 0002", "135****0002"),
        ("13/9/20 00 0002", "139****0002"),
    ],
)
def test_numbers_in_any_spelling_are_masked(text: str, masked: str) -> None:
    assert mask_numbers(text, SENDER) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "到门口了 🚪",
        "取件码 123456",
        "13:00-18:30 送到 101 室",
        "2026-11-25 14:30",
        "2026/11/25 13:00 3楼302",
        "订单 202611250000017",
        "运单号 SF1234567890123",
        "单号 9139000000029",
        "4001234567",
        "700100000010001",
        "+86 700100000010001",
        "+700100000010001",
        "10086",
        "一下就到，二楼三零二",
        "￥139.00, 12900000002",
        "15/3/2026 14:30",
        "15/3/2026 14.30",
        "05/11/2026 10:30-11:30",
        "05/11/2026\n10.30",
        "15/3 18:30-19:30 101",
        "13:00-18:30 1011",
        "13:00~18:30, 101",
        "13.00/18.30/101",
        "1/3/2026, 15/3/2026",
        "15/3/26\n18:30\n101",
        "10.00 12.00 15.00 20.00",
        "13.50/18.00/199",
        "￥139.00/￥130.50/￥1",
        "13.50元/1,800.00元/5元",
        "1350, 1280, 990",
        "15:30:00 14:30:00",
        "二〇二六年十一月二十五日 13:00",
    ],
)
def test_what_is_no_number_stays(text: str) -> None:
    assert mask_numbers(text, SENDER) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("13800000001", "138****0001"),
        ("913800000001999", "9138****0001999"),
        ("1380 first, then 0000001", "138****0001"),
        ("1-3-8 / 0-0-0-0 / 0-0-0-1", "138****0001"),
        ("138,0000,0001\n", "138****0001\n"),
        ("X一三八零零X零零零零零一X", "X138****0001X"),
        ("1380000000113800000001", "138****0001138****0001"),
        ("1380 一下 0000 二 001", "138****0001"),
    ],
)
def test_the_sender_s_own_is_found_whatever_stands_between(text: str, masked: str) -> None:
    assert mask_numbers(text, SENDER) == masked


def test_nor_does_what_a_mask_leaves_make_it_anew() -> None:
    assert mask_numbers("13800010001 0001 0001 0001 0001", "8613800010001") == "138****0001"


def test_the_receiver_s_own_cannot_be_guessed() -> None:
    """Only what looks like a number is treated as one: no guess is told from another by what becomes of it."""
    guesses = [f"9139{n:04}00029" for n in range(0, 10_000, 99)]
    assert all(mask_numbers(guess, SENDER) == guess for guess in guesses)


def test_an_extension_is_found_where_it_stands_alone() -> None:
    assert mask_numbers('"101", room 1012', "101") == '"****", room 1012'


def test_an_anonymous_sender_has_none() -> None:
    assert mask_numbers("hello 13900000002", "") == "hello 139****0002"


def test_a_700_number_of_the_sender_is_no_secret() -> None:
    assert mask_numbers("call 700100000010009, not 13900000002", "700100000010009") == (
        "call 700100000010009, not 139****0002"
    )


SIGNS = st.sampled_from([*string.digits, *" -.()+*,a", "３", "一", "零", "\u200b", "送"])


@given(st.lists(SIGNS, max_size=60).map("".join))
def test_what_is_masked_stays_as_it_is(text: str) -> None:
    once = mask_numbers(text, SENDER)
    assert mask_numbers(once, SENDER) == once


@given(st.text(SIGNS, max_size=20), st.text(SIGNS, max_size=20), st.lists(st.text(" -.", max_size=3), min_size=10))
def test_the_sender_s_number_never_crosses(before: str, after: str, gaps: list[str]) -> None:
    digits = SENDER[2:]
    written = "".join(map("".join, zip(digits, [*gaps[:10], ""], strict=True)))
    masked = mask_numbers(before + written + after, SENDER)
    assert digits not in "".join(sign for sign in masked if sign in string.digits)
    assert mask_number(SENDER) in masked or "****" in masked
