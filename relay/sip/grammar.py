"""Basic rules of RFC 3261 section 25 as precompiled patterns; splitting of values; header names; header lines.

Every pattern is linear: anchored, with possessive repetition. Deviations seen in practice (a display name without
quotes, `_` in a host name, an empty parameter value) are accepted if they are unambiguous; ambiguous text is refused.
"""

from __future__ import annotations

import re
import sys
from typing import Final

from relay.errors import ParseError

Params = dict[str, str | None]
"""By lower-case name; values without quotes, None for a parameter without "="; the first of duplicates counts."""

TOKEN: Final = r"[A-Za-z0-9\-.!%*_+`'~]++"
LWS: Final = r"[ \t]*+"
QUOTED: Final = r'"[^"\\\r\n]*+(?:\\[^\r\n][^"\\\r\n]*+)*+"'
# A hostname, IPv4address or IPv6reference; `bare_ipv6` validates IPv6 literals.
HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*+)|\[[0-9A-Fa-f:.]{2,45}+\])"
# gen-value: token, host, and any other text without delimiters.
_VALUE: Final = r'[^\x00-\x20\x7f;,"<>]*+'
_PARAM: Final = rf"{LWS};{LWS}({TOKEN})(?:{LWS}(=){LWS}({QUOTED}|{_VALUE}))?+"
PARAMS: Final = rf"(?:{LWS};{LWS}{TOKEN}(?:{LWS}={LWS}(?:{QUOTED}|{_VALUE}))?+)*+{LWS}"

# Fast paths for the common forms of PARAMS and of URIs.
_PLAIN_PARAM: Final = r"[A-Za-z0-9\-._]++(?:=[A-Za-z0-9\-._]*+)?+"
is_plain_params: Final = re.compile(rf"{_PLAIN_PARAM}(?:;{_PLAIN_PARAM})*+").fullmatch
is_plain_uri: Final = re.compile(r"[A-Za-z0-9\-._~%:;=@+]++").fullmatch
is_token: Final = re.compile(TOKEN).fullmatch
_is_value: Final = re.compile(_VALUE).fullmatch
_next_param: Final = re.compile(_PARAM).finditer
_element: Final = re.compile(rf'(?:[^",<]|{QUOTED}|<[^>]*+>)++').match
_quoted_pair: Final = re.compile(r"\\(.)", re.DOTALL)
_control: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def trim(text: str) -> str:
    """`text.strip(" \t")`, at a quarter of the cost if there is nothing to strip, which is nearly always."""
    return text.strip(" \t") if text and (ord(text[0]) <= 32 or ord(text[-1]) <= 32) else text


def split_commas(text: str, header: str = "") -> list[str]:
    """The elements of a comma-separated list, outer blanks stripped, empty ones dropped (RFC 3261 7.3.1).

    Commas within quotes and within <> do not separate. Raises ParseError for an unclosed quote or bracket.
    """
    if "," not in text:
        element = text.strip(" \t")
        return [element] if element else []
    if '"' not in text and "<" not in text:
        return [element for part in text.split(",") if (element := part.strip(" \t"))]
    elements = []
    position = 0
    while position < len(text):
        if text[position] != ",":
            found = _element(text, position)
            if found is None:
                raise ParseError("a quote or bracket is not closed", header)
            position = found.end()
            if element := found[0].strip(" \t"):
                elements.append(element)
            if position < len(text) and text[position] != ",":
                raise ParseError("a quote or bracket is not closed", header)
        position += 1
    return elements


def cut_params(text: str) -> Params:
    """Parse `;name`, `;name=value` and `;name="quoted"` (generic-param), already matched by PARAMS."""
    params: Params = {}
    if '"' in text:
        for found in _next_param(text.rstrip(" \t")):  # the matches are contiguous
            name, equals, value = found.groups()
            params.setdefault(name.lower(), unquote(value) if equals else None)
        return params
    for part in text.split(";")[1:]:
        name, equals, value = part.partition("=")
        name = name.strip(" \t").lower()
        if name not in params:
            params[name] = value.strip(" \t") if equals else None
    return params


def cut_plain_params(text: str) -> Params:
    """Parse parameters matched by `is_plain_params`, without a leading ";"."""
    params: Params = {}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        name = name.lower()
        if name not in params:
            params[name] = value if equals else None
    return params


def format_params(params: Params) -> str:
    """The inverse of `cut_params`; values are quoted if needed."""
    text = ""
    for name, value in params.items():
        if value is None:
            text += f";{name}"
        else:
            text += f";{name}={value if _is_value(value) else quote(value)}"
    return text


def quote(text: str) -> str:
    """The text as a quoted-string. Raises ParseError for control characters, which no header may carry."""
    if _control.search(text):
        raise ParseError("control character")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def unquote(text: str) -> str:
    """A quoted-string without quotes and escapes; other text unchanged. Control characters become U+FFFD."""
    if text[:1] != '"':
        return text
    inner = text[1:-1]
    if "\\" in inner:
        inner = _quoted_pair.sub(r"\1", inner)
    return inner if inner.isprintable() else _control.sub("\ufffd", inner)


# -- Header names

_COMPACT: Final = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "n": "identity-info",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}
_SPELLING: Final = {
    "call-id": "Call-ID",
    "cseq": "CSeq",
    "mime-version": "MIME-Version",
    "min-se": "Min-SE",
    "rack": "RAck",
    "rseq": "RSeq",
    "sip-etag": "SIP-ETag",
    "sip-if-match": "SIP-If-Match",
    "www-authenticate": "WWW-Authenticate",
}
_MAX_REMEMBERED: Final = 2048  # spellings; a hostile peer must not fill memory


_names: Final[dict[str, str]] = {}  # by spelling


def canonical_name(spelled: str) -> str:
    """The canonical name of a name as spelled, including blanks before the colon.

    Raises ParseError if it is not a header name.
    """
    name = _names.get(spelled)
    return _new_name(spelled) if name is None else name


def _new_name(spelled: str) -> str:
    name = spelled.rstrip(" \t")
    if not is_token(name):
        raise ParseError("malformed header name")
    name = name.lower()
    name = sys.intern(_COMPACT.get(name, name))  # look-ups then compare by identity
    if len(spelled) <= 64:
        if len(_names) >= _MAX_REMEMBERED:
            _names.clear()  # else made-up names would stay and displace common ones
        _names[spelled] = name
    return name


def spell(name: str) -> str:
    """A canonical name in the spelling of RFC 3261."""
    return _SPELLING.get(name) or "-".join(part.capitalize() for part in name.split("-"))


# -- Header lines to names and values (RFC 3261 7.3.1), with a cache of layouts

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


class _LineTrie:
    """The roots of the trie, by method or status of the message."""

    def __init__(self) -> None:
        self.kinds: dict[str, _Start] = {}  # root nodes
        self.count = 0


_MAX_REMEMBERED_LINES: Final = 1024  # nodes of up to 64 characters; a hostile peer must not fill memory
_remembered: Final = _LineTrie()


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
    if _remembered.count >= _MAX_REMEMBERED_LINES:
        _remembered.kinds.clear()
        _remembered.count = 0
    _remembered.count += 1
    return True


def unfold(head: str) -> list[str]:
    """The lines of a head, folded lines joined (RFC 3261 7.3.1)."""
    return _folding.sub(" ", head).split("\r\n")


_folding: Final = re.compile(r"\r\n[ \t]++")
