"""Detection of numbers split over several texts: the ends of a sender's last texts are kept for WINDOW_S.

They are kept per binding, not per receiver: otherwise a refusal would reveal whether two 700 numbers, or two callers of
one, lead to the same party.

Kept are the last digits and the signs around them, in each reading. It reads no clock, and its memory is bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from relay.model.numbers import is_700
from relay.privacy.text_reading import (
    DIGITS,
    as_digits,
    as_letters,
    as_mixture_in_words,
    as_mixture_of_signs,
    as_round_letters,
    as_spoken,
    as_words,
    read_plainly,
)
from relay.privacy.texts import MASK, Read, find_number, national_form, places_of_digits, without_moments_and_prices

WINDOW_S: Final = 600.0  # from one text to the next
MOST_SENDERS: Final = 10_000  # up to 2 kB each; the oldest is evicted first

_READINGS: Final[tuple[Read, ...]] = (
    *(as_digits, as_words, as_spoken, as_round_letters, as_letters),
    *(as_mixture_in_words, as_mixture_of_signs),
)
_KEPT_SIGNS: Final = 32  # all but the last digit of a mobile number, with separators
_KEPT_DIGITS: Final = 14  # all but the last digit of the longest number


class Tail(NamedTuple):
    """The end of the texts so far, in one reading."""

    signs: str = ""  # digits, "-" for separators, "x" for anything else and for dates, times and prices
    digits: str = ""  # the last ones, without what stood between


Tails = tuple[Tail, ...]  # by reading
NOTHING: Final[Tails] = (Tail(),) * len(_READINGS)


class TextMemory:
    """The memory of one engine, not stored."""

    def __init__(self) -> None:
        self._tails: OrderedDict[tuple[str, str], tuple[float, Tails]] = OrderedDict()

    def before(self, sender: str, binding_id: str, now: float) -> Tails:
        """The ends of the last texts sent by `sender` under the binding."""
        at, tails = self._tails.get((sender, binding_id), (now, NOTHING))
        return tails if now - at < WINDOW_S else NOTHING

    def remember(self, sender: str, binding_id: str, tails: Tails, now: float) -> None:
        key = (sender, binding_id)
        self._tails.pop(key, None)
        if tails != NOTHING:
            self._tails[key] = (now, tails)
            if len(self._tails) > MOST_SENDERS:
                self._tails.popitem(last=False)

    def __len__(self) -> int:
        return len(self._tails)


def tails_after(before: Tails, text: str) -> Tails:
    """The ends of the texts including this one. A text without digits changes nothing."""
    plain, _ = read_plainly(text)
    moments = without_moments_and_prices(plain)
    return tuple(_with(tail, read(plain), moments) for tail, read in zip(before, _READINGS, strict=True))


def mask_across(passes: int, text: str, sender: str, before: Tails) -> str | None:
    """`text` with the end of a number masked that earlier texts began; otherwise unchanged. None if the last pass still
    finds one.

    Numbers by shape are found if only separators stand between the digits, the sender's own number in any case.
    """
    if before == NOTHING:
        return text
    number = national_form(sender)
    for _ in range(passes):
        span = _part(text, number, before)
        if span is None:
            return text
        text = text[: span[0]] + MASK + text[span[1] :]
    return None


def _part(text: str, number: str, before: Tails) -> tuple[int, int] | None:
    plain, places = read_plainly(text)
    moments = without_moments_and_prices(plain)
    for tail, read in zip(before, _READINGS, strict=True):
        signs = read(plain)
        end = _end_of_own(number, tail.digits, signs)
        if end is None and read in (as_digits, as_words):  # other readings would join a number and a word
            end = _end_of_shape(tail.signs, _without_moments(signs, moments))
        if end is not None:
            first = next(place for place, sign in enumerate(signs) if sign in DIGITS)
            return places[first], places[end - 1] + 1
    return None


def _end_of_own(number: str, earlier: str, signs: str) -> int | None:
    """The end in `signs` of the sender's number that began in earlier texts."""
    if len(number) < 7 or not earlier:
        return None
    digits = places_of_digits(signs)
    joined = earlier + "".join([signs[place] for place in digits])
    for wanted in (number, number[::-1]):
        start = joined.find(wanted)
        end = start + len(wanted) - len(earlier)
        if 0 <= start < len(earlier) and end > 0:
            return digits[end - 1] + 1
    return None


def _end_of_shape(earlier: str, signs: str) -> int | None:
    """The end in `signs` of any number by shape that began in earlier texts."""
    joined = f"{earlier}-{signs}"
    match = find_number(joined)
    while match is not None and match.start() < len(earlier):
        if match.end() > len(earlier) + 1 and not is_700(match[0].replace("-", "")):
            return match.end() - len(earlier) - 1
        match = find_number(joined, match.start() + 1)
    return None


def _with(tail: Tail, signs: str, moments: str) -> Tail:
    digits = "".join([signs[place] for place in places_of_digits(signs)])
    if not digits:
        return tail
    ended = f"{tail.signs}-{_without_moments(signs, moments)}"
    return Tail(_collapsed(ended)[-_KEPT_SIGNS:], (tail.digits + digits)[-_KEPT_DIGITS:])


def _without_moments(signs: str, moments: str) -> str:
    return "".join(["x" if other == "x" else sign for sign, other in zip(signs, moments, strict=True)])


def _collapsed(signs: str) -> str:
    """Runs of separators reduced to one "-", runs of other signs to one "x"; "+" stays."""
    kept: list[str] = []
    for sign in signs:
        short = sign if sign in DIGITS or sign in "-+" else "x"
        if not kept or short in DIGITS or short != kept[-1]:
            kept.append(short)
    return "".join(kept)
