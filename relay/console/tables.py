"""Tables of the API's lists: columns, filters in the URL, one page at a time, and the same rows as CSV or JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType, NoneType
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin
from urllib.parse import quote

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.responses import Response, StreamingResponse

from relay.api.paging import MOST
from relay.console.ask import ApiError, Json, Query
from relay.console.page import ConsolePage
from relay.console.references import is_reference
from relay.operations.shapes import FREE_TEXT
from relay.reports.export import csv_cell, csv_lines
from relay.translation import N_

Adjust = Callable[[ConsolePage, list[dict[str, Any]]], Awaitable[list[dict[str, Any]]]]
# How a value is shown. id: short, copied whole; name: one of the API's, in words; flag: yes or no; tags: short texts
Kind = Literal["text", "id", "mono", "number", "moment", "length", "outcome", "state", "name", "flag", "tags"]
ROWS: Final = "50"
_FORGOTTEN: Final = N_("this search has ended with its session: enter it again")


class Column(NamedTuple):
    """A column. `name`: the field of an item; `link`: where its values lead, such as "/calls/{call_id}"."""

    name: str
    title: str
    kind: Kind = "text"
    link: str = ""

    def to(self, item: Mapping[str, Any]) -> str:
        """The path that an item's value leads to, "" for none."""
        if not self.link or item.get(self.name) is None:
            return ""
        return self.link.format_map({name: quote(str(value), safe="") for name, value in item.items()})


class Filter(NamedTuple):
    """A field of the search form, named as the API's query parameter."""

    name: str
    title: str
    kind: Literal["text", "choice", "time", "number"] = "text"
    choices: Sequence[str] = ()
    needs: str = ""  # shown only to keys with this scope


class ListView(NamedTuple):
    """A list of the API. `path`: as `Asker.ask` takes it; `empty`: what to say of none."""

    title: str
    path: str
    columns: tuple[Column, ...]
    empty: str
    filters: tuple[Filter, ...] = ()
    template: str = "list.html"
    has_parties: bool = False  # whether the list may be revealed
    by_party: bool = False  # whether the API searches it by party: POST to `path`/search
    adjust: Adjust | None = None  # makes the items of the page from the API's; files have the API's

    @property
    def place(self) -> str:
        """The path of its page."""
        return self.path.removeprefix("/v1")


async def show_list(
    page: ConsolePage, listing: ListView, *parts: str, faults: Mapping[str, str] = MappingProxyType({}), **values: Any
) -> Response:
    """The page of a list. A faulty filter is named beside its field.

    With `format` in the query: all rows of the search as a file, or as many as `limit` says.
    `faults`: those that the caller has found, by filter.
    """
    query = page.given(*(each.name for each in shown_filters(page, listing)), "cursor")
    forgotten = {name: page.words(_FORGOTTEN) for name, value in query.items() if is_reference(value or "")}
    faults = {**faults, **forgotten}
    document: Json = {"items": [], "next": None}
    format_, limit = page.query.get("format"), page.query.get("limit")
    is_file = format_ in ("csv", "json")
    try:
        if not faults:
            most = limit or (str(MOST) if is_file else ROWS)
            document = await page.get(listing.path, *parts, limit=most, **query, **page.reveal)
    except ApiError as problem:
        if problem.kind != "invalid" or not query:
            raise
        faults = problem.errors or {"": problem.detail}
    if format_ is not None and is_file and not faults:
        name = listing.path.rpartition("/")[2]
        if limit:
            return as_file(document["items"], format_, name)
        parts_of_file = _file_parts(_all_rows(page, listing, parts, query, document), format_)
        return StreamingResponse(parts_of_file, headers=_file_headers(name, format_), media_type=_FILE_TYPES[format_])
    status = 400 if faults else 200
    return page.render(
        listing.template,
        status,
        listing=listing,
        filters=shown_filters(page, listing),
        document=await _adjusted(page, listing, document),
        faults=faults,
        revealed=bool(page.reveal),
        **values,
    )


async def search_party(page: ConsolePage, listing: ListView, party: str = "", **values: Any) -> Response:
    """The part of a list that concerns a party. Its number is in a form, so that no URL has it; so is the next page."""
    party, faults = party or page.form.get("party", "").strip(), {}
    if not party:
        return page.redirect(listing.place)
    document: Json = {"items": [], "next": None}
    query = {"cursor": page.form.get("cursor")}
    try:
        document = await page.asker.ask("POST", f"{listing.path}/search", query=query, body={"party": party})
    except ApiError as problem:
        if problem.kind != "invalid":
            raise
        faults = problem.errors or {"party": problem.detail}
    return page.render(
        listing.template,
        400 if faults else 200,
        listing=listing._replace(has_parties=False),  # the eye would ask for the list without the party
        filters=shown_filters(page, listing),
        document=await _adjusted(page, listing, document),
        faults=faults,
        revealed=False,
        party=party,
        **values,
    )


async def _adjusted(page: ConsolePage, listing: ListView, document: Json) -> Json:
    return document if listing.adjust is None else document | {"items": await listing.adjust(page, document["items"])}


def shown_filters(page: ConsolePage, listing: ListView) -> list[Filter]:
    """The filters for this viewer."""
    return [each for each in listing.filters if page.may(each.needs)]


_Rows = list[dict[str, Any]]
_FILE_TYPES: Final = {"json": "application/json", "csv": "text/csv; charset=utf-8"}


def as_file(items: _Rows, format_: str, name: str) -> Response:
    """Rows as a file: CSV with a header line, or a JSON array."""
    if format_ == "json":
        body = json.dumps(items, ensure_ascii=False, indent=1).encode()
    else:
        names = list(items[0]) if items else []
        body = csv_lines([names, *_cells(items, names)])
    return Response(body, headers=_file_headers(name, format_), media_type=_FILE_TYPES[format_])


def _file_headers(name: str, format_: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}.{format_}"'}


async def _all_rows(
    page: ConsolePage, listing: ListView, parts: Sequence[str], query: Query, first: Json
) -> AsyncGenerator[_Rows]:
    """The rows of a search, a page of the API at a time. It fails, and the file with it, once the session is over."""
    document = first
    yield document["items"]
    while document["next"] is not None:
        if not page.is_still_logged_in():
            raise ConnectionAbortedError("the session ended while a file was sent")
        more = {**query, "cursor": document["next"], "limit": str(MOST)}
        document = await page.get(listing.path, *parts, **more)
        yield document["items"]


async def _file_parts(pages: AsyncGenerator[_Rows], format_: str) -> AsyncGenerator[bytes]:
    """The parts of the file that `as_file` would make of all rows."""
    names: list[str] = []
    has_rows = False
    async with aclosing(pages):
        async for rows in pages:
            if not rows:
                continue
            if format_ == "json":
                text = json.dumps(rows, ensure_ascii=False, indent=1)
                yield f"{',' if has_rows else '['}{text[1:-2]}".encode()
            else:
                head = [] if has_rows else [list(rows[0])]
                names = names or head[0]
                yield csv_lines([*head, *_cells(rows, names)])
            has_rows = True
    if format_ == "json":
        yield b"\n]" if has_rows else b"[]"


def _cells(rows: _Rows, names: Sequence[str]) -> list[list[Any]]:
    return [[csv_cell(_flat(row[name])) for name in names] for row in rows]


def _flat(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


# -- One object

_KINDS: Final[dict[Any, str]] = {bool: "flag", int: "number"}


def facts_of(shape: type[BaseModel], document: Json, words: Callable[[str], str]) -> list[tuple[str, str, Any]]:
    """The fields of a response that have a title: the title, how the value is shown, the value."""
    return [
        (words(field.title), _kind_of(name, field), document[name])
        for name, field in shape.model_fields.items()
        if field.title
    ]


def _kind_of(name: str, field: FieldInfo) -> str:
    if name.endswith(("_at", "_until")):
        return "moment"
    if get_origin(field.annotation) is list:
        return "tags"
    of = next((each for each in get_args(field.annotation) if each is not NoneType), field.annotation)
    return _KINDS.get(of, "mono" if FREE_TEXT in field.metadata or name in ("group_id", "prefix") else "text")
