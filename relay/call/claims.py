"""Which caller numbers a peer may name (DESIGN 4.7). What it names beyond them is not believed."""

from __future__ import annotations

from dataclasses import dataclass

from relay.call.numbers import is_formatted


@dataclass(frozen=True, slots=True)
class CallerNumbers:
    """All of them in E.164 without "+", extensions as they are. Empty: the peer may name nobody."""

    numbers: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()  # of numbers in E.164
    extension_prefixes: tuple[str, ...] = ()  # of extensions alone: 8 is no prefix of China
    ranges: tuple[tuple[str, str], ...] = ()  # the first and the last number, of the same length

    def allow(self, number: str) -> bool:
        """Whether the peer may name that caller. `number` is in the form that calls are looked up by."""
        if number in self.numbers or number.startswith(self.prefixes):
            return True
        if number.startswith(self.extension_prefixes) and not is_formatted(number):
            return True
        size = len(number)
        return any([len(first) == size and first <= number <= last for first, last in self.ranges])


def may_call_as(numbers: CallerNumbers | None, caller: str) -> bool:
    """`numbers` None: the peer may name any caller. "", an anonymous caller, is nobody's number."""
    return numbers is None or not caller or numbers.allow(caller)
