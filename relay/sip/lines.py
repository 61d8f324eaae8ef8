"""Header lines cut into names and values (RFC 3261 7.3.1), and what messages whose lines begin alike have in common.

It knows no header but by name, and nothing of what values mean.
"""

from __future__ import annotations

import re
from typing import Final

from relay.errors import ParseError
from relay.sip.grammar import trim
from relay.sip.names import canonical_name

Headers = list[tuple[str, str]]
"""(canonical name, value) in order; names lower-case and long ("call-id" for "i"), values unfolded, without outer
blanks."""

# RFC 3261 7.3.1: not lists. Of two values, two readers of the message might go by different ones (RFC 4475 3.3.8-9).
_UNIQUE: Final = frozenset({"content-length", "from", "to", "call-id", "cseq", "max-forwards", "content-type"})


class Layout:
    """Which headers a message has, line by line: one for all messages that have the same ones in the same order."""

    __slots__ = ("names", "places", "repeated", "twice")

    def __init__(self, names: tuple[str, ...]) -> None:
        """`names`: canonical, in order."""
        self.names = names
        self.places: dict[str, int] = {}  # of the first line with each name, from 1: at 0 is the start line
        self.repeated: set[str] = set()  # names of several lines
        self.twice: list[tuple[int, int]] = []  # two lines that must not say different things
        for place, name in enumerate(names, 1):
            first = self.places.setdefault(name, place)
            if first != place:
                self.repeated.add(name)
                if name in _UNIQUE:
                    self.twice.append((first, place))


class _Start:
    """How a header line begins, up to its value, behind certain others in messages of one kind.

    Peers write the headers of one kind of message in the same order again and again: a line that begins as it is
    expected to costs a third of what it does to cut it at its colon and to look its name up.
    """

    __slots__ = ("behind", "last", "layout", "names", "size", "text")

    def __init__(self, text: str, names: tuple[str, ...]) -> None:
        self.text = text
        self.size = len(text)
        self.names = names  # canonical, of all lines up to this one
        self.behind: dict[str, _Start] = {}  # by text
        self.last: _Start | None = None  # which of them it was the last time
        self.layout: Layout | None = None  # of a message that ends with this line, once there was one


class _Remembered:
    """All starts, by method or status of the message, and the text of one after the other."""

    def __init__(self) -> None:
        self.kinds: dict[str, _Start] = {}  # before the first line
        self.count = 0


_MAX_REMEMBERED: Final = 1024  # starts, of up to 64 characters; a peer that makes up names must not fill memory
_remembered: Final = _Remembered()


def cut_lines(kind: str, lines: list[str]) -> Layout:
    """Leaves the value of each header line in its place, without outer blanks. At 0 stands the start line.

    `kind`: method or status. Raises ParseError for a line that is no header, which a continuation line is here, too,
    and for contradictory ones; then `lines` is of no use any more.
    """
    start = _remembered.kinds.get(kind)
    if start is None:
        start = _begin(kind)
    for place in range(1, len(lines)):
        line = lines[place]
        behind = start.last
        if behind is None or not line.startswith(behind.text):
            behind = _start_behind(start, line)
        start = behind
        lines[place] = trim(line[start.size :])
    layout = start.layout
    if layout is None:
        layout = start.layout = Layout(start.names)
    for first, again in layout.twice:
        if lines[first] != lines[again]:
            raise ParseError("contradictory", layout.names[again - 1])
    return layout


def _begin(kind: str) -> _Start:
    start = _Start("", ())
    if _has_room(kind):
        _remembered.kinds[kind] = start
    return start


def _start_behind(start: _Start, line: str) -> _Start:
    name, colon, value = line.partition(":")
    if not colon:
        raise ParseError("header line without a colon")
    text = f"{name}: " if value[:1] == " " else f"{name}:"
    behind = start.behind.get(text)
    if behind is None:
        behind = _Start(text, (*start.names, canonical_name(name)))
        if not _has_room(text):
            return behind
        start.behind[text] = behind
    start.last = behind
    return behind


def _has_room(text: str) -> bool:
    """Whether one more is remembered; where there are too many, all are forgotten."""
    if len(text) > 64:
        return False
    if _remembered.count >= _MAX_REMEMBERED:
        _remembered.kinds.clear()
        _remembered.count = 0
    _remembered.count += 1
    return True


def unfold(head: str) -> list[str]:
    """The lines of a head, each with what goes on behind it: a line that begins with a blank (RFC 3261 7.3.1)."""
    return _folding.sub(" ", head).split("\r\n")


_folding: Final = re.compile(r"\r\n[ \t]++")
