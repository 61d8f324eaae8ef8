"""Routes that are compiled when first used: all at once they take a quarter of the backend's start."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import compile_path

# Of pydantic, about the name that FastAPI gives a body: FastAPI hides it, but not when the model is completed later.
warnings.filterwarnings("ignore", "The 'alias' attribute with value", UserWarning)


class DeferredRoute(APIRoute):
    """A route that knows its path and methods; FastAPI reads the endpoint's signature for the first request to it."""

    def __init__(
        self, path: str, endpoint: Callable[..., Any], *, methods: set[str] | list[str] | None = None, **options: Any
    ) -> None:
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)
        self.endpoint, self.methods = endpoint, set(methods or ["GET"])
        self._compile: Callable[[], None] | None = partial(super().__init__, path, endpoint, methods=methods, **options)

    def __getattr__(self, name: str) -> Any:
        """An attribute that is not there yet."""
        if (compile_route := self.__dict__.pop("_compile", None)) is None:
            raise AttributeError(name)
        compile_route()
        return getattr(self, name)


Router = partial(APIRouter, route_class=DeferredRoute)
