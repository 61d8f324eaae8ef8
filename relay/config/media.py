"""Addresses of the rtpengine instances, each fault with its key path."""

from __future__ import annotations

import re
from ipaddress import ip_address

from relay.config.tables import MediaTable
from relay.net.settings import RtpengineAddress

_ADDRESS = re.compile(r"udp:(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})")
_HELP = 'write "udp:address:port", as rtpengine\'s listen-ng has it, such as "udp:127.0.0.1:2223"'


def read_rtpengine(table: MediaTable, problems: list[str]) -> tuple[RtpengineAddress, ...]:
    """Return the instances that anchor media; none where media go directly between peers."""
    if table.mode == "direct":
        return ()
    texts = (table.rtpengine,) if isinstance(table.rtpengine, str) else table.rtpengine or ()
    if not texts:
        problems.append(f'media.rtpengine: missing, and media.mode is "rtpengine"; {_HELP}')
    found: dict[str, RtpengineAddress] = {}
    for text in texts:
        address = _parse(text)
        if address is None:
            problems.append(f"media.rtpengine: {text!r} is not an rtpengine address; {_HELP}")
        elif text in found:
            problems.append(f"media.rtpengine: {text} is listed twice; leave one out")
        else:
            found[text] = address
    return tuple(found.values())


def _parse(text: str) -> RtpengineAddress | None:
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match[3]) <= 65535:
        return None
    try:
        host = ip_address(match[1] or match[2])
    except ValueError:
        return None
    return RtpengineAddress(text, str(host), int(match[3]))
