"""The canary's lines."""

from __future__ import annotations

import pytest

from relay.privacy import canary_lines

LISTS = [name for name in vars(canary_lines) if name.isupper()]
PLAIN = {"ice-lite", "end-of-candidates", "setup:actpass", "connection:new", "Allow: OPTIONS, NOTIFY"}
PLAIN |= {"r=604800 3600 0 90000", "z=2882844526 -1h 2898848070 0"}


@pytest.mark.parametrize("name", LISTS)
def test_each_line_has_room_for_a_mark(name: str) -> None:
    lines = [line for line in getattr(canary_lines, name).strip().splitlines() if line not in PLAIN]
    marked = [line for line in lines if any(room in line for room in ("{w}", "{n}", "{h}", "{i}", "{c}"))]
    assert len(marked) >= 0.8 * len(lines)


def test_the_headers_of_the_contract_are_there() -> None:
    """Those that must not cross, besides X-*, P-* and the unknown."""
    names = {line.partition(":")[0].lower() for line in canary_lines.HEADERS.strip().splitlines()}
    wanted = """
        p-asserted-identity p-preferred-identity remote-party-id privacy diversion history-info p-called-party-id
        p-served-user referred-by identity p-access-network-info cellular-network-info p-visited-network-id geolocation
        p-charging-vector p-associated-uri feature-caps session-id cisco-guid user-to-user subject call-info alert-info
        error-info organization reply-to in-reply-to date timestamp warning accept-language user-agent server route
        record-route path authorization
    """
    assert set(wanted.split()) <= names
