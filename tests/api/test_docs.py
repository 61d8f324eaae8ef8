"""The documentation page."""

from __future__ import annotations

import re

from tests.api.conftest import Api


async def test_the_documentation_loads_nothing_from_other_hosts(api: Api) -> None:
    answer = await api.stranger().http.get("/docs")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy and "unsafe" not in policy
    assert not re.findall(r"https?://", answer.text)
    named = re.findall(r'(?:href|src)="(docs/[^"]+)"', answer.text)
    assert len(named) == 4
    for path in named:
        assert (await api.stranger().http.get(f"/{path}")).status_code == 200
    await api.stranger().refused("GET", "/docs/redoc.standalone.js", "not_found")
