"""Caller numbers that a peer may assert (DESIGN 4.7)."""

from __future__ import annotations

from dataclasses import dataclass

from relay.call.numbers import is_formatted


@dataclass(frozen=True, slots=True)
class CallerNumbers:
    """Numbers in E.164 without "+", extensions as they are. Empty: the peer may assert no caller."""

    numbers: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()  # of numbers in E.164
    extension_prefixes: tuple[str, ...] = ()  # of extensions only: extension prefix 8 must not match 86…
    ranges: tuple[tuple[str, str], ...] = ()  # first and last number, of the same length

    def allow(self, number: str) -> bool:
        """Whether the peer may assert that caller. `number` is normalised."""
        if number in self.numbers or number.startswith(self.prefixes):
            return True
        if number.startswith(self.extension_prefixes) and not is_formatted(number):
            return True
        size = len(number)
        return any([len(first) == size and first <= number <= last for first, last in self.ranges])


def may_call_as(numbers: CallerNumbers | None, caller: str) -> bool:
    """Whether a peer with these numbers may assert `caller`. None: any caller. "" (anonymous) is always allowed."""
    return numbers is None or not caller or numbers.allow(caller)
