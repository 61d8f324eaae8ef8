"""The canary: marks that identify one side of a call, put wherever a SIP message has room, and sought on the other.

Tests and the probe (`relay.events.probe`) send marked messages through the relay: no mark may reach the other side. A
marked message stays valid, so that the relay relays what it can of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from relay.privacy.canary_lines import (
    AFTER_TIME,
    ATTRIBUTES,
    BANDWIDTHS,
    HEADERS,
    MORE_MEDIA,
    PARTLY,
    RETRY_AFTER,
    SESSION_LINES,
)

_SEPARATORS: Final = re.compile(rb"[-. ()/,;=%]")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


class Marks(NamedTuple):
    """Marks that identify one side and must never reach the other.

    `word` is in whatever has room for one; the others stand where a word cannot.
    """

    word: str
    number: str  # of the party, national form
    friend: str  # another real number of that side, as a diversion brings
    cseq: int  # where its sequence numbers begin: as telling as an address
    host: str  # signalling address
    inner: str  # address behind its NAT
    inner6: str
    cell: str

    def found_in(self, data: bytes) -> list[str]:
        """The marks that the bytes hold, in any case and any notation of numbers."""
        plain = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), data).lower()
        words = (self.word, self.inner, self.inner6, self.cell)
        found = [word for word in words if word.lower().encode() in plain]
        if re.search(rb"(?<![0-9.])%b(?![0-9])" % re.escape(self.host.encode()), plain):
            found.append(self.host)
        digits = b"\n".join(_SEPARATORS.sub(b"", line) for line in plain.splitlines())
        numbers = (self.number, self.friend, str(self.cseq)[:-2])
        return found + [number for number in numbers if number.encode() in digits]

    def notations(self) -> tuple[str, ...]:
        """The friend's number in the ways that peers write numbers."""
        number = self.friend
        dashed = f"{number[:3]}-{number[3:7]}-{number[7:]}"
        escaped = "".join(f"%3{digit}" for digit in number)
        return (
            *(number, f"+86{number}", f"0086{number}", f"86{number}", f"0{number}", dashed, f"+86-{dashed}"),
            *(dashed.replace("-", "."), f"+86.({number[:3]}){number[3:]}", escaped),
        )


# -- Stuffing a clean message with the marks of its sender

Style = Callable[[str, str], str]  # name and value to a line
_USUAL: Final[tuple[Style, ...]] = (
    lambda name, value: f"{name}: {value}",
    lambda name, value: f"{name.swapcase()}:{value}",
    lambda name, value: f"{name} \t : {value}",
)
# A folded line counts twice towards the most lines a message may have: every seventh.
STYLES: Final[tuple[Style, ...]] = (*_USUAL, *_USUAL, lambda name, value: f"{name}:\r\n\t {value}")
"""Ways to write a header line: as usual, in odd case, with blanks before the colon, folded."""


def insert_marks(data: bytes, marks: Marks, turn: int = 0, *, multipart: bool = False) -> bytes:
    """The message with marks wherever they can stand. `turn`: the first line's way of writing; later lines rotate."""
    head, _, body = data.partition(b"\r\n\r\n")
    start, *lines = head.decode().split("\r\n")
    request = not start.startswith("SIP/2.0")
    content_type = next((line.partition(": ")[2] for line in lines if line.startswith("Content-Type")), "")
    if content_type == "application/sdp":
        body = stuff_sdp(body, marks)
        if multipart:
            content_type, body = _wrap(body, marks)
    given = [line for line in _own_lines(lines, marks, request=request) if not line[0].startswith("Content-")]
    given += marked_headers(marks, request=request)
    if body:
        given.append(("c", f'{content_type};{marks.word}="{marks.word}"'))
    given.append(("l", str(len(body))))
    written = [STYLES[(turn + index) % len(STYLES)](*line) for index, line in enumerate(given)]
    text = "\r\n".join([_start(start, marks), *written, "", ""])
    return text.encode("utf-8", "surrogateescape") + body


# Headers that carriers pass on or ignore, whatever they say.
_PLAIN: Final = frozenset(
    """
    P-Asserted-Identity P-Preferred-Identity Remote-Party-ID Diversion History-Info P-Called-Party-ID
    P-Access-Network-Info Cellular-Network-Info P-Charging-Vector Geolocation User-to-User Subject Call-Info
    Organization Reply-To Warning Server Session-ID X-Real-Number X-Cell X-IMEI
    """.split()
)


def stuff_plainly(data: bytes, marks: Marks) -> bytes:
    """The response with marks only where a carrier on its way accepts them: it still has to pass the response on."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.decode().split("\r\n") if not line.startswith("Content-Length")]
    lines += [f"{name}: {value}" for name, value in marked_headers(marks, request=False) if name in _PLAIN]
    described = body.decode().split("\r\n")
    for index, line in enumerate(described):
        if line.startswith("o="):
            described[index] = f"o={marks.word} {marks.friend} {marks.friend} IN IP4 {marks.host}"
        elif line.startswith("s="):
            described[index] = f"s={marks.word} {marks.friend}\r\ni={marks.word}"
        elif line.startswith("t="):
            described[index] = f"{line}\r\na=tool:{marks.word}\r\na=X-nat:1 {marks.inner}"
    body = "\r\n".join(described).encode()
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def marked_headers(marks: Marks, *, request: bool) -> list[tuple[str, str]]:
    """The header lines that are added, as (name, value)."""
    texts = (HEADERS.strip() + PARTLY.rstrip()).splitlines()
    if not request:
        texts.append(RETRY_AFTER)
    notations = marks.notations()
    lines = []
    for index, text in enumerate(texts):
        number = notations[index % len(notations)]
        filled = text.format(w=marks.word, n=number, h=marks.host, i=marks.inner, c=marks.cell)
        name, _, value = filled.partition(": ")
        lines.append((name, value))
    return lines


def _start(start: str, marks: Marks) -> str:
    if start.startswith("SIP/2.0"):
        return f"{start[:11]} {marks.word} <{marks.friend}@{marks.host}> é"
    method, uri, version = start.split(" ")
    return f"{method} {uri};{marks.word}={marks.friend};maddr={marks.inner}?X={marks.word} {version}"


def _own_lines(lines: list[str], marks: Marks, *, request: bool) -> list[tuple[str, str]]:
    """Via, From, To, Contact and the others of the clean message, with displays and parameters."""
    word, friend = marks.word, marks.friend
    stuffed: list[tuple[str, str]] = []
    vias = 0
    for line in lines:
        name, value = line.split(": ", 1)
        if name in ("From", "To"):
            name = name[0].lower()
            uri, _, params = value.partition(">")
            value = f'"{word} \\"{friend}\\", <{marks.host}>" {uri};{word}={friend}>{params};{word}="{friend}"'
        elif name == "Contact":
            uri = value.partition(">")[0]
            value = f'"{word} {friend}" {uri};{word}={friend}>;+sip.instance="<urn:uuid:{word}>";q=0.5'
            name = "m"
        elif name == "Via":
            vias += 1
            value += f';received={marks.inner};{word}="{word}, {friend}";keep'
            name = "v"
        stuffed.append((name, value))
        if request and vias == 1 and name == "v":
            stuffed.append(
                ("Via", f"SIP/2.0/UDP {word}.example;branch=z9hG4bK{word}, SIP / 2.0 / TCP {marks.inner}:5062")
            )
    return stuffed


def stuff_sdp(body: bytes, marks: Marks) -> bytes:
    """A description with marks in every line and attribute; o= and s= hold them as well."""
    filled = _fill_in(marks)
    lines = body.decode().split("\r\n")
    stuffed = []
    for line in lines:
        if line.startswith("o="):
            line = f"o={marks.word}{marks.friend} {marks.friend} {marks.friend} IN IP4 {marks.host}"
        elif line.startswith("s="):
            line = f"s={marks.word} {marks.friend}"
        elif line.startswith("t="):
            line = f"t={marks.friend} {marks.friend}"
        stuffed.append(line)
        if line.startswith("s="):
            stuffed += filled(SESSION_LINES)
        elif line.startswith("t="):
            stuffed += filled(AFTER_TIME) + [f"a={text}" for text in filled(ATTRIBUTES)]
        elif line.startswith("c="):
            stuffed += filled(BANDWIDTHS)
        elif line.startswith("m="):
            stuffed[-1] += " 97 98 99"
            stuffed += [f"i={marks.word}", *filled(BANDWIDTHS), f"k=clear:{marks.word}"]
            stuffed += [f"a={text}" for text in filled(ATTRIBUTES)]
    return "\r\n".join([*stuffed[:-1], *filled(MORE_MEDIA), ""]).encode()


def _fill_in(marks: Marks) -> Callable[[str], list[str]]:
    notations = marks.notations()

    def filled(texts: str) -> list[str]:
        return [
            text.format(w=marks.word, n=notations[index % 5], h=marks.host, i=marks.inner, c=marks.cell)
            for index, text in enumerate(texts.strip().splitlines())
        ]

    return filled


def _wrap(sdp: bytes, marks: Marks) -> tuple[str, bytes]:
    """A multipart body: the description among parts of other types."""
    word = marks.word.encode()
    parts = (
        b"Content-Type: application/pidf+xml\r\nContent-ID: <%b@%b>\r\n\r\n<presence entity='pres:%b'><gml:pos>%b"
        b"</gml:pos></presence>" % (word, marks.host.encode(), word, marks.cell.encode()),
        b"C : application/sdp;%b=1\r\nContent-Disposition: session;x=%b\r\nX-%b: 1\r\n\r\n%b" % (word, word, word, sdp),
        b"Content-Type: application/ISUP;version=%b;base=itu-t92+\r\n\r\n%b" % (word, marks.friend.encode()),
        b"Content-Type: text/plain\r\n\r\nv=0\r\n%b" % word,
    )
    boundary = f"{marks.word}-boundary"
    delimiter = f"\r\n--{boundary}".encode()
    body = word + b"".join(delimiter + b"\r\n" + part for part in parts) + delimiter + b"--\r\n" + word
    return f'multipart/mixed;boundary="{boundary}"', body
