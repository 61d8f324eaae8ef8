"""A small authoritative DNS server on a loopback address, with records that tests write and change."""

from __future__ import annotations

import asyncio
from collections import Counter

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.support.addresses import free

DNS_HOST = "127.0.0.53"


class DnsServer(asyncio.DatagramProtocol):
    """`records`: (name, type) -> record texts. A name without records does not exist."""

    def __init__(self, records: dict[tuple[str, str], list[str]], ttl_s: int = 60) -> None:
        self.records = dict(records)
        self.ttl_s = ttl_s
        self.address = free(DNS_HOST)
        self.asked: Counter[tuple[str, str]] = Counter()
        self.silent = False  # answers no query
        self.refusing = False  # answers SERVFAIL
        self.broken: set[str | tuple[str, str]] = set()  # names, or their queries of one type, answered with SERVFAIL
        self._heard = asyncio.Event()
        self._transport: asyncio.DatagramTransport

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, (self.address.host, self.address.port))

    @property
    def server(self) -> tuple[str, int]:
        return self.address.host, self.address.port

    def close(self) -> None:
        self._transport.close()

    async def heard(self, name: str, kind: str, times: int) -> None:
        """Return once the query has come `count` times."""
        async with asyncio.timeout(10):
            while self.asked[name, kind] < times:
                self._heard.clear()
                await self._heard.wait()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind] += 1
        self._heard.set()
        if not self.silent:
            self._transport.sendto(self._answer(query, question.name, name, kind).to_wire(), addr)

    def _answer(self, query: dns.message.Message, full: dns.name.Name, name: str, kind: str) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        if self.refusing or not self.broken.isdisjoint([name, (name, kind)]):
            response.set_rcode(dns.rcode.SERVFAIL)
        elif not any(known == name for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif texts := self.records.get((name, kind)):
            response.answer.append(dns.rrset.from_text_list(full, self.ttl_s, "IN", kind, texts))
        return response
