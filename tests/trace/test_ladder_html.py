"""The ladder as an HTML file: self-contained, and harmless whatever peers wrote."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from relay.trace.ladder import View, business_view, ladder_object, operator_view
from relay.trace.ladder_html import ladder_html
from relay.trace.ladder_text import ladder_text
from tests.canary.canary_ladder import CanaryLadder
from tests.canary.marks import ALICE, BOB
from tests.ladder.ladder import Ladder, answer, hang_up
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, SECOND_HOST, A, B, X
from tests.trace.test_ladder_join import MASKED, SCENARIOS, basic, failover, retransmitted, shown

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}"
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Raises AssertionError for a tag that is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("play", SCENARIOS, ids=lambda play: play.__name__)
@pytest.mark.parametrize("view", [MASKED, operator_view(reveal=True), View("caller")], ids=["masked", "clear", "side"])
def test_page_is_self_contained_and_well_formed(play: object, view: View) -> None:
    assert callable(play)
    text = ladder_html(shown(play(), view))
    page = Page(text)
    assert not {"script", "img", "link", "iframe", "form"} & page.tags
    assert not {"style", "src", "href", "onclick"} & page.attributes
    assert not re.search(r"https?://|@import|url\(", text)
    numbers = [A[2:], B[2:], CALLER_HOST, CALLEE_HOST]
    assert view.clear is None or not [number for number in numbers if number in text]


@pytest.mark.parametrize("reveal", [False, True])
def test_text_of_peers_is_escaped(reveal: bool) -> None:
    ladder = Ladder()
    ladder.caller.calls(X, headers=f"Subject: {HOSTILE}\r\nX-{HOSTILE.split('>')[0]}: 1\r\n{HOSTILE}: 1\r\n")
    ladder.caller.invites(X, headers=f"Subject: {HOSTILE}\r\nUser-Agent: {HOSTILE}\r\n")
    page = Page(ladder_html(shown(ladder, operator_view(reveal=reveal))))
    assert not {"script", "img"} & page.tags
    assert (HOSTILE in "".join(page.words)) == reveal


def test_withheld_lines_stand_beside_the_message() -> None:
    ladder = Ladder()
    ladder.caller.calls(X, headers="Diversion: <sip:13700000003@192.0.2.1>\r\n")
    text = ladder_html(shown(ladder))
    assert '<span class="line withheld">Diversion: &lt;sip:137****0003@' in text
    assert "1 withheld" in text


def test_retransmissions_and_targets_are_shown() -> None:
    assert "×3</i>" in ladder_html(shown(retransmitted()))
    text = ladder_html(shown(failover()))
    assert "Callee 2<small>carrier 198.51.100.2:5060</small>" in text
    assert 'class="ladder gaps-3"' in text


def test_more_targets_than_columns_share_the_last_one() -> None:
    ladder = shown(basic())
    lanes = [lane._replace(number=number) for number, lane in enumerate([ladder.lanes[0], *[ladder.lanes[1]] * 9])]
    text = ladder_html(
        ladder._replace(lanes=tuple(lanes), rows=(ladder.rows[2]._replace(lane=9, made_from=None, verdicts=()),))
    )
    assert "gaps-6" in text
    assert "arrow c-5" in text


@pytest.mark.parametrize("multipart", [False, True])
def test_stuffed_call_leaves_no_mark_in_any_masked_output(multipart: bool) -> None:
    canary = CanaryLadder(multipart=multipart, tried=("second", "carrier"))
    second = canary.side(SECOND_HOST, "carol")
    canary.caller.calls(X)
    second.get("INVITE")
    second.answers(503)
    canary.callee.rings()
    answer(canary)
    hang_up(canary)
    for view in (MASKED, business_view(canary.record, reveal=False)):
        ladder = shown(canary, view)
        assert len(ladder.rows) >= 7
        for text in (ladder_html(ladder), json.dumps(ladder_object(ladder)), *ladder_text(ladder, messages=True)):
            assert not ALICE.found_in(text.encode()) + BOB.found_in(text.encode())
