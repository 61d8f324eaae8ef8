"""Readings of a text: each maps every sign to a digit, a separator or itself, as people may read it.

Each reading has the same length as the plain text, so that positions found in it apply to the text.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final, NamedTuple

DIGITS: Final = "0123456789"


class PlainSigns(NamedTuple):
    """The plain signs of a text, and the position in the text of each."""

    signs: str
    places: list[int]


def read_plainly(text: str) -> PlainSigns:
    """The text with compatibility forms normalised (NFKC) and digits of any script as 0 to 9."""
    signs: list[str] = []
    places: list[int] = []
    for place, sign in enumerate(text):
        for plain in _plain(sign):
            signs.append(plain)
            places.append(place)
    return PlainSigns("".join(signs), places)


def as_digits(signs: str) -> str:
    """Only digits count as digits; separators become "-"."""
    return _separated(signs)


def as_words(signs: str) -> str:
    """`as_digits`, and Chinese numerals: plain, banker's, Suzhou, radio. 十三 is 13, 三十八 is 38."""
    read = _multiple_between("-", _separated(signs.translate(_WORDS)))
    return _ten_at_the_end("0", _ten_before("1", _ten_between("-", read)))


def as_spoken(signs: str) -> str:
    """`as_words`, and homophones of digits (幺, 灵, 酒), pinyin and English words."""
    read = _spelled(_digits_of_words, signs.translate(_SPOKEN))
    return as_words(read)


def as_round_letters(signs: str) -> str:
    """`as_digits`, and look-alikes of 0 and 1: O and o; l, I and |, and those of other scripts."""
    return _separated(signs.translate(_ROUND))


def as_letters(signs: str) -> str:
    """`as_round_letters`, and look-alikes of other digits: z, E, A, s, b, T, B, g."""
    return _separated(signs.translate(_LETTERS))


def as_mixture_in_words(signs: str) -> str:
    """All of these mixed: words, also "double zero", homophones, numerals, and look-alikes in words of nothing else.

    It has many false positives, so use it only to find a known number: the sender's own.
    """
    read = _repeated(_digits_of_mixture, signs.translate(_SPOKEN))
    return as_words(_each_token(_letters_of_token, read))


def as_mixture_of_signs(signs: str) -> str:
    """As `as_mixture_in_words`, with words inside other words, and look-alikes of 0 and 1 anywhere."""
    read = _each_repeated(_digits_of_one, signs.translate(_SPOKEN))
    return as_words(read.translate(_ROUND))


def in_visual_order(text: str) -> str:
    """The text in display order: parts reversed by direction marks (U+202E) are reversed, the marks removed.

    The part of the bidirectional algorithm (UAX 9) that can disguise a number.
    """
    if not _DIRECTIONS.search(text):
        return text
    levels: list[tuple[str, list[str]]] = [("", [])]
    for sign in text:
        if sign in _OPENING:
            levels.append((sign, []))
        elif sign in _CLOSING:
            _close(levels)
        else:
            levels[-1][1].append(sign)
    while len(levels) > 1:
        _close(levels)
    return "".join(levels[0][1])


_OPENING: Final = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068"
_CLOSING: Final = "\u202c\u2069"
_DIRECTIONS: Final = re.compile(f"[{_OPENING}{_CLOSING}]")
_OVERRIDE: Final = "\u202e"  # each sign right to left
_TO_THE_LEFT: Final = "\u202b\u2067"  # reverses the words, not the digits within a word


def _close(levels: list[tuple[str, list[str]]]) -> None:
    if len(levels) == 1:
        return
    opened, units = levels.pop()
    if opened == _OVERRIDE:
        units.reverse()
    shown = "".join(units)
    if opened and opened in _TO_THE_LEFT:
        shown = "".join(reversed(re.split(r"(\s+)", shown)))
    levels[-1][1].append(shown)


# -- one sign

# One of these may stand between two digits of a number; they also separate lists.
LISTING: Final = frozenset(",;:*#~=、。")
_find_tight: Final = re.compile(r"(?<=[0-9])[,;:*#~=、。](?=[0-9])")
# Any number of these: blanks, dashes, brackets, other punctuation, pictures, marks and zero-width signs.
_SEPARATING: Final = frozenset("Zs Zl Zp Pd Pc Cf Mn Me Ps Pe Pi Pf Po So Sk Sm".split())
_SEPARATORS: Final = frozenset("\t\n\r\u115f\u1160\u2800\u3164\uffa0")
_NEVER: Final = frozenset("+$¥")  # they show the kind of number that follows


def _separated(signs: str) -> str:
    return _find_tight.sub("-", "".join(map(_separator, signs)))


@lru_cache(maxsize=4096)  # a text uses few different signs
def _separator(sign: str) -> str:
    if sign in LISTING or sign in _NEVER:
        return sign
    return "-" if sign in _SEPARATORS or unicodedata.category(sign) in _SEPARATING else sign


@lru_cache(maxsize=4096)
def _plain(sign: str) -> str:
    if sign.isascii():
        return sign
    if sign in _TAGS:
        return str(_TAGS.index(sign))
    value = unicodedata.numeric(sign, -1)
    if value in _VALUES and ord(sign) not in _WORDS:
        return str(int(value))
    return unicodedata.normalize("NFKC", sign) if sign != "￥" else "¥"


_VALUES: Final = frozenset(range(10))
_TAGS: Final = "".join(map(chr, range(0xE0030, 0xE003A)))  # invisible digits of flag sequences

# -- words, sounds and shapes


def _table(rows: str, first: int = 0) -> dict[int, str]:
    """A translation table from one row of signs per digit, counted from `first`."""
    return {ord(sign): str(digit) for digit, signs in enumerate(rows.split(), first) for sign in signs}


_WORDS: Final = _table("〇零○洞 一幺壹〡 二两兩贰貳〢廿 三叁叄參〣卅 四肆〤 五伍〥 六陆陸〦 七柒拐〧 八捌〨 九玖勾〩")
_multiple_between: Final = re.compile("(?<=[0-9])[百千万亿佰仟萬億](?=-*[0-9十拾])").sub
_ten_between: Final = re.compile("(?<=[0-9])[十拾](?=-*[0-9])").sub
_ten_before: Final = re.compile("[十拾](?=-*[0-9])").sub
_ten_at_the_end: Final = re.compile("(?<=[0-9])[十拾]").sub

_SOUNDS: Final = _table(
    "林玲灵铃令凌龄岭领另淋菱伶 衣依医伊易椅意义已以益亿要腰妖摇药耀夭邀吆 尔耳而饵儿俩爱贰 散伞山参珊闪衫叄 "
    "是死丝思斯寺事似私司撕市世 我吾武午舞无物勿雾屋巫吴呜务误 溜留流刘柳榴牛鹿露路录瘤 起气其期奇妻器齐棋骑旗企启 "
    "吧爸巴把霸芭拔扒发叭罢 酒久就旧救舅揪韭狗沟"
)
_SPOKEN: Final = _SOUNDS | _WORDS
_SPELLED: Final = {
    word: str(digit)
    for digit, words in enumerate(
        [
            *("zero oh ling dong", "one yao yi", "two er liang", "three san", "four si", "five wu", "six liu"),
            *("seven qi guai", "eight ba", "nine jiu gou"),
        ]
    )
    for word in words.split()
}
_ANY_CASE: Final = re.IGNORECASE | re.ASCII  # else i also matches ı and İ, which are not in the tables
_WORD: Final = "|".join(sorted(_SPELLED, key=len, reverse=True))
_each_word: Final = re.compile(_WORD, _ANY_CASE).sub
_spelled: Final = re.compile(f"(?<![a-z])(?:{_WORD})+(?![a-z])", _ANY_CASE).sub  # not the end of "phone"


def _digits_of_words(found: re.Match[str]) -> str:
    return _each_word(lambda word: _SPELLED[word[0].lower()].ljust(len(word[0]), "-"), found[0])


_ROUND: Final = _table("oOоОοΟσօՕ०০ᴏøØөӨ〇○◯●⚪⚫⭕◎° lIiıіІιΙӏӀɩƖǀ∣|丨亅!¡†")
_LETTERS: Final = _ROUND | _table("zZƨ eEеЕзЗЭэƷʒєЄ aAаАчЧһ sSѕЅ§ bбЬь tTтТ BВвßβ gqց", 2)


# -- everything together

_ZEROS: Final = dict.fromkeys("nought naught nil".split(), "0")
_OF_MIXTURE: Final = _SPELLED | _ZEROS | dict(zip(DIGITS, DIGITS, strict=True)) | {"o": "0"}
_TIMES: Final = {"double": 2, "triple": 3}
_WORD_OF_MIXTURE: Final = "|".join(sorted(_SPELLED | _ZEROS, key=len, reverse=True))
_REPEATED: Final = f"(?:(double|triple)[^0-9a-z]{{0,3}}({_WORD_OF_MIXTURE}|[0-9o])|({_WORD_OF_MIXTURE}))"
_each_repeated: Final = re.compile(_REPEATED, _ANY_CASE).sub
_repeated: Final = re.compile(f"(?<![a-z]){_REPEATED}+(?![a-z])", _ANY_CASE).sub
_SIMILAR: Final = "".join(map(chr, _LETTERS))
_each_token: Final = re.compile(f"[0-9A-Za-z{re.escape(_SIMILAR)}]+").sub
_has_other_letters: Final = re.compile(f"[^0-9{re.escape(_SIMILAR)}]").search


def _digits_of_mixture(found: re.Match[str]) -> str:
    return _each_repeated(_digits_of_one, found[0])


def _digits_of_one(found: re.Match[str]) -> str:
    times = _TIMES[found[1].lower()] if found[1] else 1
    return (_OF_MIXTURE[(found[2] or found[3]).lower()] * times).ljust(len(found[0]), "-")


def _letters_of_token(found: re.Match[str]) -> str:
    return found[0] if _has_other_letters(found[0]) else found[0].translate(_LETTERS)
