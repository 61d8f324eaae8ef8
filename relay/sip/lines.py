"""Splitting of header lines into names and values (RFC 3261 7.3.1), with a cache of layouts.

It knows headers by name only, and not the meaning of their values.
"""

from __future__ import annotations

import re
from typing import Final

from relay.errors import ParseError
from relay.sip.grammar import canonical_name, trim

Headers = list[tuple[str, str]]
"""(canonical name, value) in order; names lower-case and long ("call-id" for "i"), values unfolded, without outer
blanks."""

# RFC 3261 7.3.1: not lists. With two values, two parsers might choose differently (RFC 4475 3.3.8-9).
_UNIQUE: Final = frozenset({"content-length", "from", "to", "call-id", "cseq", "max-forwards", "content-type"})


class Layout:
    """The header names of a message, line by line; shared by all messages with the same names in the same order."""

    __slots__ = ("names", "places", "repeated", "twice")

    def __init__(self, names: tuple[str, ...]) -> None:
        """`names`: canonical, in order."""
        self.names = names
        self.places: dict[str, int] = {}  # index of the first line with each name, from 1: the start line is 0
        self.repeated: set[str] = set()  # names with several lines
        self.twice: list[tuple[int, int]] = []  # pairs of lines that must have equal values
        for place, name in enumerate(names, 1):
            first = self.places.setdefault(name, place)
            if first != place:
                self.repeated.add(name)
                if name in _UNIQUE:
                    self.twice.append((first, place))


class _Start:
    """A header line up to its value, in a trie of the lines before it.

    Peers write the headers of one kind of message in the same order each time: a line that begins as expected costs a
    third of splitting it at the colon and looking up its name.
    """

    __slots__ = ("behind", "last", "layout", "names", "size", "text")

    def __init__(self, text: str, names: tuple[str, ...]) -> None:
        self.text = text
        self.size = len(text)
        self.names = names  # canonical, of all lines up to this one
        self.behind: dict[str, _Start] = {}  # by text
        self.last: _Start | None = None  # the child of the last message
        self.layout: Layout | None = None  # of messages whose last line this is


class _Remembered:
    """The roots of the trie, by method or status of the message."""

    def __init__(self) -> None:
        self.kinds: dict[str, _Start] = {}  # root nodes
        self.count = 0


_MAX_REMEMBERED: Final = 1024  # nodes of up to 64 characters; a hostile peer must not fill memory
_remembered: Final = _Remembered()


def cut_lines(kind: str, lines: list[str]) -> Layout:
    """Replace each header line in `lines` by its value, without outer blanks; index 0 is the start line.

    `kind`: method or status. Raises ParseError for a line that is not a header (also a folded one) and for
    contradictory lines; `lines` is unusable then.
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
    """Whether to cache one more node. Clears the cache if it is full."""
    if len(text) > 64:
        return False
    if _remembered.count >= _MAX_REMEMBERED:
        _remembered.kinds.clear()
        _remembered.count = 0
    _remembered.count += 1
    return True


def unfold(head: str) -> list[str]:
    """The lines of a head, folded lines joined (RFC 3261 7.3.1)."""
    return _folding.sub(" ", head).split("\r\n")


_folding: Final = re.compile(r"\r\n[ \t]++")
