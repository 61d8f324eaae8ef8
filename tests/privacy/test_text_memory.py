"""Numbers that are split over several texts."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.privacy.text_memory import MOST_SENDERS, NOTHING, WINDOW_S, TextMemory, mask_across, tails_after
from relay.privacy.texts import MOST_PASSES, mask_numbers

SENDER = "8613800000001"
ORDER = "b1"


def told(*texts: str, sender: str = SENDER) -> list[str]:
    """The masked form of each text in turn."""
    before, crossed = NOTHING, []
    for text in texts:
        masked = mask_across(MOST_PASSES, mask_numbers(text, sender), sender, before)
        assert masked is not None
        crossed.append(masked)
        before = tails_after(before, masked)
    return crossed


@pytest.mark.parametrize(
    ("texts", "last"),
    [
        (["138000", "00001"], "****"),
        (["我的号是138000", "后面是00001，记得打"], "后面是****，记得打"),
        (["1380", "000", "0001"], "****"),
        (["138", "好的", "0000", "到了", "0001"], "****"),
        (["取件码 1380", "x" * 1200 + "0000001"], "x" * 1200 + "****"),
        (["x" * 1200 + "1380" + "x" * 90, "0000001"], "****"),
        (["一三八零", "零零零零零零一"], "****"),
        (["幺三八零", "灵灵灵灵灵灵一"], "****"),
        (["l38oo", "ooooo1"], "****"),
        (["lEB", "OOOOOOO1"], "****"),
        (["one38-OO", "零零零零零l"], "****"),
        (["138 double zero", "TripleZero, o, o, I"], "****"),
        (["10000", "000831"], "****"),
        (["139000", "00002"], "****"),  # anyone's
        (["139-0000-", "0002 谢谢"], "**** 谢谢"),
        (["139", "0000", "0002"], "****"),
        (["一三九零零零零", "零零零二"], "****"),
        (["0755 2345", "6789"], "****"),
        (["+44 20", "7183 8750"], "****"),
        (["到了，139", "(0000) 0002"], "(****"),
        (["1", "3\n8\n0000\n0001\n"], "****\n"),
    ],
)
def test_number_split_over_several_texts_is_masked(texts: list[str], last: str) -> None:
    crossed = told(*texts)
    assert crossed[:-1] == texts[:-1]
    assert crossed[-1] == last


@pytest.mark.parametrize(
    "texts",
    [
        ["到了", "好的", "1号门"],
        ["13:00-18:00在家", "13:30", "14:00 3号楼", "18:30"],
        ["取件码 123456", "尾号 0002", "柜号 13"],
        ["139元", "付了 13900.00 元", "找您 2 元"],
        ["11/25 13:00", "11/26 9:00", "12/1"],
        ["房间 1390", "密码 12345678#"],
        ["运单号 SF1390241234567", "12345678"],
        ["3楼302", "13栋", "5单元"],
        ["我是就要到了", "吧台", "一会儿", "就是二楼", "三点"],
        ["I see oil at lobby 1", "3 boxes", "9 pm", "ok"],
        ["订单1390000012", "已送达"],
        ["l39oo", "oooo02"],  # likewise, in letters
        ["139", "到了 0000", "0002"],  # a third party's number, with words between: could be a code
    ],
)
def test_ordinary_texts_pass(texts: list[str]) -> None:
    assert told(*texts) == texts


def test_refused_text_is_not_remembered() -> None:
    before = tails_after(NOTHING, "138000")
    assert mask_across(MOST_PASSES, "00001", SENDER, before) == "****"
    assert mask_across(MOST_PASSES, "00002", SENDER, before) == "****"  # looks like a number as well
    assert mask_across(MOST_PASSES, "好 00002", "8613900000009", before) == "好 00002"


def test_parts_of_a_number_after_the_last_pass_are_none() -> None:
    before = tails_after(NOTHING, "138000")
    assert mask_across(1, "00001", SENDER, before) is None
    assert mask_across(1, "好", SENDER, before) == "好"
    assert mask_across(MOST_PASSES, "00001 " * 40, SENDER, before) is None


def test_unknown_sender_or_extension_has_no_number_to_complete() -> None:
    assert told("10", "1", sender="101") == ["10", "1"]
    assert told("138 到", "00000001", sender="") == ["138 到", "00000001"]


def test_tails_are_kept_by_sender_and_binding_for_window_s() -> None:
    memory = TextMemory()
    tails = tails_after(NOTHING, "138000")
    memory.remember(SENDER, ORDER, tails, 100.0)
    assert memory.before(SENDER, ORDER, 99.0 + WINDOW_S) == tails
    assert memory.before(SENDER, ORDER, 100.0 + WINDOW_S) == NOTHING
    assert memory.before(SENDER, "b2", 101.0) == NOTHING
    assert memory.before("8613900000002", ORDER, 101.0) == NOTHING


def test_oldest_sender_is_evicted_at_the_limit() -> None:
    memory = TextMemory()
    tails = tails_after(NOTHING, "138000")
    for number in range(MOST_SENDERS + 1):
        memory.remember(str(number), ORDER, tails, 1.0)
        memory.remember("0", ORDER, tails, 1.0)
    assert len(memory) == MOST_SENDERS
    assert memory.before("0", ORDER, 1.0) == tails
    assert memory.before("1", ORDER, 1.0) == NOTHING


def test_text_without_digits_takes_no_memory() -> None:
    memory = TextMemory()
    memory.remember(SENDER, ORDER, tails_after(NOTHING, "到门口了"), 1.0)
    assert len(memory) == 0


@given(st.lists(st.text("0123456789 -o是一x", max_size=400), max_size=4))
def test_memory_per_sender_is_bounded(texts: list[str]) -> None:
    tails = NOTHING
    for text in texts:
        tails = tails_after(tails, text)
    assert sum(sys.getsizeof(part) for tail in tails for part in tail) < 1_500


@given(st.integers(1, 10), st.text("xyz 到", max_size=20), st.text("xyz 到", max_size=20))
def test_senders_number_is_never_completed(split: int, after_it: str, before_it: str) -> None:
    digits = SENDER[2:]
    crossed = told(digits[:split] + after_it, before_it + digits[split:])
    assert digits not in "".join(sign for sign in "".join(crossed) if sign.isdigit())
