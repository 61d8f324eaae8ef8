"""The routes of operations (`relay.operations`): scopes, Idempotency-Key, pages, and revealing for each."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from inspect import Parameter
from types import ModuleType
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from starlette.responses import Response

from relay.api.context import Answer, Changes, Needs, RequestContext, Reveal, Revealing
from relay.api.paging import Page, Paging
from relay.api.routes import Router
from relay.operations.operation import Asker, Listing, Operation
from relay.store.connection import Connection
from relay.store.unit_of_work import UnitOfWork

_Endpoint = Callable[..., Awaitable[Any]]


def router_of(noun: ModuleType, tag: str) -> APIRouter:
    """The routes of the operations that a module declares, in its order."""
    router = Router(tags=[tag])
    for declared in vars(noun).values():
        if isinstance(declared, Operation):
            endpoint, shape = _ENDPOINTS[declared.kind](declared)
            router.add_api_route(
                declared.path,
                endpoint,
                methods=[declared.method],
                status_code=declared.status,
                response_model=shape,
                operation_id=declared.name,
                summary=declared.summary,
            )
    return router


def _change(declared: Operation) -> tuple[_Endpoint, Any]:
    async def change(context: RequestContext, **asked: Any) -> Response:
        def do(unit: UnitOfWork) -> Answer:
            shown: BaseModel = declared.do(unit, context.asker, **asked)
            made = declared.status == 201 and (getattr(shown, "id", None) or getattr(shown, "prefix", None))
            location = f"{declared.path}/{made}" if made and "{" not in declared.path else None
            kept = shown.model_copy(update=dict.fromkeys(declared.secrets)) if declared.secrets else None
            return Answer(shown, declared.status, location, kept)

        return await context.change(do)

    return _signed(change, declared, Changes), declared.result


def _read(declared: Operation) -> tuple[_Endpoint, Any]:
    async def read(context: RequestContext, **asked: Any) -> BaseModel:
        reveal = asked.pop("reveal", _HIDDEN)
        shown = await _shown(declared, context, context.asker, asked)
        if not await context.reveal(reveal, declared.revealed.format_map(asked)):
            return shown
        return await _shown(declared, context, context.asker._replace(clear=True), asked)

    return _signed(read, declared, Needs), declared.result


async def _shown(declared: Operation, context: RequestContext, asker: Asker, asked: Mapping[str, Any]) -> BaseModel:
    def do(connection: Connection) -> BaseModel:
        shown: BaseModel = declared.do(connection, asker, **asked)
        return shown

    return context.row(do) if declared.path.endswith("}") else await context.read(do)


def _list(declared: Operation) -> tuple[_Endpoint, Any]:
    async def list_(context: RequestContext, paging: Paging, **asked: Any) -> Page[Any]:
        reveal = asked.pop("reveal", _HIDDEN)
        if declared.request is not None and declared.method == "GET":
            of_path = {name: asked.pop(name) for name in declared.given if name in asked}
            asked = of_path | {"asked": declared.request.model_construct(**asked)}
        listing: Listing[Any, Any] = declared.do(context.asker, **asked)
        list_ = declared.list_.format_map(asked)
        part = await context.part(list_, paging, listing.read, listing.first, listing.position)
        ids = [str(listing.position(item)) for item in part.items] if "id" in declared.result.model_fields else []
        clear = await context.reveal(reveal, declared.revealed.format_map(asked), ids, **listing.asked)
        asker = context.asker._replace(clear=clear)
        return part.shown(lambda item: listing.show(item, asker))

    return _signed(list_, declared, Needs), Page[declared.result]  # type: ignore[name-defined]  # a type made here


_HIDDEN = Reveal(reveal=False, reason=None)
_ENDPOINTS = {"change": _change, "read": _read, "list": _list}


def _signed(endpoint: _Endpoint, declared: Operation, needs: type[Needs]) -> _Endpoint:
    """Give an endpoint the name, text and parameters of its operation, which FastAPI reads."""
    parameters = [
        Parameter(
            "context",
            Parameter.KEYWORD_ONLY,
            annotation=Annotated[RequestContext, Depends(needs(*filter(None, [declared.scope])))],
        ),
        *_parameters(declared),
    ]
    endpoint.__name__ = declared.do.__name__
    endpoint.__doc__ = declared.do.__doc__
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
    return endpoint


def _parameters(declared: Operation) -> Iterator[Parameter]:
    for name, each in declared.given.items():
        if name == "asked" and declared.method == "GET":
            assert declared.request is not None
            yield from _query(declared.request)
        else:
            yield each.replace(kind=Parameter.KEYWORD_ONLY)
    if declared.kind == "list":
        yield Parameter("paging", Parameter.KEYWORD_ONLY, annotation=Paging)
    if declared.revealed and declared.kind != "change":
        yield Parameter("reveal", Parameter.KEYWORD_ONLY, annotation=Revealing)


def _query(shape: type[BaseModel]) -> Iterable[Parameter]:
    """Each field of a request as a query parameter."""
    for name, field in shape.model_fields.items():
        annotation: Any = Annotated[field.annotation, *field.metadata, Query(description=field.description)]
        yield Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=field.default)
