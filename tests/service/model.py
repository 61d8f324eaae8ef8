"""A reference model of numbers and bindings: dictionaries and a table of modes, without keys, hashes, indexes, SQL.

Every request has its time. The result is the kind of refusal, or "" on success.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

ANYBODY = "*"


@dataclass
class Number:
    locked: bool = False
    holders: list[str] = field(default_factory=list)  # ids of bindings
    cools_until: int = 0
    business: str = ""  # of the last binding


@dataclass
class Use:
    """The present or past use of a number by a caller, which the cool-down depends on."""

    holder: str  # id of the binding
    party: str
    ends: frozenset[str]
    free_at: int | None = None  # None: still in use


@dataclass(frozen=True)
class Made:
    """A binding."""

    mode: str
    business: str
    x: str
    y: str | None
    a: str | None
    b: str | None
    group: str | None
    expires_at: int | None
    ended: bool = False
    released: bool = False

    @property
    def ends(self) -> frozenset[str]:
        first = f"{self.group} {self.a}" if self.mode in ("GXB", "GXYB") else str(self.a)
        return frozenset([first, f"{ANYBODY} {self.b}" if self.mode == "AXN" else str(self.b)])

    @property
    def numbers(self) -> list[str]:
        return [number for number in (self.x, self.y) if number is not None]

    def left_sides(self, members: set[str]) -> dict[tuple[str, str], str]:
        """(number dialled, caller) of each route -> the party that the caller is."""
        group = {(self.x, member): "g" for member in members}
        back = {(str(self.y or self.x), str(self.b)): "b"}
        match self.mode:
            case "AXB" | "AXYB" if self.a is None:
                return back
            case "AXB" | "AXYB":
                return {(self.x, str(self.a)): "a"} | back
            case "GXB" | "GXYB":
                return group | back
            case _:
                return {(self.x, str(self.a)): "a", (self.x, ANYBODY): "*"}

    def answer(self, party: str) -> tuple[str | None, str]:
        """(target, number shown) of a route, without earlier calls."""
        match party:
            case "a" if self.mode == "AXN":
                return self.b, self.x
            case "a" | "g":
                return self.b, self.y or self.x
            case _:
                return self.a, self.x


class Model:
    """The expected state of the store."""

    def __init__(self, numbers: list[str], cap: int, cool_ms: int, most: dict[str, int | None]) -> None:
        self.numbers = {number: Number() for number in numbers}
        self.uses: dict[tuple[str, str], Use] = {}
        self.bindings: dict[str, Made] = {}
        self.made_at: dict[str, int] = {}
        self.groups: dict[str, set[str]] = {}
        self.suspended: set[str] = set()
        self._cap = cap
        self._cool_ms = cool_ms
        self._most = most

    # -- state at a given time

    def members(self, made: Made) -> set[str]:
        return self.groups.get(made.group or "", set())

    def is_live(self, made: Made, now: int) -> bool:
        return not made.ended and (made.expires_at is None or made.expires_at > now)

    def holding(self, business: str) -> int:
        return sum(made.business == business and not made.released for made in self.bindings.values())

    def whose(self, number: str) -> str:
        """The only business user with bindings on the number."""
        (business,) = {self.bindings[holder].business for holder in self.numbers[number].holders}
        return business

    def is_exclusive(self, number: str) -> bool:
        return any(self.bindings[holder].mode == "AXN" for holder in self.numbers[number].holders)

    def in_the_way(self, key: tuple[str, str], now: int, ends: frozenset[str] | None) -> str:
        """Why this caller cannot use this number; `ends` None: not even again between the same two ends."""
        use = self.uses.get(key)
        if use is None or (use.free_at is not None and use.free_at <= now):
            return ""
        if use.free_at is None:
            return "conflict"
        return "" if use.ends == ends else "number_cooling"

    def why_not_taken(self, number: str, made: Made, now: int) -> str:
        """Why the number cannot carry one more binding."""
        state = self.numbers[number]
        if state.locked:
            return "number_locked"
        if state.holders and self.whose(number) != made.business:
            return "number_full"
        if self.is_exclusive(number) or len(state.holders) >= self._cap or (made.mode == "AXN" and state.holders):
            return "number_full"
        resting = [use for (at, _), use in self.uses.items() if at == number and (use.free_at or 0) > now]
        same_two = resting and all(
            use.ends == made.ends and self.bindings[use.holder].business == made.business for use in resting
        )
        if not state.holders and state.cools_until > now and not same_two:
            return "number_cooling"
        return ""

    def rested(self, now: int) -> set[str]:
        """The unlocked numbers that are neither bound nor cooling down."""
        free = {at: state for at, state in self.numbers.items() if not state.locked}
        return {at for at, state in free.items() if not state.holders and state.cools_until <= now}

    def shareable(self, field_: str, made: Made, now: int) -> set[str]:
        """The bound numbers that may also be x or y of a binding; `made` has "?" in their place."""
        if made.mode == "AXN":
            return set()
        asked = replace(made, x="x", y="y" if made.y else None)
        callers = [who for at, who in asked.left_sides(self.members(made)) if at == field_]
        return {
            at
            for at, state in self.numbers.items()
            if not state.locked and 0 < len(state.holders) < self._cap and not self.is_exclusive(at)
            if self.whose(at) == made.business
            if not any(self.in_the_way((at, who), now, None) for who in callers)
        }

    def again(self, field_: str, made: Made, now: int) -> dict[str, int]:
        """The numbers that these two had, and may have again -> when they were bound."""
        if made.mode not in ("AXB", "AXYB") or made.a is None:
            return {}
        had = {
            str(old.x if field_ == "x" else old.y): self.made_at[key]
            for key, old in self.bindings.items()
            if (old.a, old.b, old.business, old.group) == (made.a, made.b, made.business, None)
        }
        asked = replace(made, x="x", y="y" if made.y else None)
        callers = [who for at, who in asked.left_sides(set()) if at == field_]
        return {
            at: made_at
            for at, made_at in had.items()
            if at in self.numbers and self.numbers[at].business == made.business
            if not self.why_not_taken(at, made, now)
            if not any(self.in_the_way((at, who), now, made.ends) for who in callers)
        }

    def may_be_chosen(self, field_: str, number: str, not_this: str | None, made: Made, now: int) -> bool:
        """Whether the number may be chosen: that which the same two had last, else a rested one, else a shared one."""
        again = {at: until for at, until in self.again(field_, made, now).items() if at != not_this}
        if again:
            return again.get(number) == max(again.values())
        rested = self.rested(now) - {not_this}
        return number != not_this and number in (rested or self.shareable(field_, made, now))

    # -- requests

    def sweep(self, now: int) -> None:
        for binding_id, made in self.bindings.items():
            if not made.released and not self.is_live(made, now):
                self._release(binding_id, now)

    def why_not_bound(self, made: Made, now: int) -> set[str]:
        """Why a binding on these numbers is refused. With several callers in the way, any of their reasons is right."""
        for number in made.numbers:
            if why := self.why_not_taken(number, made, now):
                return {why}
        most = self._most[made.business]
        if most is not None and self.holding(made.business) >= most:
            return {"quota"}
        return {self.in_the_way(key, now, made.ends) for key in made.left_sides(self.members(made))} - {""}

    def bind(self, binding_id: str, made: Made, now: int) -> None:
        self.bindings[binding_id] = made
        self.made_at[binding_id] = now
        for number in made.numbers:
            self.numbers[number].holders.append(binding_id)
            self.numbers[number].business = made.business
        for key, party in made.left_sides(self.members(made)).items():
            self.uses[key] = Use(binding_id, party, made.ends)

    def end(self, binding_id: str, now: int) -> None:
        if not self.bindings[binding_id].released:
            self._release(binding_id, now)
        self.bindings[binding_id] = replace(self.bindings[binding_id], ended=True)

    def why_not_changed(self, binding_id: str, new: Made, now: int) -> set[str]:
        """Why the callers that would join the binding cannot."""
        before = self.bindings[binding_id].left_sides(self.members(self.bindings[binding_id]))
        after = new.left_sides(self.members(new))
        return {self.in_the_way(key, now, new.ends) for key in after if key not in before} - {""}

    def change(self, binding_id: str, new: Made, now: int) -> None:
        before = self.bindings[binding_id].left_sides(self.members(self.bindings[binding_id]))
        after = new.left_sides(self.members(new))
        for number, caller in before.keys() - after.keys():
            self._rest(number, caller, now)
        for key, party in after.items():
            self.uses[key] = Use(binding_id, party, new.ends)
        self.bindings[binding_id] = new

    def of_group(self, group: str) -> list[tuple[str, Made]]:
        """The bindings of a group that still hold their numbers."""
        return [(key, made) for key, made in self.bindings.items() if made.group == group and not made.released]

    def why_not_added(self, group: str, party: str, now: int) -> set[str]:
        if party in self.groups[group]:
            return set()
        return {
            "conflict" if party == made.b else self.in_the_way((made.x, party), now, made.ends)
            for _, made in self.of_group(group)
        } - {""}

    def add(self, group: str, party: str) -> None:
        if party not in self.groups[group]:
            self.groups[group].add(party)
            for binding_id, made in self.of_group(group):
                self.uses[made.x, party] = Use(binding_id, "g", made.ends)

    def remove(self, group: str, party: str, now: int) -> None:
        if party in self.groups[group]:
            self.groups[group].remove(party)
            for _, made in self.of_group(group):
                self._rest(made.x, party, now)

    def _release(self, binding_id: str, now: int) -> None:
        made = self.bindings[binding_id]
        self.bindings[binding_id] = replace(made, released=True)
        for number in made.numbers:
            self.numbers[number].holders.remove(binding_id)
            self.numbers[number].cools_until = now + self._cool_ms
        for (number, caller), use in self.uses.items():
            if use.holder == binding_id and use.free_at is None:
                self._rest(number, caller, now)

    def _rest(self, number: str, caller: str, now: int) -> None:
        self.uses[number, caller].free_at = self.numbers[number].cools_until = now + self._cool_ms

    # -- calls

    def call(self, number: str, caller: str, now: int) -> str | tuple[str, str]:
        """The outcome of a refusal, or (target, number shown), without earlier calls."""
        if self.numbers[number].locked:
            return "number_locked"
        uses = [use for who in (caller, ANYBODY) if (use := self.uses.get((number, who)))]
        own = self.uses.get((number, caller))
        if own is not None and (own.free_at or 0) > now:
            uses = [own]  # a former party does not count as any caller
        use = next((use for use in uses if use.free_at is None), uses[0] if uses else None)
        if use is None or self.bindings[use.holder].ended:
            return "no_binding"
        made = self.bindings[use.holder]
        if not self.is_live(made, now):
            return "expired"
        if use.free_at is not None:
            return "no_binding"
        if made.business in self.suspended:
            return "business_suspended"
        target, shown = made.answer(use.party)
        if target is None:
            return "no_callee"
        return "own_number" if target == caller else (target, shown)
