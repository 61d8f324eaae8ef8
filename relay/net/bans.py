"""Bans as operators see them: log lines, and the commands of the control socket."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network

from structlog.typing import FilteringBoundLogger

from relay.call.bans import Ban, Bans, source_of
from relay.call.rates import Rates
from relay.errors import Refused
from relay.net.control import Answer

LOGGED_PER_S = 10
LONGEST_S = 366 * 86_400.0
OPERATOR = "operator"  # reason of a ban made by command


class BanLog:
    """A listener of `Bans` that logs starts and ends, at most `LOGGED_PER_S`, with the number of lines left out."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._rates = Rates()
        self._left_out = 0

    def __call__(self, event: str, ban: Ban) -> None:
        if not self._rates.admit("", LOGGED_PER_S, time.monotonic()):
            self._left_out += 1
            return
        fields: dict[str, object] = {"source": ban.source, "reason": ban.reason}
        if event == "banned":
            fields["for_s"] = round(ban.until - ban.since)
        if self._left_out:
            fields["left_out"], self._left_out = self._left_out, 0
        write = self._log.info if event == "unbanned" else self._log.warning
        write(f"source.{event}", **fields)


class BanAnswers:
    """Control-socket handlers for bans."""

    def __init__(self, bans: Bans) -> None:
        self._bans = bans

    def by_name(self) -> Mapping[str, Callable[..., Answer]]:
        """The handlers by command name, for `ControlServer`."""
        return {"bans": self.bans, "ban": self.ban, "unban": self.unban}

    def bans(self) -> Answer:
        """Bans in force, the earliest end first; times in Unix milliseconds."""
        return {"bans": [_shown(ban) for ban in self._bans.in_force()]}

    def ban(self, address: str, for_s: float, dry_run: bool = False) -> Answer:
        """Ban an address for `for_s` seconds, or change the end of its ban. `dry_run`: check only. Raises Refused."""
        now = time.monotonic()
        if not 0 < for_s <= LONGEST_S:
            raise Refused("invalid", "for_s", "must be above 0 and at most 366 days")
        source = read_source(address)
        if dry_run:
            if self._bans.knows(source, now):
                raise _trusted()
            return {}
        try:
            self._bans.ban(source, now + for_s, now, OPERATOR)
        except ValueError:
            raise _trusted() from None
        return _shown(Ban(source, OPERATOR, now, now + for_s))

    def unban(self, address: str | None = None, dry_run: bool = False) -> Answer:
        """Lift one ban, or all. `dry_run`: only list them. Raises Refused if the address is not banned."""
        lifted = self._named(address)
        for source in () if dry_run else lifted:
            self._bans.lift(source)
        return {"lifted": lifted}

    def _named(self, address: str | None) -> list[str]:
        if address is None:
            return [ban.source for ban in self._bans.in_force()]
        for source in (read_source(address), source_of(address)):
            if self._bans.is_in_force(source):
                return [source]
        raise Refused("not_found", "address", "is not banned")


def _trusted() -> Refused:
    """The refusal to ban a trusted source."""
    problem = "belongs to a peer or a live call: remove the peer from the configuration first"
    return Refused("state_conflict", "address", problem)


def read_source(text: str) -> str:
    """Parse an address, or an IPv6 /64 network, to the form of `Ban.source`. Raises Refused."""
    try:
        if "/" not in text:
            return source_of(str(ip_address(text)), exact=True)
        network = ip_network(text)
    except ValueError:
        raise Refused("invalid", "address", "not an address: write one such as 192.0.2.1 or 2001:db8::1") from None
    if network.version == 6 and network.prefixlen == 64:
        return str(network)
    raise Refused("invalid", "address", "only IPv6 /64 networks can be banned, such as 2001:db8::/64")


def _shown(ban: Ban) -> Answer:
    offset_s = time.time() - time.monotonic()
    moments = {"since": int((ban.since + offset_s) * 1000), "until": int((ban.until + offset_s) * 1000)}
    return {"address": ban.source, "reason": ban.reason, **moments}
