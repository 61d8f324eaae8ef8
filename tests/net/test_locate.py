"""RFC 3263 by real packets: NAPTR, SRV, A and AAAA, times to live, and DNS that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest
from dns.nameserver import Do53Nameserver

from relay.model.settings import Listener, Peer, Settings, Target
from relay.net import locate
from relay.net.locate import MOST_TARGETS, NOTHING_S, Located, Locator
from relay.peers.peers import Peers
from tests.net.support import Log
from tests.support.dns_server import DnsServer

SRV = {
    ("_sip._udp.carrier.example", "SRV"): ["10 60 5070 sbc1.carrier.example.", "20 0 5080 sbc2.carrier.example."],
    ("sbc1.carrier.example", "A"): ["192.0.2.1", "192.0.2.2"],
    ("sbc2.carrier.example", "A"): ["192.0.2.3"],
}
UDP = Listener("udp", "127.0.0.10", 5060, "127.0.0.10")
TCP = Listener("tcp", "127.0.0.10", 5060, "127.0.0.10")
TLS = Listener("tls", "127.0.0.10", 5061, "127.0.0.10")
UDP6 = Listener("udp", "::1", 5060, "[::1]")


def target(host: str = "carrier.example", **changes: object) -> Target:
    values: dict[str, object] = {"port": 5060, "transport": "udp", "written": host, "search": "srv", **changes}
    return Target(host, **values)  # type: ignore[arg-type]


def settings(*targets: Target, listeners: tuple[Listener, ...] = (UDP, TCP, TLS)) -> Settings:
    peer = Peer("carrier", targets, False, (ip_network("192.0.2.0/24"),))
    return Settings(listeners, (peer,), (), ("70010000001",))


class Following:
    """A locator and its reports."""

    def __init__(self, server: DnsServer | None, *targets: Target, least_s: float = 0.05, **more: object) -> None:
        self.told: list[Located] = []
        self.log = Log()
        self._grown = asyncio.Event()
        servers = [server.server] if server else []
        self.locator = Locator(settings(*targets, **more), servers, self._tell, self.log.logger, least_s)  # type: ignore[arg-type]

    def _tell(self, located: Located) -> None:
        self.told.append(located)
        self._grown.set()

    async def told_times(self, times: int) -> list[Target]:
        """The carrier's targets in one report."""
        async with asyncio.timeout(10):
            while len(self.told) < times:
                self._grown.clear()
                await self._grown.wait()
        return list(self.told[times - 1]["carrier"])

    async def start(self) -> list[Target]:
        await self.locator.start(10)
        return list(self.locator.located().get("carrier", ()))

    def places(self) -> list[str]:
        return [f"{each.transport}:{each.host}:{each.port}" for each in self.locator.located()["carrier"]]


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    server = DnsServer(SRV)
    await server.start()
    yield server
    server.close()


async def found(server: DnsServer, *targets: Target, **more: object) -> list[str]:
    following = Following(server, *targets, least_s=60, **more)
    await following.start()
    await following.locator.close()
    return following.places()


async def test_srv_records_give_hosts_ports_priorities_and_weights(server: DnsServer) -> None:
    following = Following(server, target(priority=1), least_s=60)
    assert await following.start() == [
        Target("192.0.2.1", 5070, "udp", "carrier.example", 1, 60, srv_priority=10),
        Target("192.0.2.2", 5070, "udp", "carrier.example", 1, 60, srv_priority=10),
        Target("192.0.2.3", 5080, "udp", "carrier.example", 1, 0, srv_priority=20),
    ]
    assert following.told == []  # results at the start are not reported
    await following.locator.close()


async def test_without_srv_records_the_name_s_address_is_used(server: DnsServer) -> None:
    server.records = {("carrier.example", "A"): ["192.0.2.9"]}
    assert await found(server, target()) == ["udp:192.0.2.9:5060"]


async def test_a_uri_with_a_port_needs_no_srv_query(server: DnsServer) -> None:
    server.records[("carrier.example", "A")] = ["192.0.2.9"]
    assert await found(server, target(port=5099, search="address")) == ["udp:192.0.2.9:5099"]
    assert set(server.asked) == {("carrier.example", "A")}


async def test_addresses_of_every_listening_family_are_used(server: DnsServer) -> None:
    server.records = {("carrier.example", "A"): ["192.0.2.9"], ("carrier.example", "AAAA"): ["2001:db8::9"]}
    both = await found(server, target(search="address"), listeners=(UDP, UDP6))
    assert both == ["udp:192.0.2.9:5060", "udp:2001:db8::9:5060"]
    assert await found(server, target(search="address"), listeners=(UDP6,)) == ["udp:2001:db8::9:5060"]


NAPTR = {
    ("carrier.example", "NAPTR"): [
        '20 0 "s" "SIP+D2U" "" _sip._udp.carrier.example.',
        '10 1 "s" "SIP+D2T" "" _sip._tcp.elsewhere.example.',
        '10 0 "s" "SIPS+D2T" "" _sips._tcp.carrier.example.',
        '1 0 "u" "E2U+sip" "!^.*$!sip:x@evil.example!" .',
    ],
    ("_sips._tcp.carrier.example", "SRV"): ["0 0 5061 sbc1.carrier.example."],
    ("_sip._tcp.elsewhere.example", "SRV"): ["0 0 5062 sbc2.carrier.example."],
}


@pytest.mark.parametrize(
    ("listeners", "places"),
    [
        ((UDP, TCP, TLS), ["tls:192.0.2.1:5061", "tls:192.0.2.2:5061"]),
        ((UDP, TCP), ["tcp:192.0.2.3:5062"]),
        ((UDP,), ["udp:192.0.2.1:5070", "udp:192.0.2.2:5070", "udp:192.0.2.3:5080"]),
    ],
)
async def test_naptr_chooses_the_transport(
    server: DnsServer, listeners: tuple[Listener, ...], places: list[str]
) -> None:
    server.records |= NAPTR
    assert await found(server, target(search="naptr"), listeners=listeners) == places


async def test_a_sips_uri_uses_only_tls(server: DnsServer) -> None:
    server.records |= NAPTR
    sips = target(search="naptr", transport="tls", port=5061)
    assert await found(server, sips) == ["tls:192.0.2.1:5061", "tls:192.0.2.2:5061"]
    del server.records["_sips._tcp.carrier.example", "SRV"]
    server.records["carrier.example", "A"] = ["192.0.2.9"]
    assert await found(server, sips) == ["tls:192.0.2.9:5061"]


async def test_without_naptr_records_srv_chooses_the_transport(server: DnsServer) -> None:
    server.records["_sip._tcp.carrier.example", "SRV"] = ["0 0 5062 sbc2.carrier.example."]
    assert (await found(server, target(search="naptr")))[0] == "udp:192.0.2.1:5070"
    del server.records["_sip._udp.carrier.example", "SRV"]
    assert await found(server, target(search="naptr")) == ["tcp:192.0.2.3:5062"]


async def test_an_srv_record_with_a_root_target_means_no_service(server: DnsServer) -> None:
    server.records = {("_sip._udp.carrier.example", "SRV"): ["0 0 0 ."], ("carrier.example", "A"): ["192.0.2.9"]}
    assert await found(server, target()) == []


async def test_ipv6_addresses_are_logged_in_brackets(server: DnsServer) -> None:
    server.records = {("carrier.example", "AAAA"): ["2001:db8::9"]}
    following = Following(server, target(search="address"), least_s=60, listeners=(UDP6,))
    await following.start()
    await following.locator.close()
    (event,) = following.log.events(lambda event: event["event"] == "peer.located")
    assert event["targets"] == ["udp:[2001:db8::9]:5060"]


async def test_targets_by_name_and_by_address_can_be_mixed(server: DnsServer) -> None:
    literal = Target("192.0.2.77", 5060, "udp", "192.0.2.77", 5)
    server.records = {("b.example", "A"): ["192.0.2.9"]}
    assert await found(server, literal, target("b.example")) == ["udp:192.0.2.77:5060", "udp:192.0.2.9:5060"]


async def test_a_configured_priority_goes_before_that_of_srv_records(server: DnsServer) -> None:
    first, backup = target(), Target("192.0.2.77", 5060, "udp", "192.0.2.77", 1)
    following = Following(server, first, backup, least_s=60)
    peers = Peers(settings(first, backup))
    await following.start()
    peers.locate(following.locator.located())
    hosts = [each.configured.host for each in peers.targets_of("carrier")]
    assert hosts == ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.77"]
    await following.locator.close()


async def test_answers_are_refreshed_after_their_time_to_live(server: DnsServer) -> None:
    server.ttl_s = 0
    server.records = {("carrier.example", "A"): ["192.0.2.9"]}
    following = Following(server, target(search="address"))
    await following.start()
    server.records = {("carrier.example", "A"): ["192.0.2.10"]}
    assert [each.host for each in await following.told_times(1)] == ["192.0.2.10"]
    await following.locator.close()


async def test_answers_are_not_refreshed_before_their_time_to_live(server: DnsServer) -> None:
    following = Following(server, target())
    await following.start()
    (name,) = following.locator._names
    assert name.due - asyncio.get_running_loop().time() > 50
    await following.locator.close()


@pytest.mark.parametrize("how", ["refusing", "silent"])
async def test_the_last_answer_holds_while_dns_does_not_answer(
    server: DnsServer, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate, "PATIENCE_S", 0.2)
    server.ttl_s = 0
    server.records = {("carrier.example", "A"): ["192.0.2.9"]}
    following = Following(server, target(search="address"))
    await following.start()
    setattr(server, how, True)
    times = server.asked["carrier.example", "A"]
    await server.heard("carrier.example", "A", times + 2)
    assert following.places() == ["udp:192.0.2.9:5060"]
    assert following.told == []
    server.records = {("carrier.example", "A"): ["192.0.2.10"]}
    setattr(server, how, False)
    assert [each.host for each in await following.told_times(1)] == ["192.0.2.10"]
    await following.locator.close()
    lost = following.log.events(lambda event: event["event"] == "peer.not_located")
    assert [(event["peer"], event["name"]) for event in lost] == [("carrier", "carrier.example")]


async def test_an_unresolved_srv_host_does_not_affect_the_others(server: DnsServer) -> None:
    server.broken = {"sbc1.carrier.example"}
    assert await found(server, target()) == ["udp:192.0.2.3:5080"]


async def test_an_srv_host_keeps_its_addresses_while_dns_does_not_answer_for_it(server: DnsServer) -> None:
    """It is asked for again soon, not after the time to live of the others."""
    server.ttl_s = 3600
    for number in (1, 2):
        server.records[f"sbc{number}.carrier.example", "AAAA"] = [f"2001:db8::{number}"]
    search = locate.Search((UDP, UDP6), [server.server])
    before, ttl_s = await search.find(target())
    assert (len(before), ttl_s > NOTHING_S) == (5, True)
    one: tuple[str | tuple[str, str], ...] = (("sbc1.carrier.example", "A"), ("sbc1.carrier.example", "AAAA"))
    for broken in (*one, "sbc1.carrier.example"):
        server.broken = {broken}
        found, ttl_s = await search.find(target())
        assert (set(found), ttl_s) == (set(before), NOTHING_S)


async def test_a_failed_srv_query_does_not_lead_to_the_domain_s_own_address(server: DnsServer) -> None:
    """Of that the system's resolver knows, as a web host's for instance."""
    server.records = {("_sip._udp.localhost", "SRV"): ["10 0 5070 sbc1.carrier.example."], **SRV}
    server.ttl_s = 0
    following = Following(None, target("localhost"))
    following.locator._search._resolver.nameservers = [Do53Nameserver(*server.server)]  # type: ignore[union-attr]
    before = await following.start()
    server.broken = {"_sip._udp.localhost"}
    await server.heard("_sip._udp.localhost", "SRV", server.asked["_sip._udp.localhost", "SRV"] + 2)
    assert list(following.locator.located()["carrier"]) == before
    assert {each.host for each in before} == {"192.0.2.1", "192.0.2.2"}
    await following.locator.close()


async def test_a_name_not_found_yet_is_asked_for_again_soon_after_a_failed_srv_query(server: DnsServer) -> None:
    server.broken = {"_sip._udp.localhost"}
    search = locate.Search((UDP,), [])
    search._resolver.nameservers = [Do53Nameserver(*server.server)]  # type: ignore[union-attr]
    found, ttl_s = await search.find(target("localhost"))
    assert ([each.host for each in found], ttl_s) == (["127.0.0.1"], NOTHING_S)


async def test_srv_without_any_resolved_host_is_a_failure(server: DnsServer) -> None:
    server.ttl_s = 0
    following = Following(server, target())
    before = await following.start()
    server.broken = {"sbc1.carrier.example", "sbc2.carrier.example"}
    await server.heard("_sip._udp.carrier.example", "SRV", 3)
    assert list(following.locator.located()["carrier"]) == before
    await following.locator.close()


async def test_a_deleted_name_has_no_targets(server: DnsServer) -> None:
    server.ttl_s = 0
    server.records = {("carrier.example", "A"): ["192.0.2.9"]}
    following = Following(server, target(search="address"))
    await following.start()
    server.records = {}
    assert await following.told_times(1) == []
    await following.locator.close()


async def test_results_of_the_former_locator_hold_while_dns_does_not_answer(server: DnsServer) -> None:
    former = Following(server, target(), target("other.example", search="address"))
    await former.start()
    server.silent = True
    log = Log().logger
    following = Locator(settings(target()), [server.server], former.told.append, log, former=former.locator)
    await following.start(0.05)
    assert [each.host for each in following.located()["carrier"]] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    await former.locator.close()
    await following.close()


async def test_the_start_does_not_wait_for_unanswered_queries(server: DnsServer) -> None:
    server.silent = True
    following = Following(server, target())
    await following.locator.start(0.05)
    assert following.places() == ["udp:carrier.example:5060"]  # as configured
    await following.locator.close()


async def test_a_slow_name_does_not_delay_the_others(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "LONGEST_S", 0.2)
    server.silent = True
    following = Following(server, target(), least_s=60)
    await following.start()  # not PATIENCE_S per query
    (lost,) = following.log.events(lambda event: event["event"] == "peer.not_located")
    assert lost["reason"] == "no answer within 0.2 s"
    await following.locator.close()


async def test_the_number_of_records_considered_is_limited(server: DnsServer) -> None:
    many = range(MOST_TARGETS + 10)
    server.records = {
        ("_sip._udp.carrier.example", "SRV"): [f"50 1 {5000 + each} sbc{each}.carrier.example." for each in many],
        **{(f"sbc{each}.carrier.example", "A"): [f"192.0.{each}.{last}" for last in many] for each in many},
        ("zzz.carrier.example", "A"): ["198.51.100.1"],
    }
    server.records["_sip._udp.carrier.example", "SRV"].append("10 1 5070 zzz.carrier.example.")
    search = locate.Search((UDP,), [server.server])
    targets, _ = await search.find(target())
    assert ("198.51.100.1", 5070) in [(each.host, each.port) for each in targets]
    assert len(targets) == (MOST_TARGETS - 1) * MOST_TARGETS + 1
    assert len([name for name, _ in server.asked if name.startswith("sbc")]) == MOST_TARGETS - 1


async def test_the_system_s_resolver_finds_names_that_dns_lacks() -> None:
    following = Following(None, target("localhost", search="address"))
    await following.start()
    assert following.places() == ["udp:127.0.0.1:5060"]
    await following.locator.close()


async def test_peers_by_address_cause_no_queries(server: DnsServer) -> None:
    following = Following(server, target("192.0.2.7"))
    await following.locator.start(10)
    await following.locator.close()
    assert (following.told, following.locator.located(), server.asked) == ([], {}, {})
