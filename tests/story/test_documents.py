"""Examples of the documents work as pasted: bash, curl and Python beside a running relay."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

from relay.net.hook_client import HookClient, HookEndpoint
from tests.interop.conftest import running_relay
from tests.story.calls import Ends, call
from tests.story.company import INBOX, PATIENCE_S, Client
from tests.support.addresses import RELAY, Address, free
from tests.support.phone import Phone
from tests.support.product import RELAY700
from tests.support.relay_process import Setup

pytestmark = pytest.mark.outside

COURIER, CUSTOMER = "13800000001", "13900000002"
FIRST_ORDER = Path("README.md").read_text().split("\n## A first order over HTTP\n")[1].split("\n## ")[0]
SET_UP, ORDER, EXPLAIN, CALLS = (
    dedent(block) for block in re.findall(r"^ +```\n(.*?)^ +```$", FIRST_ORDER, re.M | re.S)
)
SIGNED, RECEIVER = re.findall(r"^```python\n(.*?)^```$", Path("docs/API.md").read_text(), re.M | re.S)
(HOOK,) = re.findall(r"^```python\n(.*?)^```$", Path("docs/HOOKS.md").read_text(), re.M | re.S)


class Backend(NamedTuple):
    """A running relay with its phones and its HTTP interface."""

    ends: Ends
    api: str

    async def paste(self, *texts: str) -> str:
        """Run the lines in bash and return its output. They use addresses and commands as in config/relay.toml."""
        command = shlex.join([*RELAY700, "keys", "make", "-c", str(self.ends.relay.config)])
        script = "\n".join(texts).replace(".venv/bin/relay700 keys make", command)
        return await output("bash", "-euc", script.replace("http://127.0.0.1:8700", self.api))


async def output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    out, errors = await process.communicate()
    assert process.returncode == 0, f"{command[0]}: {out.decode()}{errors.decode()}"
    return out.decode()


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[Backend]:
    setup = Setup(api=free(RELAY))
    assert setup.api is not None
    with running_relay(tmp_path, setup, (COURIER, CUSTOMER)) as relay:
        async with Phone(setup.caller) as left, Phone(setup.callee) as right, Client(setup.api) as stranger:
            await stranger.until_ready()
            yield Backend(Ends(relay, left, right), f"http://{setup.api}")


async def test_the_first_order_of_the_readme(backend: Backend) -> None:
    told = await backend.paste(SET_UP, ORDER, 'echo "$acme"', EXPLAIN)
    *_, number, key, explained = told.splitlines()
    assert json.loads(explained)["outcome"] == "granted"
    seen = await call(backend.ends, COURIER, number)
    assert (seen.shown, seen.called) == (number, CUSTOMER)
    calls = json.loads(await backend.paste(f"api={backend.api} acme={key}", CALLS))
    assert [(record["order_id"], record["outcome"]) for record in calls["items"]] == [("17", "answered")]


async def test_a_failed_step_shows_the_problem(backend: Backend) -> None:
    told = await backend.paste(SET_UP, ORDER.replace('"order_id": "17", ', ""))
    assert "order_id: required" in told.splitlines()[-1]


async def test_the_signed_request_of_api_md(backend: Backend) -> None:
    *_, number, key = (await backend.paste(SET_UP, ORDER, 'echo "$acme"')).splitlines()
    async with asyncio.timeout(PATIENCE_S):  # the API refuses requests that may be from before its start
        while not (answer := await _signed(key, f"{backend.api}/v1/bindings?limit=2")):
            pass
    assert [binding["x"] for binding in json.loads(answer)["items"]] == [number]


async def _signed(key: str, url: str) -> str:
    """The answer of the API; "" if it was an error."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SIGNED, key, url, stdout=PIPE, stderr=PIPE)
    answer, _ = await process.communicate()
    return answer.decode()


async def test_the_webhook_receiver_of_api_md(backend: Backend) -> None:
    address = free(INBOX)
    hook = backend.ends.relay.answer("webhooks", "make", f"http://{address}/events", "--json")
    arguments = (sys.executable, "-c", RECEIVER, hook["secret"], str(address.port))
    receiver = await asyncio.create_subprocess_exec(*arguments, stdout=PIPE, stderr=PIPE)
    try:
        backend.ends.relay.command("webhooks", "test", hook["id"])
        assert receiver.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            (event,) = json.loads(await receiver.stdout.readline())["events"]
        assert (event["kind"], event["business_id"]) == ("webhook.test", "default")
    finally:
        receiver.kill()
        await receiver.communicate()


async def test_the_program_of_a_hook() -> None:
    address = free("127.0.0.1")
    arguments = (sys.executable, "-c", HOOK, "whsec_1", str(address.port))
    server = await asyncio.create_subprocess_exec(*arguments, stdout=PIPE, stderr=PIPE)
    client = HookClient(lambda event, fields: None)
    await client.open()
    try:
        hook = HookEndpoint("", f"http://{address}/", "whsec_1")
        async with asyncio.timeout(PATIENCE_S):
            while not await _accepts(address):
                assert server.returncode is None
            answers = [await client.ask(each, {}, PATIENCE_S) for each in (hook, hook._replace(secret="another"))]
        assert answers == [b'{"allow": true, "max_duration_s": 600}', "not_signed"]
    finally:
        await client.close()
        server.kill()
        await server.communicate()


async def _accepts(address: Address) -> bool:
    try:
        _, writer = await asyncio.open_connection(address.host, address.port)
    except ConnectionRefusedError:
        await asyncio.sleep(0)
        return False
    writer.close()
    return True
