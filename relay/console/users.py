"""The page of users: who may log in, in which role."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from relay.console.ask import ApiError
from relay.console.page import ConsolePage, PageRoute, get, post
from relay.console.tables import Column, ListView, show_list
from relay.service.users import ROLES
from relay.translation import N_

USERS: Final = ListView(
    title=N_("Users"),
    path="/v1/users",
    columns=(
        Column("name", N_("Name"), "mono", "/audit?actor=user:{name}"),
        Column("role", N_("Role"), "mono"),
        Column("business_id", N_("Business"), "text", "/businesses/{business_id}"),
        Column("created_at", N_("Made"), "moment"),
        Column("created_by", N_("by"), "mono"),
        Column("locked_until", N_("Locked until"), "moment"),
        Column("disabled_at", N_("Disabled"), "moment"),
    ),
    empty=N_("No user yet: people log in with API keys."),
    template="users.html",
)


async def show_users(page: ConsolePage) -> Response:
    """All users."""
    return await show_list(page, USERS, roles=tuple(ROLES))


async def add(page: ConsolePage) -> Response:
    """Add a user, and show the secrets."""
    body = {name: text for name in ("name", "role", "business_id") if (text := page.form.get(name, "").strip())}
    return await _show_secrets(page, "/v1/users", body=body)


async def reset(page: ConsolePage) -> Response:
    """Give new secrets, and show them."""
    return await _show_secrets(page, "/v1/users/{}/reset", page.request.path_params["name"])


async def _show_secrets(page: ConsolePage, path: str, *parts: str, body: dict[str, str] | None = None) -> Response:
    try:
        made = await page.asker.ask("POST", path, *parts, body=body, once=page.form.get("once", ""))
    except ApiError as problem:
        page.notice("bad", " ".join([problem.detail, *page.others(problem)]))
        return page.redirect("/users")
    return page.render("user.html", made=made)


async def set_role(page: ConsolePage) -> Response:
    """Change a user's role."""
    body, name = {"role": page.form.get("role", "")}, page.request.path_params["name"]
    return await page.change("/users", N_("The role is changed."), "POST", "/v1/users/{}/role", name, body=body)


async def disable(page: ConsolePage) -> Response:
    """Disable a user."""
    name, query = page.request.path_params["name"], {"reason": page.form.get("reason")}
    return await page.change("/users", N_("The user is disabled."), "DELETE", "/v1/users/{}", name, query=query)


ROUTES: Final[list[PageRoute]] = [
    get("/users", show_users, "operator"),
    post("/users/add", add, "operator"),
    post("/users/{name}/reset", reset, "operator"),
    post("/users/{name}/role", set_role, "operator"),
    post("/users/{name}/disable", disable, "operator"),
]
