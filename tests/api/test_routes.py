from __future__ import annotations

from fastapi import FastAPI

from relay.api.routes import Router
from tests.api.conftest import Client


async def test_a_route_is_compiled_for_the_first_request_to_it() -> None:
    router = Router(prefix="/v1")

    @router.get("/hours")
    async def hours(count: int) -> dict[str, int]:
        return {"seconds": count * 3600}

    @router.post("/hours")
    async def other(count: int) -> None: ...

    app = FastAPI()
    app.router.routes.extend(router.routes)
    client = Client(app)
    get, post = router.routes
    await client.get("/v1/days", 404)
    await client.ask("DELETE", "/v1/hours", status=405)
    assert "dependant" not in vars(get)
    assert await client.get("/v1/hours?count=2") == {"seconds": 7200}
    await client.get("/v1/hours?count=two", 422)
    assert "dependant" in vars(get)
    assert "dependant" not in vars(post)
    assert not hasattr(get, "no_such_attribute")
