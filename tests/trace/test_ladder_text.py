"""The ladder as text."""

from __future__ import annotations

import re
from unicodedata import east_asian_width

import pytest

from relay.trace.ladder import operator_view
from relay.trace.ladder_text import WIDTH, ladder_text
from relay.translation import columns_of, translation
from tests.ladder.ladder import Ladder
from tests.ladder.settings import B, X
from tests.trace.test_ladder_join import SCENARIOS, basic, early_dialogs, failover, shown, silent_target

PICTURE = """
                     caller's side                     callee's side           no. #target -withheld
          │ pbx 192.0.2.1:5060              │ relay700                        │
   0.0000 │── INVITE ──────────────────────▶│                                 │   0
   0.0000 │◀── 100 Trying ──────────────────│                                 │   1
          │                                 │────── second 198.51.100.1:5060 ─│  #1
   0.0000 │                                 │── INVITE ×4 ───────────────────▶│   2 #1
          │                                 │───── carrier 198.51.100.2:5060 ─│  #2
   6.0000 │                                 │── INVITE ──────────────────────▶│   3 #2
   6.1000 │                                 │◀── 180 Ringing ─────────────────│   4 #2
   6.1000 │◀── 180 Ringing ─────────────────│                                 │   5
"""


@pytest.mark.parametrize("play", SCENARIOS, ids=lambda play: play.__name__)
@pytest.mark.parametrize("ascii_", [False, True], ids=["utf-8", "ascii"])
def test_text_fits_the_width(play: object, ascii_: bool) -> None:
    assert callable(play)
    lines = list(ladder_text(shown(play()), ascii_=ascii_, messages=True))
    drawn = [line for line in lines if line.startswith("  ") and ("|" in line or "│" in line)]
    assert len(drawn) > 3
    assert all(len(line) <= WIDTH and not any(east_asian_width(sign) == "W" for sign in line) for line in drawn)
    assert not ascii_ or all(line.isascii() for line in lines)


def test_picture_of_a_silent_target() -> None:
    ladder = silent_target()
    ladder.steps.clear()
    lines = list(ladder_text(shown(ladder)))
    assert lines[4:14] == PICTURE.strip("\n").splitlines()
    assert "   5 180 Ringing, made from 4: nothing" in lines


def test_a_chinese_picture_has_the_columns_of_an_english_one() -> None:
    ladder = shown(basic())
    english, chinese = (list(ladder_text(ladder, words=words)) for words in (str, translation("zh")))
    assert "主叫侧" in chinese[4] and "拨打" in chinese[1] and any("● 已判定 " in line for line in chinese)
    for before, after in zip(english, chinese, strict=True):
        if "│" in before:
            assert columns_of(before) == columns_of(after)
    assert not {"dialled", "masked", "made", "nothing"} & set(re.findall("[a-z]+", " ".join(chinese)))


def test_marks_stand_between_the_messages() -> None:
    lines = [line for line in ladder_text(shown(basic())) if "●" in line]
    assert [line.split("●")[1].strip(" │") for line in lines] == ["decided", "record on disk", "record on disk"]


@pytest.mark.parametrize(
    ("what", "label"),
    [
        ("480 Temporarily Unavailable", "── 480 Temporarily Unavailable ─"),
        ("481 Call/Transaction Does Not Exist", "── 481 Call/Transaction Does … ─"),
    ],
)
def test_label_too_long_for_the_arrow_is_cut_with_a_sign(what: str, label: str) -> None:
    ladder = shown(basic())
    rows = tuple(row._replace(what=what) for row in ladder.rows)
    drawn = [line for line in ladder_text(ladder._replace(rows=rows)) if "── 48" in line]
    assert len(drawn) == len(rows)
    assert all(label in line for line in drawn)


def test_attempts_and_early_dialogs_have_labels() -> None:
    text = "\n".join(ladder_text(shown(failover())))
    assert " 6 #2\n" in text
    text = "\n".join(ladder_text(shown(early_dialogs())))
    assert " 5 #1b\n" in text
    assert " 6 b\n" in text


def test_head_tells_the_story_with_masked_numbers() -> None:
    ladder = basic()
    text = "\n".join(ladder_text(shown(ladder)))
    assert f"138****0001 dialled {X}, answered" in text
    assert B[2:] not in text
    assert f"sip:{B[2:]}@" in "\n".join(ladder_text(shown(ladder, operator_view(reveal=True)), messages=True))


def test_paint_gets_each_part() -> None:
    text = "\n".join(ladder_text(shown(basic()), paint=lambda text, style: f"<{style}>{text}</>"))
    for style in ("head", "time", "request", "progress", "success", "mark"):
        assert f"<{style}>" in text


def test_lost_messages_are_said() -> None:
    lines = list(ladder_text(shown(basic())._replace(lost=3)))
    assert any("3 messages are missing" in line for line in lines)


def test_control_characters_do_not_reach_the_terminal() -> None:
    ladder = Ladder()
    ladder.caller.calls(X, headers="Subject: \x1b[31mred \x9b1m\u202e\r\n")
    text = "\n".join(ladder_text(shown(ladder, operator_view(reveal=True)), messages=True))
    assert not {"\x1b", "\x9b", "\u202e"} & set(text)
    assert "\\x1b[31mred" in text
