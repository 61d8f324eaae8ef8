"""The admin socket, a Unix socket beside the store; and the log lines and commands of bans.

A request and an answer are one line of JSON each. Mode 0600: access to the store implies access to it. It owns framing
and errors; the handlers define the commands. It never waits for the store or for a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
from structlog.typing import FilteringBoundLogger

from relay.defence.bans import Ban, Bans, source_of
from relay.defence.limits import Rates
from relay.errors import Refused

Answer = dict[str, Any]
Handlers = Mapping[str, Callable[..., Answer | Awaitable[Answer]]]
MAX_REQUEST = 64 * 1024  # bytes
MAX_ANSWER = 64 * 1024 * 1024
ANSWER_S = 1.0
_LINE = msgspec.json.Decoder(dict[str, Any])


def control_path(store: Path) -> Path:
    return store.with_name(store.name + ".control")


class ControlServer:
    """Serves commands by name. A handler takes the request's fields as keywords and returns a JSON object, or awaits
    one."""

    def __init__(self, path: Path, handlers: Handlers) -> None:
        """Refused, and fields that a handler does not know, are answered as errors."""
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Bind and listen. Hold the store's lock: a socket left by an earlier process is replaced. Raises OSError."""
        self._path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short(self._path) as address:
            listening.bind(address)
            os.chmod(self._path, 0o600)  # before `listen`, so no client can connect earlier
        self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=MAX_REQUEST)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                await writer.drain()
        except (OSError, ValueError):  # disconnected, or a line above MAX_REQUEST
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = _LINE.decode(line)
        except msgspec.DecodeError as error:
            return {"error": "invalid", "problem": type(error).__name__}
        return await _answer_to(self._handlers, str(request.pop("ask", "")), request)


async def _answer_to(handlers: Handlers, name: str, fields: Answer) -> Answer:
    """Call the handler of a command. Returns {"answer": …}, or {"error": …, "problem": …} and perhaps "field"."""
    handler = handlers.get(name)
    if handler is None:
        return {"error": "unknown", "problem": "unknown command"}
    try:
        answer = handler(**fields)
        return {"answer": answer if isinstance(answer, dict) else await answer}
    except Refused as error:
        return {"error": error.kind, "field": error.field, "problem": error.problem}
    except TypeError as error:
        return {"error": "invalid", "problem": type(error).__name__}


class ControlClient:
    """A client of the relay that serves a store. Each request opens a new connection: the relay may have restarted."""

    def __init__(self, path: Path, patience_s: float = ANSWER_S) -> None:
        self._path = path
        self._patience_s = patience_s

    async def ask(self, name: str, **fields: object) -> Answer:
        """Send a command. Raises Refused: the handler's error, or `relay_unavailable` if no answer comes in time."""
        try:
            async with asyncio.timeout(self._patience_s):
                line = await self._exchange(msgspec.json.encode({"ask": name, **fields}) + b"\n")
            reply = _LINE.decode(line)
        except (OSError, ValueError, TimeoutError, msgspec.DecodeError):
            raise Refused("relay_unavailable", "", "the relay is not running, or does not answer") from None
        if "error" in reply:
            raise Refused(reply["error"], reply.get("field", ""), reply["problem"])
        answer: Answer = reply["answer"]
        return answer

    async def _exchange(self, request: bytes) -> bytes:
        with _short(self._path) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=MAX_ANSWER)
        try:
            writer.write(request)
            return await reader.readline()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """The socket's path by way of its folder's descriptor: Unix addresses are limited to 107 bytes, paths are not."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class SharedAnswers:
    """A short-lived cache of answers, so that many HTTP clients cost the relay few queries."""

    def __init__(self, client: ControlClient, fresh_s: Mapping[str, float]) -> None:
        """`fresh_s`: cache lifetime by command, seconds; other commands are not cached."""
        self._client = client
        self._fresh_s = fresh_s
        self._kept: dict[tuple[str, frozenset[tuple[str, object]]], tuple[float, asyncio.Task[Answer]]] = {}

    async def ask(self, name: str, **fields: object) -> Answer:
        """As `ControlClient.ask`. The answer is shared: do not change it."""
        fresh_s = self._fresh_s.get(name)
        if fresh_s is None:
            return await self._client.ask(name, **fields)
        now = asyncio.get_running_loop().time()
        key = (name, frozenset(fields.items()))
        until, asking = self._kept.get(key, (0.0, None))
        if asking is None or (asking.done() and until <= now):
            self._kept = {key: kept for key, kept in self._kept.items() if kept[0] > now}
            asking = asyncio.create_task(self._client.ask(name, **fields))
            self._kept[key] = (now + fresh_s, asking)
        return await asyncio.shield(asking)


# -- Bans as operators see them

LOGGED_PER_S = 10
LONGEST_S = 366 * 86_400.0
OPERATOR = "operator"  # reason of a ban made by command, if none is given


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
    """Handlers of the admin socket for bans."""

    def __init__(self, bans: Bans) -> None:
        self._bans = bans

    def by_name(self) -> Mapping[str, Callable[..., Answer]]:
        """The handlers by command name, for `ControlServer`."""
        return {"bans": self.bans, "ban": self.ban, "unban": self.unban}

    def bans(self) -> Answer:
        """Bans in force, the earliest end first; times in Unix milliseconds."""
        return {"bans": [_shown(ban) for ban in self._bans.in_force()]}

    def ban(self, address: str, for_s: float, reason: str = "", dry_run: bool = False) -> Answer:
        """Ban an address for `for_s` seconds, or change the end of its ban. `dry_run`: check only. Raises Refused."""
        now = time.monotonic()
        if not 0 < for_s <= LONGEST_S:
            raise Refused("invalid", "for_s", "must be above 0 and at most 366 days")
        source = read_source(address)
        if dry_run:
            if self._bans.knows(source, now):
                raise _trusted()
            return {}
        ban = Ban(source, reason or OPERATOR, now, now + for_s)
        try:
            self._bans.ban(source, ban.until, now, ban.reason)
        except ValueError:
            raise _trusted() from None
        return _shown(ban)

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
