"""The targets of peers configured by host name: DNS look-ups (RFC 3263), repeated as records expire.

One look-up follows NAPTR, SRV, A and AAAA records of the configured servers, or asks the system's resolver.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.resolver
from dns.rdata import Rdata
from dns.rdtypes.IN.NAPTR import NAPTR
from dns.rdtypes.IN.SRV import SRV
from structlog.typing import FilteringBoundLogger

from relay.errors import RelayError
from relay.model.settings import Listener, Settings, Target, Transport
from relay.net.hosts import family_of, is_literal
from relay.sip.message import transport_address

PATIENCE_S = 4.0  # limit per query
NOTHING_S = 15.0  # time to live of a negative answer, and of the others with a query that failed
SYSTEM_KEPT_S = 60.0  # time to live of the system resolver's answers, which have none
MOST_TARGETS = 32  # per name; also the number of records considered in each step
MOST_KEPT = 1_000  # hosts whose last addresses are kept, by address family

# RFC 3263 4.1, 4.2: "_sips._tcp" is SIP over TLS.
_SERVICES: dict[str, Transport] = {"SIP+D2U": "udp", "SIP+D2T": "tcp", "SIPS+D2T": "tls"}
_SRV_PREFIX: dict[Transport, str] = {"udp": "_sip._udp", "tcp": "_sip._tcp", "tls": "_sips._tcp"}


class NotLocated(RelayError):
    """DNS did not answer; a negative answer is not an error. `kept`: the host's last addresses."""

    kept: Sequence[str] = ()


class Search:
    """RFC 3263 look-ups for the transports of our listeners."""

    def __init__(self, listeners: Sequence[Listener], servers: Sequence[tuple[str, int]]) -> None:
        self._families: dict[Transport, set[socket.AddressFamily]] = {}
        for listener in listeners:
            self._families.setdefault(listener.transport, set()).add(family_of(listener.host))
        self._ask_system = not servers
        self._kept: dict[tuple[str, socket.AddressFamily], list[str]] = {}
        self._resolver: dns.asyncresolver.Resolver | None = None
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration:  # no /etc/resolv.conf: the system's resolver may still know hosts
            return
        if servers:
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in servers]

    async def find(self, target: Target, *, is_known: bool = False) -> tuple[list[Target], float]:
        """The addresses of a target's name, and their time to live in seconds. Raises NotLocated.

        `is_known`: it has been found before. Then a failed NAPTR or SRV query is no reason to go to the name's own
        address, where RFC 3263 4.2 has the calls go only if there are no SRV records.
        """
        try:
            return await self._by_records(target)
        except NotLocated:
            if is_known and target.search != "address":
                raise
            addresses = await self._of_system(target.host, target.transport)
            if not addresses:
                raise
            return _at(target, addresses), NOTHING_S

    async def _by_records(self, target: Target) -> tuple[list[Target], float]:
        transports: tuple[Transport, ...] = (target.transport,)
        if target.search == "naptr":
            found, ttl_s = await self._by_naptr(target)
            if found:
                return found, ttl_s
            if target.transport == "udp":  # RFC 3263 4.1: any transport that we support; sips: implies TLS
                transports = ("udp", "tcp")
        if target.search != "address":
            for transport in transports:
                services = await self._by_srv(f"{_SRV_PREFIX[transport]}.{target.host}", target, transport)
                if services is not None:
                    return services
        addresses, ttl_s = await self._addresses(target.host, target.transport)
        return _at(target, addresses), ttl_s

    async def _by_naptr(self, target: Target) -> tuple[list[Target], float]:
        """RFC 3263 4.1: the domain's most preferred transport that we support."""
        records, ttl_s = await self._ask(target.host, "NAPTR")
        offered = sorted([each for each in records if isinstance(each, NAPTR)], key=_naptr_order)
        for record in offered[:MOST_TARGETS]:
            transport = _SERVICES.get(record.service.decode("ascii", "replace").upper())
            if record.flags.lower() != b"s" or transport not in self._families:
                continue
            if target.transport == "tls" and transport != "tls":  # a sips: URI
                continue
            found = await self._by_srv(record.replacement.to_text(), target, transport)
            if found is not None and found[0]:
                return found[0], min(found[1], ttl_s)
        return [], ttl_s

    async def _by_srv(self, name: str, target: Target, transport: Transport) -> tuple[list[Target], float] | None:
        """None if there are no SRV records, or the transport is not supported (RFC 3263 4.2, RFC 2782)."""
        if transport not in self._families:
            return None
        records, ttl_s = await self._ask(name, "SRV")
        services = [each for each in records if isinstance(each, SRV)]
        if not services:
            return None
        if [each.target for each in services] == [dns.name.root]:  # "decidedly not available"
            return [], ttl_s
        services = sorted(services, key=_srv_order)[:MOST_TARGETS]
        hosts = sorted({each.target.to_text(omit_final_dot=True) for each in services})
        answers = await asyncio.gather(*[self._addresses(host, transport) for host in hosts], return_exceptions=True)
        addresses: dict[str, Sequence[str]] = {}
        for host, answer in zip(hosts, answers, strict=True):
            if isinstance(answer, NotLocated):
                answer = answer.kept, NOTHING_S  # the other hosts may still serve
            if isinstance(answer, BaseException):
                raise answer
            addresses[host], ttl_s = answer[0], min(ttl_s, answer[1])
        if all([isinstance(answer, NotLocated) for answer in answers]):
            raise NotLocated(f"no address of {name}")
        found = [
            replace(
                target,
                host=address,
                port=each.port,
                transport=transport,
                weight=each.weight,
                search="address",
                srv_priority=each.priority,
            )
            for each in services
            for address in addresses.get(each.target.to_text(omit_final_dot=True), ())
        ]
        return found, ttl_s

    async def _addresses(self, host: str, transport: Transport) -> tuple[Sequence[str], float]:
        """Addresses in the families in which a listener has the transport."""
        kinds = {socket.AF_INET: "A", socket.AF_INET6: "AAAA"}
        addresses: list[str] = []
        ttls_s: list[float] = []
        failure: NotLocated | None = None
        is_found = False
        for family in sorted(self._families.get(transport, ())):
            try:
                records, ttl_s = await self._ask(host, kinds[family])
            except NotLocated as error:
                failure, ttl_s = error, NOTHING_S
            else:
                self._keep(host, family, [record.to_text() for record in records[:MOST_TARGETS]])
                is_found = is_found or bool(records)
            addresses += self._kept.get((host, family), ())
            ttls_s.append(ttl_s)
        if is_found:
            return addresses, min(ttls_s)
        if failure is not None:
            failure.kept = addresses
            raise failure
        addresses = await self._of_system(host, transport)
        return addresses, SYSTEM_KEPT_S if addresses else NOTHING_S

    def _keep(self, host: str, family: socket.AddressFamily, addresses: list[str]) -> None:
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[host, family] = addresses

    async def _of_system(self, host: str, transport: Transport) -> list[str]:
        """Addresses by the system's resolver (/etc/hosts, search domains, …); none if DNS servers are configured."""
        found: list[str] = []
        if not self._ask_system:
            return found
        for family in sorted(self._families.get(transport, ())):
            try:
                answers = await asyncio.get_running_loop().getaddrinfo(
                    host, None, family=family, type=socket.SOCK_DGRAM
                )
            except (OSError, ValueError):  # ValueError: an invalid host name (a label over 63 octets, …)
                continue
            found += [str(answer[4][0]) for answer in answers]
        return list(dict.fromkeys(found))

    async def _ask(self, name: str, kind: str) -> tuple[list[Rdata], float]:
        """The records of a type, none if the name does not exist, and their time to live. Raises NotLocated."""
        if self._resolver is None:
            return [], SYSTEM_KEPT_S
        absolute = name if name.endswith(".") else name + "."
        try:
            answer = await self._resolver.resolve(absolute, kind, raise_on_no_answer=False, lifetime=PATIENCE_S)
        except dns.resolver.NXDOMAIN:
            return [], NOTHING_S
        except (dns.exception.DNSException, OSError) as error:
            raise NotLocated(f"{kind} of {name}: {type(error).__name__}") from error
        if answer.rrset is None:
            return [], NOTHING_S
        return list(answer.rrset), max(answer.expiration - time.time(), 0.0)


def _naptr_order(record: NAPTR) -> tuple[int, int]:
    return record.order, record.preference


def _srv_order(record: SRV) -> tuple[int, int]:
    return record.priority, -record.weight


def _at(target: Target, addresses: Sequence[str]) -> list[Target]:
    return [replace(target, host=address, search="address") for address in addresses]


# -- All peers configured by name

Located = Mapping[str, tuple[Target, ...]]

LONGEST_S = 15.0  # limit for one name; the names due with it wait
LEAST_S = 5.0  # shortest interval between two look-ups of a name, whatever its time to live
AGAIN = 3  # interval after a failure, in units of LEAST_S
MOST_S = 3600.0  # longest interval


@dataclass(slots=True)
class _Name:
    """One target configured by host name."""

    peer: str
    target: Target
    found: list[Target] | None  # None: not looked up yet
    due: float  # loop time
    is_lost: bool = False  # the last look-up failed


class Locator:
    """Keeps the names of all peers resolved. `changed` gets all targets of each peer whose addresses changed."""

    def __init__(
        self,
        settings: Settings,
        servers: Sequence[tuple[str, int]],
        changed: Callable[[Located], None],
        log: FilteringBoundLogger,
        least_s: float = LEAST_S,
        former: Locator | None = None,
    ) -> None:
        """`servers`: addresses and ports of DNS servers; empty: those of the system, then its own resolver.

        `former`: the locator of the previous configuration; its results hold until refreshed.
        """
        self._search = Search(settings.listeners, servers)
        self._changed = changed
        self._log = log
        self._least_s = least_s
        self._targets = {peer.name: peer.targets for peer in settings.peers}
        self._names = [
            _Name(peer, target, None if former is None else former.found(target), 0.0)
            for peer, targets in self._targets.items()
            for target in targets
            if not is_literal(target.host)
        ]
        self._first = asyncio.Event()
        self._is_followed = False
        self._task: asyncio.Task[None] | None = None

    def found(self, target: Target) -> list[Target] | None:
        """The addresses found for a target; None if not looked up yet."""
        return next((name.found for name in self._names if name.target == target), None)

    async def start(self, limit_s: float) -> None:
        """Return when each name was looked up once, or after `limit_s`. Only then is `changed` called."""
        if not self._names:
            return
        self._task = asyncio.create_task(self._run(), name="locator")
        waiting = asyncio.create_task(self._first.wait())
        await asyncio.wait([waiting, self._task], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._is_followed = True

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def located(self) -> Located:
        """The targets of each peer configured by name: as resolved, or as configured if never resolved."""
        named = {name.peer for name in self._names}
        return {peer: self._of(peer) for peer in self._targets if peer in named}

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(min(name.due for name in self._names) - loop.time(), 0))
            due = [name for name in self._names if name.due <= loop.time()]
            before = {name.peer: self._of(name.peer) for name in due}
            await asyncio.gather(*[self._look_up(name) for name in due])
            after = {peer: self._of(peer) for peer in before}
            changes = {peer: targets for peer, targets in after.items() if targets != before[peer]}
            if changes:
                self._report(changes)
            self._first.set()

    def _report(self, changes: Located) -> None:
        for peer, targets in changes.items():
            addresses = [transport_address(target.transport, target.host, target.port) for target in targets]
            self._log.info("peer.located", peer=peer, targets=addresses)
        if self._is_followed:
            self._changed(changes)

    async def _look_up(self, name: _Name) -> None:
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(LONGEST_S):
                found, ttl_s = await self._search.find(name.target, is_known=name.found is not None)
        except (NotLocated, TimeoutError) as error:
            if not name.is_lost:
                reason = str(error) or f"no answer within {LONGEST_S:g} s"
                self._log.warning("peer.not_located", peer=name.peer, name=name.target.host, reason=reason)
            name.is_lost, name.due = True, now + AGAIN * self._least_s
            return
        if not found and name.found != []:
            self._log.warning("peer.not_located", peer=name.peer, name=name.target.host, reason="no address")
        name.is_lost, name.found = False, sorted(found, key=_order)[:MOST_TARGETS]
        name.due = now + min(max(ttl_s, self._least_s), MOST_S)

    def _of(self, peer: str) -> tuple[Target, ...]:
        found = {name.target: name.found for name in self._names if name.peer == peer}
        targets = (found.get(target) if found.get(target) is not None else [target] for target in self._targets[peer])
        return tuple(chain.from_iterable(each or () for each in targets))


def _order(target: Target) -> tuple[int, int, str, int]:
    return target.srv_priority, -target.weight, target.host, target.port
