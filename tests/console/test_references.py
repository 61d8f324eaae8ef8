"""Texts that no URL may have."""

from __future__ import annotations

import pytest

from relay.console.references import MOST, References, is_reference, may_be_in_url
from tests.support.relay_process import A

WRITTEN = (
    A,
    f"+86{A}",
    "138 0000 0001",
    "010-62345678",
    "+1 415 555 0101",
    f"SF{A}",
    "一三八零零零零零零零一",
    "447700900123",
    "6591234567",
    "6591-234-567",
    "\uff14\uff14\uff17\uff17\uff10\uff10\uff19\uff10\uff10\uff11\uff12\uff13",
    "四四七七零零九零零一二三",
    "1001",
    "20261128001",
    "x" * 2_000,
)


@pytest.mark.parametrize("text", WRITTEN)
def test_a_url_has_a_reference_instead_of_a_real_number(text: str) -> None:
    references = References()
    reference = references.for_url(text)
    assert is_reference(reference) and references.meant(reference) == text
    assert references.for_url(text) == reference != References().for_url(text)


@pytest.mark.parametrize(
    "text",
    ["", "50", "order-17", "700100000010001", "7001 0000 0010 001", "a1" * 16, "SF20261128001", "外卖 1128-0917"],
)
def test_other_texts_are_in_urls_as_they_are(text: str) -> None:
    assert may_be_in_url(text) and References().for_url(text) == text


def test_a_text_that_looks_like_a_reference_means_itself() -> None:
    references = References()
    assert references.meant(references.for_url("~" + "a" * 16)) == "~" + "a" * 16


def test_the_references_of_a_session_are_few() -> None:
    references = References()
    made = [references.for_url(f"138{n:08}") for n in range(MOST + 1)]
    assert is_reference(references.meant(made[0]))
    assert references.meant(made[-1]) == f"138{MOST:08}"
