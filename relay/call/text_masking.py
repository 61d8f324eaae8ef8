"""What of a text message may cross: plain text in UTF-8, without real numbers.

A number is known by its shape alone, whosever it is: were only the receiver's own one treated apart, the sender could
find it out by guesses, of which the masked form leaves ten thousand. The sender's number is no secret to him, so it is
found however it stands among other signs.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from relay.call.masking import Body
from relay.call.numbers import CHINA, is_700, mask_number
from relay.errors import ProtocolError
from relay.sip.message import Request

LONGEST_TEXT: Final = 1300  # bytes

_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii"})
_ENCODINGS: Final = {"content-encoding": ("identity",), "content-transfer-encoding": ("7bit", "8bit", "binary")}
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]").search


def read_text(request: Request) -> str:
    """The text of a MESSAGE. Raises ProtocolError 413 where it is longer than LONGEST_TEXT bytes, 415 where it is
    anything but plain text in UTF-8, and ParseError for a Content-Type that cannot be read."""
    if len(request.body) > LONGEST_TEXT:
        raise ProtocolError(413, f"a text has at most {LONGEST_TEXT} bytes")
    content_type = request.content_type
    if content_type is None or content_type.type != "text/plain":
        raise ProtocolError(415, "only plain text is relayed")
    charset = (content_type.params.get("charset") or "utf-8").strip('"').lower()
    if charset not in _CHARSETS or not _is_as_it_reads(request):
        raise ProtocolError(415, "only UTF-8 that is not encoded further is relayed")
    try:
        text = request.body.decode()
    except UnicodeDecodeError:
        raise ProtocolError(415, "not UTF-8") from None
    if _CONTROLS(text):
        raise ProtocolError(415, "control characters are no text")
    return text


def _is_as_it_reads(request: Request) -> bool:
    for name, plain in _ENCODINGS.items():
        value = request.get(name)
        if value is not None and value.strip().lower() not in plain:
            return False
    return True


def text_body(text: str) -> Body:
    return Body("text/plain;charset=UTF-8", text.encode())


def mask_numbers(text: str, sender: str) -> str:
    """`text` with real numbers masked: 138****0001. It is the same where it holds none.

    Found are Chinese mobile numbers, landline numbers with their area code and international numbers with "+" or 00, in
    any script's digits and in Chinese words, with blanks, dashes, slashes and line breaks between two digits, or one
    other sign; but not where they are made of dates, times and prices. The sender's number (E.164 without "+", ""
    where unknown) is found whatever stands between its digits. One of less than 7 digits, an extension, is found where
    it stands alone.
    """
    for words in (False, True):
        text = _mask_shapes(text, words=words)
        text = _mask_sender(text, sender, words=words)
    return text


# -- by shape

_GAP: Final = "-*+"  # as `_read` writes separators
_MOBILE: Final = rf"1{_GAP}[3-9](?:{_GAP}[0-9]){{9}}"
_LANDLINE: Final = rf"(?:1{_GAP}0|2{_GAP}[0-9]|[3-9](?:{_GAP}[0-9]){{2}}){_GAP}[2-9](?:{_GAP}[0-9]){{6,7}}"
_FOREIGN: Final = rf"[1-9](?:{_GAP}[0-9]){{6,14}}"
_find_number: Final = re.compile(
    "(?<![0-9])(?:"
    rf"(?:(?:(?:\+|00){_GAP})?8{_GAP}6{_GAP}|0{_GAP})?({_MOBILE})"
    rf"|(?:(?:(?:\+|00){_GAP})?8{_GAP}6{_GAP}0?|0){_GAP}({_LANDLINE})"
    rf"|\+{_GAP}({_FOREIGN})"
    rf"|00{_GAP}([1-9](?:{_GAP}[0-9]){{8,14}})"
    ")(?![0-9])"
).search


def _mask_shapes(text: str, *, words: bool) -> str:
    """Where one ends in another, as in "1350 139 0000 0002", nobody knows which it is: no sign of either is left."""
    found: list[tuple[int, int, str]] = []
    signs = _read(text, words=words)
    match = _find_number(signs)
    rest = _without_moments_and_prices(text) if match else ""
    while match is not None:
        start, end = match.span()
        digits = (match[1] or match[2] or match[3] or match[4]).replace("-", "")
        if not is_700(digits) and not _is_told(signs[start:end], rest[start:end]):
            masked = mask_number(digits)
            if found and start < found[-1][1]:
                start, last, before = found.pop()
                masked = before if end <= last else before.partition("*")[0] + masked[masked.index("*") :]
                end = max(end, last)
            found.append((start, end, masked))
        match = _find_number(signs, match.start() + 1)
    return _replaced(text, found)


# -- what is none, though it reads like one

_MOST_LEFT: Final = 4  # digits beside dates, times and prices: of a room, an hour
_YEAR: Final = "(?:19|20)[0-9]{2}"
_DAY: Final = "(?:0?[1-9]|[12][0-9]|3[01])"  # or a month
_DATE: Final = rf"(?:{_YEAR}([-/.]){_DAY}\1{_DAY}|{_DAY}([-/.]){_DAY}\2(?:{_YEAR}|2[0-9]))"
_TIME: Final = "(?:[01]?[0-9]|2[0-4]):[0-5][0-9](?::[0-5][0-9])?"
_DOTTED_TIME: Final = r"(?:0[1-9]|1[0-9]|2[0-3])\.[0-5][0-9]"
_PRICE: Final = r"(?!0\.00)(?:0|[1-9][0-9]{0,5}|[1-9][0-9]{0,2},[0-9]{3})\.[0-9]{2}"
_replace_moments_and_prices: Final = re.compile(
    rf"(?<![0-9])(?:(?<![0-9][-/.]){_DATE}(?![-/.]?[0-9])|(?<![0-9]/){_DAY}/{_DAY}(?!/?[0-9])"
    rf"|(?<![0-9]:){_TIME}(?!:?[0-9])|(?<![0-9]\.)(?:{_DOTTED_TIME}|{_PRICE})(?!\.?[0-9])"
    r"|(?<=[$¥])[1-9][0-9]{0,5}(?![0-9])|[1-9][0-9]{0,5}(?= ?[元块]))"
).sub


def _without_moments_and_prices(text: str) -> str:
    """The text sign for sign, "x" for those of dates, times and prices."""
    return _replace_moments_and_prices(lambda found: "x" * len(found[0]), "".join(map(_plain, text)))


def _is_told(signs: str, rest: str) -> bool:
    """Whether dates, times and prices are all that `signs` tell, but for a few digits."""
    left = [sign for sign, other in zip(signs, rest, strict=True) if other != "x" and sign in "0123456789"]
    return "x" in rest and len(left) <= _MOST_LEFT


# -- the sender's own


def _mask_sender(text: str, sender: str, *, words: bool) -> str:
    if not sender or is_700(sender):  # no secret: it would stand masked as it is, and be found again for ever
        return text
    national = sender.removeprefix(CHINA) if len(sender) > 9 else sender
    while found := _places_of(national, _read(text, words=words)):
        text = _replaced(text, [(start, end, mask_number(sender)) for start, end in found])
    return text


def _places_of(number: str, signs: str) -> list[tuple[int, int]]:
    if len(number) < 7:
        return [match.span() for match in re.finditer(f"(?<![0-9]){number}(?![0-9])", signs)]
    places = [place for place, sign in enumerate(signs) if sign in "0123456789"]
    digits = "".join([signs[place] for place in places])
    found = []
    start = digits.find(number)
    while start >= 0:
        end = start + len(number)
        found.append((places[start], places[end - 1] + 1))
        start = digits.find(number, end)
    return found


# -- how signs are read

# Any number of them may stand between two digits, as may blanks, dashes and signs of no width of all scripts.
_SEPARATORS: Final = frozenset("\t\n\r-._()/\\|·•・−\u115f\u1160\u2800\u3164\uffa0")
_SEPARATING: Final = frozenset({"Zs", "Zl", "Zp", "Pd", "Pc", "Cf", "Mn", "Me"})
_find_tight: Final = re.compile(r"(?<=[0-9])[,;:*#~=、。…](?=[0-9])")  # of which there may be one
# Numbers as written, in cheques, as spoken by radio, and of the market (Suzhou numerals).
_WORDS: Final = {
    ord(sign): str(digit)
    for digit, signs in enumerate(
        "〇零○洞 一幺壹〡 二两兩贰貳〢 三叁叄參〣 四肆〤 五伍〥 六陆陸〦 七柒拐〧 八捌〨 九玖勾〩".split()
    )
    for sign in signs
}


def _read(text: str, *, words: bool) -> str:
    """The text sign for sign: digits of any script as 0 to 9, Chinese ones with `words`, separators as "-"."""
    signs = "".join(map(_read_sign, text))
    return _find_tight.sub("-", signs.translate(_WORDS) if words else signs)


@lru_cache(maxsize=1024)  # a language has few signs
def _read_sign(sign: str) -> str:
    plain = _plain(sign)
    return "-" if plain in _SEPARATORS or unicodedata.category(plain) in _SEPARATING else plain


def _plain(sign: str) -> str:
    """A digit of any script, or a sign of full width, as it is in ASCII; others as they are."""
    if sign.isascii() or ord(sign) in _WORDS:
        return sign
    value = unicodedata.numeric(sign, -1)
    if value in _DIGITS:
        return str(int(value))
    if "！" <= sign <= "～":
        return chr(ord(sign) - 0xFEE0)
    return "¥" if sign == "￥" else sign


_DIGITS: Final = frozenset(range(10))


def _replaced(text: str, found: list[tuple[int, int, str]]) -> str:
    """`found`: where something else is to stand, in order."""
    for start, end, instead in reversed(found):
        text = text[:start] + instead + text[end:]
    return text
