"""Masking of text messages: plain text in UTF-8, without real numbers.

Numbers are found by shape, regardless of their owner: if only the receiver's were masked, the sender could find it by
trying the ten thousand numbers that its masked form leaves. The sender's own number is no secret to the sender, so it
may be found in any disguise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from relay.errors import ProtocolError
from relay.model.numbers import CHINA, is_700, mask_number
from relay.privacy.masking import Body
from relay.privacy.text_reading import (
    DIGITS,
    LISTING,
    as_digits,
    as_letters,
    as_mixture_in_words,
    as_mixture_of_signs,
    as_round_letters,
    as_spoken,
    as_words,
    in_visual_order,
    read_plainly,
)
from relay.sip.message import Request

LONGEST_TEXT: Final = 1300  # bytes, and signs as read: some signs are 18 in NFKC
MOST_PASSES: Final = 4  # of a text in which each mask makes a new number
Read = Callable[[str], str]  # a reading of plain signs
Found = tuple[int, int, str]  # start, end, replacement

_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii"})
_ENCODINGS: Final = {"content-encoding": ("identity",), "content-transfer-encoding": ("7bit", "8bit", "binary")}
_ACCEPT: Final = "Accept: text/plain\r\n"  # RFC 3261 8.2.3
_ACCEPT_PLAIN: Final = f"{_ACCEPT}Accept-Encoding: identity\r\n"
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]").search


def read_text(request: Request) -> str:
    """The text of a MESSAGE. Raises ProtocolError: 413 above LONGEST_TEXT bytes or signs, 415 unless it is plain text
    in UTF-8; ParseError for a malformed Content-Type."""
    if len(request.body) > LONGEST_TEXT:
        raise ProtocolError(413, f"a text has at most {LONGEST_TEXT} bytes")
    content_type = request.content_type
    if content_type is None or content_type.type != "text/plain":
        raise ProtocolError(415, "only plain text is relayed", _ACCEPT)
    charset = (content_type.params.get("charset") or "utf-8").strip('"').lower()
    if charset not in _CHARSETS or not _is_as_it_reads(request):
        raise ProtocolError(415, "only UTF-8 without a content encoding is relayed", _ACCEPT_PLAIN)
    try:
        text = request.body.decode()
    except UnicodeDecodeError:
        raise ProtocolError(415, "not UTF-8", _ACCEPT) from None
    if _CONTROLS(text):
        raise ProtocolError(415, "control characters in the text", _ACCEPT)
    if len(read_plainly(text).signs) > LONGEST_TEXT:
        raise ProtocolError(413, f"a text has at most {LONGEST_TEXT} signs")
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
    """`text` with real numbers masked (138****0001) and bidirectional marks resolved; otherwise unchanged.

    Found: Chinese mobile numbers, landline numbers with area code and international numbers with "+" or 00, in digits
    of any script, Chinese numerals and homophones, with separators or one list sign between digits; not if they consist
    of dates, times and prices. Mobile numbers also in letters that resemble digits, and with a constant filler between
    digits. The sender's number (E.164 without "+", "" if unknown) with any text between its digits, and in mixed words,
    numerals and letters; an extension (fewer than 7 digits) only if it stands alone. "****" for the whole text if
    numbers are left after MOST_PASSES.
    """
    masked = mask_within(MOST_PASSES, text, sender)
    return MASK if masked is None else masked


def mask_within(passes: int, text: str, sender: str) -> str | None:
    """As `mask_numbers`, but None if the last pass still finds a number. With one pass, any number makes it None."""
    text, number = in_visual_order(text), national_form(sender)
    for _ in range(passes):
        masked = _masked(text, number)
        if masked == text:
            return text
        text = masked
    return None


def _masked(text: str, number: str) -> str:
    """One masking pass. `number`: the sender's, in national form."""
    plain, places = read_plainly(text)
    for find, read in _FINDERS:
        found = find(plain, read(plain), number)
        if found:
            for start, end, instead in reversed(found):
                text = text[: places[start]] + instead + text[places[end - 1] + 1 :]
            plain, places = read_plainly(text)
    return text


# -- by shape

_GAP: Final = "-*+"  # separators as written by a reading
_MOBILE: Final = rf"1{_GAP}[3-9](?:{_GAP}[0-9]){{9}}"
_LANDLINE: Final = rf"(?:1{_GAP}0|2{_GAP}[0-9]|[3-9](?:{_GAP}[0-9]){{2}}){_GAP}[2-9](?:{_GAP}[0-9]){{6,7}}"
_FOREIGN: Final = rf"[1-9](?:{_GAP}[0-9]){{6,14}}"
find_number: Final = re.compile(
    "(?<![0-9])(?:"
    rf"(?:(?:(?:\+|00){_GAP})?8{_GAP}6{_GAP}|0{_GAP})?({_MOBILE})"
    rf"|(?:(?:(?:\+|00){_GAP})?8{_GAP}6{_GAP}0?|0){_GAP}({_LANDLINE})"
    rf"|\+{_GAP}({_FOREIGN})"
    rf"|00{_GAP}([1-9](?:{_GAP}[0-9]){{8,14}})"
    ")(?![0-9])"
).search


def _shapes(plain: str, signs: str, _: str) -> list[Found]:
    return _shapes_in(plain, signs, lambda start, end: True)


def _spoken_shapes(plain: str, signs: str, _: str) -> list[Found]:
    """Numbers with several homophones: a single one may be a word behind an order number, as in 1390000012已送达."""
    written = as_words(plain)

    def is_meant(start: int, end: int) -> bool:
        return _digits_in(written[start:end]) <= _digits_in(signs[start:end]) - _LEAST_SOUNDS

    return _shapes_in(plain, signs, is_meant)


_LEAST_SOUNDS: Final = 4


def _shapes_in(plain: str, signs: str, is_meant: Callable[[int, int], bool]) -> list[Found]:
    """Overlapping numbers, as in "1350 139 0000 0002", are ambiguous: both are masked."""
    found: list[Found] = []
    match = find_number(signs)
    rest = without_moments_and_prices(plain) if match else ""
    while match is not None:
        start, end = match.span()
        digits = (match[1] or match[2] or match[3] or match[4]).replace("-", "")
        if not is_700(digits) and not _is_told(signs[start:end], rest[start:end]) and is_meant(start, end):
            masked = mask_number(digits)
            if found and start < found[-1][1]:
                start, last, before = found.pop()
                masked = before if end <= last else before.partition("*")[0] + masked[masked.index("*") :]
                end = max(end, last)
            found.append((start, end, masked))
        match = find_number(signs, match.start() + 1)
    return found


# -- mobile numbers with a constant filler: 1点3点9点…, 139转0000转0002

_LENGTH: Final = 11
_LONGEST_FILLER: Final = 8
MASK: Final = "****"  # left by `mask_number`; not a filler
_is_mobile: Final = re.compile("1[3-9][0-9]{9}").fullmatch
_find_digits: Final = re.compile("[0-9]+").finditer
_is_of_digits: Final = re.compile("[0-9]+").fullmatch
# Single digits, with one or two signs of any kind between them.
_find_singles: Final = re.compile(
    "(?<![0-9])1[^0-9]{1,2}[3-9](?![0-9])(?:[^0-9]{1,2}[0-9](?![0-9])){9}",
).finditer


def _divided(plain: str, signs: str, _: str) -> list[Found]:
    spans = [match.span() for match in _find_singles(signs)] or _evenly_divided(signs)
    rest = without_moments_and_prices(plain) if spans else ""
    found: list[Found] = []
    for start, end in spans:
        span = signs[start:end]
        is_divided = _is_of_digits(span.replace("-", "")) is None  # else `_shapes` finds it
        if is_divided and not _is_told(span, rest[start:end]) and (not found or start >= found[-1][1]):
            digits = "".join([span[place] for place in places_of_digits(span)])
            found.append((start, end, mask_number(digits)))
    return found


def _evenly_divided(signs: str) -> list[tuple[int, int]]:
    """Runs of digits that make a mobile number, with the same filler between them."""
    runs = [match.span() for match in _find_digits(signs)]
    found = []
    for first in range(len(runs) - 2):
        filler = signs[runs[first][1] : runs[first + 1][0]]
        if len(filler) > _LONGEST_FILLER or filler == MASK or filler.strip("-") in LISTING:
            continue
        digits, last = signs[slice(*runs[first])], first
        while len(digits) < _LENGTH and last + 1 < len(runs):
            if signs[runs[last][1] : runs[last + 1][0]] != filler:
                break
            last += 1
            digits += signs[slice(*runs[last])]
        if last - first >= 2 and _is_mobile(digits):
            found.append((runs[first][0], runs[last][1]))
    return found


# -- mobile numbers in letters that resemble digits: l38ooooooo1

_LEAST_ROUND: Final = 9  # minimum of digits and letters read as 0 or 1
_LEAST_DIGITS: Final = 3  # minimum of real digits, one less without separators
_in_words: Final = re.compile("[0-9A-Za-z]").fullmatch  # part of a word, such as an order number
_find_mobile: Final = re.compile(rf"(?:(?:00{_GAP})?8{_GAP}6{_GAP}|0)?({_MOBILE})").search


def _letters(plain: str, signs: str, _: str) -> list[Found]:
    found: list[Found] = []
    match = _find_mobile(signs)
    if match is None:
        return found
    real, round_ = as_digits(plain), as_round_letters(plain)
    while match is not None:
        start, end = match.span()
        in_a_word = _in_words(plain[start - 1 : start]) or _in_words(plain[end : end + 1])
        if not in_a_word and _is_meant(real[start:end], round_[start:end], signs[start:end]):
            found.append((start, end, mask_number(match[1].replace("-", ""))))
            match = _find_mobile(signs, end)
        else:
            match = _find_mobile(signs, start + 1)
    return found


def _is_meant(real: str, round_: str, signs: str) -> bool:
    """Whether it is a number rather than words."""
    digits = _digits_in(real)
    least = _LEAST_DIGITS if "-" in signs else _LEAST_DIGITS - 1
    return least <= digits < _digits_in(signs) and _digits_in(round_) >= _LEAST_ROUND


def _digits_in(signs: str) -> int:
    return len(places_of_digits(signs))


# -- false positives: dates, times, prices

_MOST_LEFT: Final = 4  # further digits beside dates, times and prices: a room, an hour
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


def without_moments_and_prices(plain: str) -> str:
    """The text with "x" for each sign of dates, times and prices; same length."""
    return _replace_moments_and_prices(lambda found: "x" * len(found[0]), plain)


def _is_told(signs: str, rest: str) -> bool:
    """Whether `signs` consist of dates, times and prices, except a few digits."""
    left = [sign for sign, other in zip(signs, rest, strict=True) if other != "x" and sign in DIGITS]
    return "x" in rest and len(left) <= _MOST_LEFT


# -- the sender's own number


def national_form(sender: str) -> str:
    """The national form of the sender's number; "" if unknown, or a 700 number, which is public."""
    if is_700(sender):
        return ""
    return sender.removeprefix(CHINA) if len(sender) > 9 else sender


def _own(_: str, signs: str, number: str) -> list[Found]:
    return [(start, end, mask_number(number)) for start, end in _places_of(number, signs)] if number else []


def places_of_digits(signs: str) -> list[int]:
    return [place for place, sign in enumerate(signs) if sign in DIGITS]


def _places_of(number: str, signs: str) -> list[tuple[int, int]]:
    if len(number) < 7:
        return [match.span() for match in re.finditer(f"(?<![0-9]){number}(?![0-9])", signs)]
    places = places_of_digits(signs)
    digits = "".join([signs[place] for place in places])
    for wanted in (number, number[::-1]):
        found = []
        start = digits.find(wanted)
        while start >= 0:
            end = start + len(wanted)
            found.append((places[start], places[end - 1] + 1))
            start = digits.find(wanted, end)
        if found:
            return found
    return []


Find = Callable[[str, str, str], list[Found]]  # (plain signs, their reading, sender's number)
_FINDERS: Final[tuple[tuple[Find, Read], ...]] = (
    *((find, read) for read in (as_digits, as_words) for find in (_shapes, _own)),
    *((find, as_spoken) for find in (_spoken_shapes, _own)),
    *((_divided, read) for read in (as_digits, as_words)),
    *((_own, read) for read in (as_round_letters, as_letters, as_mixture_in_words, as_mixture_of_signs)),
    (_letters, as_letters),
)
