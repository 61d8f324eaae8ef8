"""Leak check: a last search of outgoing content for the other party. `relay.privacy.masking` decides what may cross."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from relay.errors import RelayError
from relay.model.capture import Side
from relay.model.settings import Peer, hosts_of

FailClosed = Callable[[Side, float], None]  # ends a call that would have leaked towards that side


class Leak(RelayError):
    """The leak check found the other party in an outgoing message; nothing was sent."""

    def __init__(self, fail_closed: FailClosed, side: Side) -> None:
        super().__init__(f"leak check failed towards the {side}")
        self._fail_closed = fail_closed
        self.side = side

    def end_call(self, now: float) -> None:
        self._fail_closed(self.side, now)


class LeakCheck:
    """Search for the other party's number and addresses.

    Only content from the relay itself or from the other side is searched. The receiver's own words are left out: lines
    that echo its request (Via, From, Call-ID, Record-Route, Contact), and its registered Contact in Request-URI
    and To. A party could plant guesses there and learn the other party's number from a failed check.

    A number of fewer than 7 digits is searched as a user part only, since "101" is also a payload type. An address
    matches only as a whole: 192.0.2.1 is not found in 192.0.2.10.
    """

    __slots__ = ("_hosts", "_numbers")

    def __init__(self, numbers: tuple[str, ...], hosts: tuple[str, ...]) -> None:
        self._numbers = [(needle, needle.encode()) for number in numbers for needle in _needles(number)]
        self._hosts = hosts

    def hit(self, head: str, body: bytes = b"", *, own: tuple[str, ...] = ()) -> bool:
        """Whether `head` contains a number or an address, or `body` a number, of the other side.

        `own`: the receiver's number and the 700 number shown to it, which may contain the other's by chance.
        """
        for needle, encoded in self._numbers:
            # bytes.find(): "in" raises an exception internally, which is slow
            if (needle in head or (body and body.find(encoded) >= 0)) and not _is_within_own(needle, head, body, own):
                return True
        for host in self._hosts:  # noqa: SIM110 - any() of a list or a generator costs half as much again
            if host and host in head and _is_whole(host, head):
                return True
        return False


def _is_within_own(needle: str, head: str, body: bytes, own: tuple[str, ...]) -> bool:
    """Whether the needle occurs only as part of one of the receiver's own numbers."""
    for number in own:
        for form in _needles(number):
            if needle in form:
                head, body = head.replace(form, ""), body.replace(form.encode(), b"")
    return needle not in head and needle.encode() not in body


def _is_whole(host: str, head: str) -> bool:
    """Whether the host occurs in `head` other than as part of another address or word.

    A name within a longer one (carrier.example in sbc.carrier.example) reveals the owner, and counts. A name without a
    dot counts behind "@" only, since "sip" and "allow" are also words of the protocol.
    """
    if ":" in host:
        before, after = r"(?<![0-9A-Fa-f:])", r"(?![0-9A-Fa-f:])"
    elif host.replace(".", "").isdigit():
        before, after = r"(?<![0-9.])", r"(?!\.?[0-9])"
    else:
        before, after = r"(?<![0-9A-Za-z_-])" if "." in host else "@", r"(?![0-9A-Za-z_-])"
    return re.search(before + re.escape(host) + after, head) is not None


def _needles(number: str) -> tuple[str, ...]:
    if not number:
        return ()
    # The national form is part of every other form of a Chinese number.
    national = number[2:] if number.startswith("86") and len(number) > 9 else number
    if len(national) >= 7:
        return (national,)
    return (f":{national}@", f":+{national}@", f"tel:{national}", f'"{national}"')


def leak_check_towards_callee(
    number: str, caller: Peer, caller_host: str, callee: Peer, host: str, ours: frozenset[str]
) -> LeakCheck:
    """The leak check towards the callee. `number`: the caller's, "" to let it pass; `host`: of the target in use."""
    hosts = (caller_host, *hosts_of(caller))
    return LeakCheck((number,), foreign_hosts(hosts, (*hosts_of(callee), host), ours))


def leak_check_towards_caller(
    number: str, callee: Peer, host: str, next_hop: str, caller: Peer, caller_host: str, ours: frozenset[str]
) -> LeakCheck:
    """The leak check towards the caller. `number`: the callee's, "" to let it pass; `host` of the target in use, and
    `next_hop` of the callee's dialog."""
    hosts = (*hosts_of(callee), host, next_hop)
    return LeakCheck((number,), foreign_hosts(hosts, (caller_host, *hosts_of(caller)), ours))


@lru_cache(maxsize=1024)  # few combinations in practice
def foreign_hosts(hosts: tuple[str, ...], own: tuple[str, ...], ours: frozenset[str]) -> tuple[str, ...]:
    """The hosts of the other side that would reveal it: without those of the receiver and of the relay, and without the
    parent domains of these (carrier.example of sbc.carrier.example)."""
    known = ours.union(own)
    return tuple({host for host in hosts if not any(name == host or name.endswith(f".{host}") for name in known)})
