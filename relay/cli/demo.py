"""`relay700 demo`: one call between two phones on this machine, and what each side got of the other.

The relay is a real `serve` on free loopback ports, with its store in a temporary folder. The phones are the two ends of
the probe: all that they send has marks, and all that they receive is searched for the other's.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM, default_int_handler, raise_signal, signal
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import click

from relay.cli import localised, say
from relay.cli.ladders import echo_ladder, read_ladder
from relay.cli.options import Opened, opened
from relay.cli.output import record_object, show_one
from relay.errors import RelayError
from relay.events.probe_call import Address, ProbeCall, Result, call
from relay.service import bindings, fields
from relay.service.placement import PlacementRequest
from relay.store import records

START_S: Final = 60.0  # limit for the relay and its backend to be ready; they take 2 to 3 s
NUMBER: Final = "700100000010001"
CALLER, CALLEE = "8613800000001", "8613900000002"
_FIELDS: Final = (
    *("number_dialled", "number_shown", "caller", "callee", "received_at", "answered_at", "ended_at"),
    *("outcome", "sip_status", "ended_by"),
)
_CONFIG: Final = """
[sip]
listen = ["udp:{relay}"]
drain_s = 1
[store]
url = {store}
key_file = {key_file}
[numbers]
prefixes = ["70010000001"]
[api]
listen = "{api}"
[capture]
keep = "all"
[log]
format = "json"
[[peer]]
name = "phone-a"
uri = "sip:{caller}"
numbers = ["138*"]
[[peer]]
name = "phone-b"
uri = "sip:{callee}"
numbers = []
[[route]]
peers = ["phone-b"]
"""
_NEXT: Final = """
Next:
  relay700 serve        start a relay with config/relay.toml; in a checkout of the source: ./scripts/run
  relay700 bind --help  connect two numbers of yours; in a checkout: .venv/bin/relay700
  README.md             a first call with two softphones; a first order over HTTP"""


class _Addresses(NamedTuple):
    relay: Address
    caller: Address
    callee: Address
    api: Address


@click.command()
@click.pass_context
def demo(context: click.Context) -> None:
    """Make one call on this machine, and show what crossed.

    Needs no configuration, phones or rights: it starts a relay on free ports of loopback addresses, plays both phones,
    and deletes all of it at the end. Exit status 0 if nothing of one phone reached the other, 1 otherwise.
    """
    signal(SIGINT, default_int_handler)  # a shell's background job begins with SIGINT ignored
    for each in (SIGTERM, SIGHUP):  # as Ctrl-C: the relay ends, and its folder is deleted
        signal(each, lambda *_: raise_signal(SIGINT))
    with TemporaryDirectory(prefix="relay700-demo-") as folder:
        config = Path(folder, "relay.toml")
        at = _free_addresses()
        config.write_text(_configuration(Path(folder), at), encoding="utf-8")
        with opened(config, make=True) as store:
            _bind(store)
            say(f"A phone at {at.caller[0]} dials {NUMBER}, at the relay, {at.relay[0]}.")
            say(f"The number is bound to a phone at {at.callee[0]}.\n")
            result = asyncio.run(_perform(config, at))
            _show_call(store)
    for line in _verdict(result):
        click.echo(line)
    say(_NEXT)
    context.exit(result.outcome != "proven")


# -- the relay


def _free_addresses() -> _Addresses:
    """Raises RelayError: not every system has all loopback addresses."""
    udp, tcp = socket.SOCK_DGRAM, socket.SOCK_STREAM
    return _Addresses(
        _free("127.0.0.1", udp), _free("127.0.0.3", udp), _free("127.0.0.2", udp), _free("127.0.0.1", tcp)
    )


def _free(host: str, kind: int) -> Address:
    with socket.socket(socket.AF_INET, kind) as probing:
        try:
            probing.bind((host, 0))
        except OSError as error:
            raise RelayError(f"{host} cannot be used: {error.strerror or error}") from error
        port: int = probing.getsockname()[1]
    return host, port


def _configuration(folder: Path, at: _Addresses) -> str:
    texts = {name: f"{host}:{port}" for name, (host, port) in at._asdict().items()}
    store, key_file = (json.dumps(text) for text in (f"sqlite:{folder}/relay.db", f"{folder}/relay.key"))
    return _CONFIG.format(**texts, store=store, key_file=key_file)


@asynccontextmanager
async def _relay(config: Path) -> AsyncIterator[None]:
    """A relay, from when it is ready until it has ended, with all captured messages in the store. Raises RelayError."""
    command = (sys.executable, "-P", "-m", "relay", "serve", "-c", str(config))
    # New session: Ctrl-C in a terminal must only reach this process, which then stops the relay.
    relay = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT, start_new_session=True)
    try:
        await _ready(relay)
        yield
    finally:
        with suppress(ProcessLookupError):
            relay.terminate()
        await relay.communicate()


async def _ready(relay: Process) -> None:
    assert relay.stdout is not None
    line = b""
    try:
        async with asyncio.timeout(START_S):
            async for line in relay.stdout:
                if b'"backend.ready"' in line:  # the last of the two
                    return
    except TimeoutError:
        raise RelayError(f"the relay was not ready after {START_S:.0f} s") from None
    raise RelayError(f"the relay has ended: {line.decode('utf-8', 'replace').strip()}")


# -- the call


def _bind(store: Opened) -> None:
    asked = {"mode": "AXB", "a": f"+{CALLER}", "b": f"+{CALLEE}", "x": NUMBER}
    store.run(
        lambda unit: bindings.bind(
            unit, PlacementRequest(fields.binding(asked, store.rules.parties, unit.now_ms)), store.rules
        )
    )


async def _perform(config: Path, at: _Addresses) -> Result:
    async with _relay(config):
        hosts = frozenset({at.relay[0]})
        return await call(ProbeCall(at.relay, hosts, CALLER, NUMBER, CALLEE, "phone-b", True, at.caller, at.callee))


# -- what it has shown


def _show_call(store: Opened) -> None:
    for record in records.read_all(store.reader, store.sealer, records.RecordFilter()):
        echo_ladder(read_ladder(store, record.call_id, clear=False, reason=""), withheld=False)
        say("\nIts call record, numbers masked:")
        values = record_object(record, clear=False)
        show_one({name: values[name] for name in _FIELDS}, as_json=False)
        click.echo()


def _verdict(result: Result) -> Iterator[str]:
    match result.outcome:
        case "failed":
            words = f"NOT PROVEN, the call did not get through: {result.reason}. The messages that the phones received:"
            yield localised(words)
        case "leak":
            yield from (localised(f"LEAK: {leak}") for leak in result.leaks)
            yield localised("The messages that the phones received:")
        case "proven":
            yield localised(
                "Proven: neither phone got anything of the other. Their numbers, names, addresses and cells were\n"
                f"in {result.marks} lines that they sent, and are not in the messages that they received:"
            )
    for received in result.received:
        yield localised(f"  {received}")
