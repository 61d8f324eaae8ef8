"""The requests of docs/COLLECTION.md work as pasted, and Python's client beside them, on one running relay."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from relay700_client import AsyncClient, Client, Forbidden, NotFound

from tests.story.calls import call
from tests.story.test_documents import COURIER, CUSTOMER, Backend, backend

__all__ = ["backend"]

pytestmark = pytest.mark.outside

BLOCKS = re.findall(r"^```bash\n(.*?)^```$", Path("docs/COLLECTION.md").read_text(), re.M | re.S)
README = re.findall(r"^```python\n(.*?)^```$", Path("clients/python/README.md").read_text(), re.M | re.S)[0]
BEFORE, AFTER = BLOCKS[:3], BLOCKS[3:]
VARIABLES = 'echo; printf "%s " "$x" "$operator" "$swift"'


async def test_requests_and_the_client(backend: Backend) -> None:
    *_, variables = (await backend.paste(*BEFORE, VARIABLES)).splitlines()
    x, operator, swift = variables.split()
    assert (await call(backend.ends, COURIER, x)).called == CUSTOMER
    known = f"x={x} operator={operator} swift={swift} key={swift}"
    await asyncio.to_thread(_use, backend.api, swift, x)
    assert '"outcome":"answered"' in await backend.paste(BLOCKS[0], known, *AFTER)
    await _use_async(backend.api, operator, x)
    assert "Warning" not in backend.ends.relay.log()  # a library's are no lines of the log


def _use(api: str, key: str, x: str) -> None:
    with Client(api, key) as client:
        (found,) = [each for each in client.each(client.list_bindings, limit=1) if each.x == x]
        assert (found.order_id, found.user_data) == ("17", "rider 5")
        assert [each.outcome for each in client.each(client.list_calls, order_id="17")] == ["answered"]
        with pytest.raises(Forbidden):
            client.list_peers()
    printed: list[str] = []
    code = README.replace('"https://relay.example", "rk_…"', f'"{api}", "{key}"')
    exec(code, {"print": lambda *words: printed.append(" ".join(map(str, words)))})
    assert [line.split()[0][:3] for line in printed] == ["700", "ans"]


async def _use_async(api: str, key: str, x: str) -> None:
    async with AsyncClient(api, key) as client:
        assert (await client.get_number(x)).number == x
        with pytest.raises(NotFound):
            await client.get_call("0" * 32)
        assert b"relay700_up 1" in await client.get_metrics()
        assert (await client.get_health()).status == "ok"
        assert "swift" in [each.id async for each in client.each(client.list_businesses)]
