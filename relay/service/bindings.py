"""The rules for bindings: what is asked for is checked, completed and made, or refused with the field and the fix.

It knows no SQL: a `BindingStore` keeps what it makes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

from relay.call.binding import Binding, Mode, compile_lines
from relay.call.numbers import mask_number, normalise_700, normalise_party
from relay.errors import ParseError, RelayError
from relay.service.times import parse_duration_ms, parse_moment_ms

RANDOM_TRIES = 16
LONGEST_ORDER = 128
_MODES: dict[str, Mode] = {"AXB": "AXB", "AXYB": "AXYB"}
SERIALS = 10_000  # the last four digits of a 700 number


class BindingRefused(RelayError):
    """What was asked for cannot be. `field` names the part of the request, `problem` says what is wrong and the fix."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class BindingRequest(NamedTuple):
    """A binding as it is asked for, in the words of the asker. "" is: not given."""

    mode: str
    a: str
    b: str
    x: str = ""
    y: str = ""
    expires_in: str = ""  # a duration, or a moment
    order_id: str = ""
    business: str = ""


class BindingStore(Protocol):
    """What the rules need of a store."""

    def add(self, bindings: Sequence[Binding], now_ms: int) -> Sequence[Literal["a", "b"] | None]: ...
    def is_taken(self, number: str, caller: str, now_ms: int) -> bool: ...
    def business_state(self, business: str) -> str | None: ...
    def end(self, binding_id: str, now_ms: int) -> Binding | None: ...


class BindingService:
    """Makes and ends bindings under the platform's assigned prefixes (11 digits each)."""

    def __init__(self, store: BindingStore, prefixes: Sequence[str]) -> None:
        self._store = store
        self._prefixes = tuple(prefixes)

    def bind(self, request: BindingRequest, now_ms: int) -> Binding:
        """Makes one binding. Raises BindingRefused."""
        (answer,) = self.bind_all([request], now_ms)
        if isinstance(answer, BindingRefused):
            raise answer
        return answer

    def bind_all(self, requests: Sequence[BindingRequest], now_ms: int) -> list[Binding | BindingRefused]:
        """Makes many in one transaction. Each stands for itself; the answers are in the order of the requests."""
        answers = [self._prepare(request, now_ms) for request in requests]
        good = [(place, answer) for place, answer in enumerate(answers) if isinstance(answer, Binding)]
        taken = self._store.add([binding for _, binding in good], now_ms)
        for (place, binding), party in zip(good, taken, strict=True):
            if party is not None:
                answers[place] = self._settle(requests[place], binding, party, now_ms)
        return answers

    def unbind(self, binding_id: str, now_ms: int) -> Binding:
        """Ends a binding: the next call is refused, one that is up goes on. Raises BindingRefused."""
        binding = self._store.end(binding_id, now_ms) if binding_id.isprintable() else None
        if binding is None:
            raise BindingRefused("binding", "there is none with this id: `relay700 bindings list` shows them")
        if binding.ended_at is not None:
            raise BindingRefused("binding", "it was unbound before")
        return binding

    def _settle(
        self, request: BindingRequest, binding: Binding, party: Literal["a", "b"], now_ms: int
    ) -> Binding | BindingRefused:
        """A conflict. Where the number was our own choice, another request took it just now: choose again."""
        for _ in range(RANDOM_TRIES):
            if request.x if party == "a" or binding.y is None else request.y:
                break
            again = self._prepare(request, now_ms)
            if isinstance(again, BindingRefused):
                return again
            (found,) = self._store.add([again], now_ms)
            if found is None:
                return again
            binding, party = again, found
        line = compile_lines(binding)[0 if party == "a" else 1]
        return BindingRefused(
            party, f"{mask_number(line.caller)} is bound on {line.number} already: unbind it or take another number"
        )

    def _prepare(self, request: BindingRequest, now_ms: int) -> Binding | BindingRefused:
        try:
            return self._binding(request, now_ms)
        except BindingRefused as refused:
            return refused

    def _binding(self, request: BindingRequest, now_ms: int) -> Binding:
        mode = _mode(request.mode)
        if mode == "AXB" and request.y:
            raise BindingRefused("y", "only AXYB has it: leave it out, or make the mode AXYB")
        a = _field("a", request.a, normalise_party)
        b = _field("b", request.b, normalise_party)
        if a == b:
            raise BindingRefused("b", "it is the same number as a: a binding joins two parties")
        expires_at = _expiry(request.expires_in, now_ms)
        business = self._business(request.business or "default")
        given_y = self._given("y", request.y)
        x = self._given("x", request.x) or self._choose("x", (a,) if mode == "AXYB" else (a, b), given_y, now_ms)
        y = None if mode == "AXB" else given_y or self._choose("y", (b,), x, now_ms)
        if x == y:
            raise BindingRefused("y", "it is the same number as x: take another, or make the mode AXB")
        return Binding(_new_id(now_ms), mode, business, _order(request.order_id), x, y, a, b, now_ms, expires_at)

    def _business(self, business: str) -> str:
        state = self._store.business_state(business) if business.isprintable() else None
        if state is None:
            raise BindingRefused("business", "there is no such business user: leave it out for `default`")
        if state != "approved":
            raise BindingRefused("business", f"the business user is {state}: only an approved one may bind numbers")
        return business

    def _given(self, field: str, text: str) -> str | None:
        if not text.strip():
            return None
        number = _field(field, text, normalise_700)
        if number[:11] not in self._prefixes:
            assigned = ", ".join(self._prefixes) or "none is"
            raise BindingRefused(field, f"it is not under an assigned prefix ([numbers] prefixes: {assigned})")
        return number

    def _choose(self, field: str, callers: tuple[str, ...], not_this: str | None, now_ms: int) -> str:
        """A number on which none of the callers is bound. Random, so that a number seldom comes back soon."""
        for number in self._candidates():
            if number != not_this and not any(self._store.is_taken(number, caller, now_ms) for caller in callers):
                return number
        if not self._prefixes:
            raise BindingRefused(field, "no prefix is assigned: set [numbers] prefixes in the configuration")
        raise BindingRefused(field, "no number is left on which these parties are free: unbind, or add a prefix")

    def _candidates(self) -> Iterator[str]:
        for _ in range(RANDOM_TRIES if self._prefixes else 0):
            yield f"{self._prefixes[0]}{secrets.randbelow(SERIALS):04d}"
        for prefix in self._prefixes:
            for serial in range(SERIALS):
                yield f"{prefix}{serial:04d}"


def _mode(text: str) -> Mode:
    mode = text.strip().upper()
    if mode not in _MODES:
        raise BindingRefused("mode", "it is AXB or AXYB")
    return _MODES[mode]


def _field(field: str, text: str, parse: Callable[[str], str]) -> str:
    if not text.strip():
        raise BindingRefused(field, "it is missing")
    try:
        return parse(text)
    except ParseError as error:
        raise BindingRefused(field, error.reason) from None


def _order(text: str) -> str | None:
    if len(text) > LONGEST_ORDER or not text.isprintable():
        raise BindingRefused("order_id", f"it is printable text of at most {LONGEST_ORDER} characters")
    return text.strip() or None


def _expiry(text: str, now_ms: int) -> int | None:
    if not text.strip():
        return None
    try:
        if "-" in text:
            moment_ms = parse_moment_ms(text)
        else:
            return now_ms + parse_duration_ms(text)
    except ParseError as error:
        raise BindingRefused("expires_in", error.reason) from None
    if moment_ms <= now_ms:
        raise BindingRefused("expires_in", "this moment is over: take one to come")
    return moment_ms


def _new_id(now_ms: int) -> str:
    return f"{now_ms:012x}{secrets.token_hex(6)}"
