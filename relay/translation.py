"""Texts for people in Chinese. They are written in English in the code, and are recognised where they are shown.

`locale/zh_CN/LC_MESSAGES/relay700.po` has the Chinese text of each message; `scripts/messages` finds messages in the
source. The message of an f-string has `{names}` for its values: an error that crossed a process, or was quoted by
another one, is translated from its text, so that no layer below the console and the commands knows of languages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Final, Literal, NamedTuple, get_args
from unicodedata import east_asian_width

Language = Literal["zh", "en"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)

MOST_READ: Final = 400  # characters: reading takes a power of their number, and strangers write parts of texts
MOST_TRIES: Final = 150  # of parts and messages in a text; those of relay700 take up to 40 a line
PLACEHOLDER: Final = re.compile(r"\{(\w+)(?:!r)?\}")
_ENTRY = re.compile(r'^msgid ((?:".*"\n)+)msgstr ((?:".*"\n?)+)', re.MULTILINE)


def language_of_locale(environment: Mapping[str, str]) -> Language:
    """The language of messages, as gettext finds it: LANGUAGE counts unless the locale is C or POSIX."""
    locale = next(filter(None, map(environment.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "C")
    if locale.partition(".")[0] in ("C", "POSIX"):
        return "en"
    wanted = (environment.get("LANGUAGE") or locale).split(":")
    return next((known for each in wanted for known in LANGUAGES if each.lower().startswith(known)), "en")


def accepted_language(header: str) -> Language:
    """The language that an Accept-Language (RFC 9110 12.5.4) prefers of those known; English if it names none."""
    wanted: list[tuple[float, Language]] = []
    for part in header.lower().split(",", 16)[:16]:
        tag, *parameters = map(str.strip, part.split(";"))
        try:
            quality = float(next((each[2:] for each in parameters if each.startswith("q=")), "1"))
        except ValueError:
            continue
        wanted += [(quality, known) for known in LANGUAGES if tag.partition("-")[0] == known and quality > 0]
    return max(wanted, key=lambda each: each[0], default=(0.0, "en"))[1]


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes: a Chinese character takes two."""
    return len(text) if text.isascii() else sum(1 + (east_asian_width(sign) in "WF") for sign in text)


def N_(message: str) -> str:
    """Mark a message that is translated where it is shown."""
    return message


def translation(language: Language) -> Callable[[str], str]:
    """The translation of messages, and of texts made from them, into a language. Unknown ones stay as they are."""
    return str if language == "en" else _in_chinese


def _in_chinese(text: str) -> str:
    """A long text, or one that takes too many tries, is read line by line; such a line stays as it is."""
    if (chinese := catalogue().get(text)) is not None:
        return chinese
    if len(text) <= MOST_READ:
        reader = _Reader(text)
        chinese = reader.read(text).chinese
        if reader.tries <= MOST_TRIES:
            return chinese
    lines = text.splitlines(keepends=True)
    return "".join(map(_in_chinese, lines)) if len(lines) > 1 else text


@cache
def catalogue() -> dict[str, str]:
    """The Chinese messages by the English ones."""
    text = resources.files("relay").joinpath("locale/zh_CN/LC_MESSAGES/relay700.po").read_text("utf-8")
    found = {_unquoted(message): _unquoted(chinese) for message, chinese in _ENTRY.findall(text)}
    found.pop("", None)  # the header
    return found


def _unquoted(lines: str) -> str:
    import json  # only for Chinese

    return "".join(map(json.loads, lines.splitlines()))


# -- Texts made from messages

# Messages with fewer characters of their own are read only in texts with a digit, with values of one word, or, if they
# have more than _FEW values, in short texts: a stranger's ": a: a: a…" of 400 characters took a second.
_NEEDS_DIGIT, _NEEDS_WORDS, _NEEDS_SHORT = 6, 7, 17
_FEW, _SHORT = 3, 150
_HEAD: Final = "(?:(?!: ).)*?"  # a value that begins a message: what is before ": " is the place of a fault
_TAIL: Final = "(?:, .*?)?"  # a value right behind another one: a further part, or none
_JOINT = re.compile(r": |; |, or |(?<=\.) |\n")  # between messages: `file: key.path: fault; what to write`
_CHINESE_JOINTS = {": ": "：", "; ": "；", ", or ": "，或", " ": "", "\n": "\n"}


class _Form(NamedTuple):
    """A message with values. `mark` is its longest literal part, `weight` the length of all.

    Texts of more than `max_length` characters are not matched with it.
    """

    weight: int
    mark: str
    message: str
    max_length: int


@cache
def _forms() -> list[_Form]:
    """The messages with values."""
    found = []
    for message in catalogue():
        literals = PLACEHOLDER.split(message)[::2]
        if len(literals) > 1:
            weight = sum(map(len, literals))
            max_length = _SHORT if len(literals) - 1 > _FEW and weight < _NEEDS_SHORT else MOST_READ
            found.append(_Form(weight, max(literals, key=len), message, max_length))
    return found


@cache
def _pattern(form: _Form) -> re.Pattern[str]:
    names: set[str] = set()
    parts = PLACEHOLDER.split(form.message)
    for place, part in enumerate(parts):
        if place % 2 == 0:
            parts[place] = re.escape(part)
        else:
            parts[place] = f"(?P={part})" if part in names else f"(?P<{part}>{_value(form, place, parts[place - 1])})"
            names.add(part)
    return re.compile("".join(parts), re.DOTALL)


def _value(form: _Form, place: int, before: str) -> str:
    """The pattern of a value: `place` is its index in the message, `before` the text in front of it."""
    if form.weight < _NEEDS_WORDS:
        return r"\S*?"
    if before:
        return ".*?"
    return _HEAD if place == 1 else _TAIL


def _may_be(form: _Form, text: str) -> bool:
    return len(text) <= form.max_length and (form.weight >= _NEEDS_DIGIT or any(map(str.isdigit, text)))


class _Reading(NamedTuple):
    """A way to read a text: how many of its characters are of messages, and the Chinese."""

    weight: int
    chinese: str


class _Reader:
    """Reads one text, and the parts of it, each once."""

    def __init__(self, text: str) -> None:
        self._forms = [form for form in _forms() if form.mark in text]  # no part has other marks
        self._known: dict[str, _Reading] = {}
        self.tries = 0  # beyond MOST_TRIES nothing is read

    def read(self, text: str) -> _Reading:
        """The reading with most characters of messages. Spaces and line breaks around the text stay."""
        if (known := self._known.get(text)) is not None:
            return known
        self.tries += 1
        if self.tries > MOST_TRIES:
            return _Reading(0, text)
        bare = text.strip()
        best = max(self._readings(bare), default=_Reading(0, bare), key=lambda reading: reading.weight)
        self._known[text] = reading = _Reading(best.weight, text.replace(bare, best.chinese, 1))
        return reading

    def _readings(self, text: str) -> Iterator[_Reading]:
        if (chinese := catalogue().get(text)) is not None:
            yield _Reading(len(text), chinese)
            return
        for form in self._forms:
            if form.mark in text and _may_be(form, text):
                self.tries += 1
                if found := _pattern(form).fullmatch(text):
                    yield self._with_values(form, found.groupdict())
        first = {joint[0]: joint for joint in reversed(list(_JOINT.finditer(text)))}
        for joint in first.values():
            yield self._joined(self.read(text[: joint.start()]), joint[0], self.read(text[joint.end() :]))

    def _with_values(self, form: _Form, values: dict[str, str]) -> _Reading:
        """A value of several words may be a message itself; a single one is a name."""
        read = {name: self.read(value) if " " in value else _Reading(0, value) for name, value in values.items()}
        chinese = PLACEHOLDER.sub(lambda place: read[place[1]].chinese, catalogue()[form.message])
        return _Reading(form.weight + sum(reading.weight for reading in read.values()), chinese)

    @staticmethod
    def _joined(head: _Reading, joint: str, rest: _Reading) -> _Reading:
        weight = head.weight + rest.weight
        return _Reading(weight, f"{head.chinese}{_CHINESE_JOINTS[joint] if weight else joint}{rest.chinese}")
