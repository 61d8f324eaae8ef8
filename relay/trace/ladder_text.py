"""A ladder as text of at most 100 columns: three lines of life, an arrow for each message, and what was withheld."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from textwrap import wrap
from typing import Final, Literal, NamedTuple

from relay.model.capture import Mark
from relay.reports.disclosure import printable
from relay.service.fields import format_moment
from relay.trace.ladder import Crossing, Ladder, LadderRow, Lane, story_of
from relay.translation import N_, columns_of

Style = Literal["head", "time", "request", "progress", "success", "failure", "mark", "withheld"]
Paint = Callable[[str, Style], str]

WIDTH: Final = 100
_GAP: Final = 33  # columns between two lines of life
_TIME: Final = 10
_RELAY: Final = "relay700"
_STEPS: Final = {
    "look_up": N_("look-up"),
    "routed": N_("decided"),  # a refusal too
    "commit": "record to disk",
    "committed": "record on disk",
}


class _Signs(NamedTuple):
    life: str
    line: str
    right: str
    left: str
    mark: str
    times: str
    cut: str


_UNICODE: Final = _Signs("│", "─", "▶", "◀", "●", "×", "…")
_ASCII: Final = _Signs("|", "-", ">", "<", "*", "x", "..")


def ladder_text(
    ladder: Ladder,
    *,
    ascii_: bool = False,
    messages: bool = False,
    withheld: bool = True,
    paint: Paint = lambda text, _: text,
    words: Callable[[str], str] = str,
) -> Iterator[str]:
    """The lines. `messages`: with the text of each message. `withheld`: with the names of what did not cross.
    `words`: a translation.
    """
    drawing = _Drawing(ladder, _ASCII if ascii_ else _UNICODE, paint, words)
    yield from drawing.head()
    yield from drawing.steps()
    if withheld:
        yield from drawing.withheld()
    if messages:
        yield from drawing.messages()


class _Drawing:
    def __init__(self, ladder: Ladder, signs: _Signs, paint: Paint, words: Callable[[str], str]) -> None:
        self._ladder = ladder
        self._signs = signs
        self._paint = paint
        self._words = words
        self._start = ladder.started_at_us
        self._attempts = sum(lane.side == "callee" for lane in ladder.lanes)

    def head(self) -> Iterator[str]:
        ladder, words = self._ladder, self._words
        yield self._paint(f"{ladder.call_id}  {format_moment(self._start // 1000)}", "head")
        yield from wrap(story_of(ladder, words), WIDTH)
        if ladder.lost:
            lost = words(f"{ladder.lost} messages are missing: the queue of captured messages was full")
            yield self._paint(lost, "failure")
        if ladder.side:
            yield words(f"the {ladder.side}'s side only; numbers and addresses are masked")
        elif ladder.is_masked:
            yield words("numbers, addresses and texts are masked; --reveal with --reason shows them")
        yield ""
        columns = (_centred(words("caller's side")), _centred(words("callee's side")))
        legend = words("no. #target -withheld") if ladder.side is None else ""
        yield self._paint(f"{'':{_TIME}} {columns[0]} {columns[1]} {legend}".rstrip(), "head")
        yield self._lives(f" {_title(ladder.lanes[0])}", f" {_RELAY}")

    def _lives(self, left: str, right: str) -> str:
        life = self._signs.life
        return f"{'':{_TIME}}{life}{left[:_GAP]:<{_GAP}}{life}{right[:_GAP]:<{_GAP}}{life}"

    # -- steps in order of time

    def steps(self) -> Iterator[str]:
        marks = list(self._ladder.marks)
        shown = {0}
        for number, row in enumerate(self._ladder.rows):
            while marks and marks[0].at_us < row.at_us:
                yield self._mark(marks.pop(0))
            if row.lane not in shown:
                shown.add(row.lane)
                yield self._target(self._ladder.lanes[row.lane])
            yield self._message(number, row)
        for mark in marks:
            yield self._mark(mark)

    def _target(self, lane: Lane) -> str:
        text = f" {_title(lane)} {self._signs.line}"
        line = self._lives("", f"{text:{self._signs.line}>{_GAP}}")
        return self._paint(f"{line}  #{lane.number}", "head") if self._attempts > 1 else self._paint(line, "head")

    def _message(self, number: int, row: LadderRow) -> str:
        signs, is_left = self._signs, row.lane == 0
        label = f" {row.what} {signs.times}{len(row.again_at_us) + 1} " if row.again_at_us else f" {row.what} "
        if len(label) > _GAP - 4:
            label = f"{label[: _GAP - 5 - len(signs.cut)]}{signs.cut} "
        to_right = row.sent != is_left
        body = f"{signs.line * 2}{label}{signs.line * (_GAP - len(label) - 3)}"
        arrow = f"{body}{signs.right}" if to_right else f"{signs.left}{body}"
        arrow = self._paint(arrow, _style(row))
        blank = " " * _GAP
        cells = (arrow, blank) if is_left else (blank, arrow)
        line = f"{self._time(row.at_us)}{signs.life}{cells[0]}{signs.life}{cells[1]}{signs.life}"
        return f"{line}{number:4} {self._notes(row)}".rstrip()

    def _notes(self, row: LadderRow) -> str:
        notes = []
        if (self._ladder.lanes[row.lane].side == "callee" and self._attempts > 1) or row.early_dialog:
            notes.append(f"#{row.lane}{row.early_dialog}" if row.lane else row.early_dialog)
        if lines := sum(each.lines for each in row.crossings if each.verdict == "withheld"):
            notes.append(self._paint(f"-{lines}", "withheld"))
        return " ".join(notes)

    def _mark(self, mark: Mark) -> str:
        blank, life, step = " " * _GAP, self._signs.life, self._words(_STEPS.get(mark.step, mark.step))
        text = f" {step}"[:_GAP]
        text += " " * (_GAP - columns_of(text))
        return f"{self._time(mark.at_us)}{life}{blank}{self._paint(self._signs.mark + text, 'mark')}{life}"

    def _time(self, at_us: int) -> str:
        return self._paint(f"{(at_us - self._start) / 1e6:>{_TIME - 1}.4f} ", "time")

    # -- what did not cross, and the texts

    def withheld(self) -> Iterator[str]:
        rows = [(number, row) for number, row in enumerate(self._ladder.rows) if row.made_from is not None]
        if not rows:
            return
        yield ""
        title = self._words("Withheld: lines of the message received with no counterpart in the one sent")
        yield self._paint(title, "head")
        for number, row in rows:
            names = [_counted(each, self._signs) for each in row.crossings if each.verdict == "withheld"]
            start = f"{number:4} " + self._words(f"{row.what}, made from {row.made_from}: ")
            text = ", ".join(names) or self._words(N_("nothing"))
            for line in wrap(text, WIDTH, initial_indent=start, subsequent_indent=" " * 7, break_on_hyphens=False):
                yield self._paint(line, "withheld") if names else line

    def messages(self) -> Iterator[str]:
        for number, row in enumerate(self._ladder.rows):
            yield ""
            ends = (row.local, row.remote) if row.sent else (row.remote, row.local)
            yield self._paint(f"{number:4} {row.transport} {ends[0]} -> {ends[1]}", "head")
            for line in row.data.decode("utf-8", "surrogateescape").removesuffix("\r\n").split("\r\n"):
                yield f"     {shown(line)}"


def _centred(text: str) -> str:
    return text.center(_GAP - columns_of(text) + len(text))


def _counted(crossing: Crossing, signs: _Signs) -> str:
    name = shown(crossing.name)
    return f"{name} {signs.times}{crossing.lines}" if crossing.lines > 1 else name


def _title(lane: Lane) -> str:
    return " ".join(filter(None, (lane.peer, lane.address)))


def _style(row: LadderRow) -> Style:
    if not row.status:
        return "request"
    return "progress" if row.status < 200 else "success" if row.status < 300 else "failure"


def shown(text: str) -> str:
    """Text of a peer for a terminal: control characters, which could steer it, are written as escapes."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", printable(text))


_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
