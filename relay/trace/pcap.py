"""A ladder as a pcap file, for Wireshark and sngrep: made-up frames around the messages of both sides.

Masked, messages and frames have the same stand-ins for addresses. Messages that came by TLS are written as TCP, port
5061 as 5060, so that they are not taken for TLS.
"""

from __future__ import annotations

import io
from ipaddress import ip_address

from dpkt import ethernet, ip, ip6, pcap, tcp, udp

from relay.trace.ladder import Ladder, LadderRow

_MOST: int = 65_000  # bytes of a message; a longer one is cut
_HOPS = 64
_LONGEST_FRAME = 262_144  # bytes; what tcpdump takes: readers cut frames at this length, by dpkt's default at 1,500


def ladder_pcap(ladder: Ladder) -> bytes:
    """The file. A retransmission is a frame like the first one."""
    file = io.BytesIO()
    writer = pcap.Writer(file, snaplen=_LONGEST_FRAME)
    frames = _Frames()
    sendings = sorted(
        ((at, row) for row in ladder.rows for at in (row.at_us, *row.again_at_us)), key=lambda each: each[0]
    )
    for at_us, row in sendings:
        writer.writepkt(frames.frame(row), at_us / 1e6)
    return file.getvalue()


class _Frames:
    """The frames of one file: TCP counts its bytes."""

    def __init__(self) -> None:
        self._sent: dict[tuple[str, str], int] = {}

    def frame(self, row: LadderRow) -> bytes:
        source, target = (row.local, row.remote) if row.sent else (row.remote, row.local)
        data = row.data[:_MOST]
        return _network(source, target, self._transport(source, target, data, row.transport))

    def _transport(self, source: str, target: str, data: bytes, transport: str) -> udp.UDP | tcp.TCP:
        ports = _port(source, transport), _port(target, transport)
        if transport == "udp":
            return udp.UDP(sport=ports[0], dport=ports[1], ulen=8 + len(data), data=data)
        seq = self._sent.get((source, target), 1)
        self._sent[source, target] = seq + len(data)
        flags = tcp.TH_ACK | tcp.TH_PUSH
        ack = self._sent.setdefault((target, source), 1)
        return tcp.TCP(sport=ports[0], dport=ports[1], seq=seq, ack=ack, flags=flags, win=65_535, data=data)


def _network(source: str, target: str, content: udp.UDP | tcp.TCP) -> bytes:
    hosts = [ip_address(address.rpartition(":")[0].strip("[]")) for address in (source, target)]
    protocol = ip.IP_PROTO_UDP if isinstance(content, udp.UDP) else ip.IP_PROTO_TCP
    macs = [b"\x02\x00" + host.packed[-4:] for host in hosts]
    addresses = {"src": hosts[0].packed, "dst": hosts[1].packed, "data": content}
    if hosts[0].version == 6:
        packet, kind = ip6.IP6(nxt=protocol, hlim=_HOPS, plen=len(content), **addresses), ethernet.ETH_TYPE_IP6
    else:
        packet, kind = ip.IP(p=protocol, ttl=_HOPS, len=20 + len(content), **addresses), ethernet.ETH_TYPE_IP
    return bytes(ethernet.Ethernet(dst=macs[1], src=macs[0], type=kind, data=packet))


def _port(address: str, transport: str) -> int:
    port = int(address.rpartition(":")[2])
    return 5060 if transport == "tls" and port == 5061 else port
