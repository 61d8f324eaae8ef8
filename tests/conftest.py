"""Shared hooks and fixtures. Tests under tests/interop drive real programs and get the mark `outside`."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import places

os.environ["LC_ALL"] = "C.UTF-8"  # commands answer in English, wherever the tests run

# How long an example takes is the machine's affair: no test fails by it.
settings.register_profile("relay700", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("relay700")

# Tests of what mypyc compiles (pyproject.toml), and of calls through it: `.ci/run` runs them on the compiled code too.
COMPILED = "call canary defence ladder model net peers policy privacy sip store".split()
# Packages and modules whose tests run on SQLite and on PostgreSQL (tests/support/places.py).
ON_BOTH = (
    "tests.service.",
    "tests.events.test_put_back",
    *(
        f"tests.store.test_{name}"
        for name in (
            "business_counts",
            "call_counts",
            "capture",
            "configurations",
            "filings",
            "groups",
            "hooks",
            "lookup_at",
            "numbers",
            "papers",
            "recent_changes",
            "webhooks",
        )
    ),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    module = metafunc.module.__name__
    said = any(
        mark.name == "parametrize" and "store_kind" in mark.args[0] for mark in metafunc.definition.iter_markers()
    )
    is_drawn = getattr(metafunc.function, "is_hypothesis_test", False)  # SQLite only: thousands of small steps
    if module.startswith(ON_BOTH) and not is_drawn and not said:
        metafunc.parametrize("store_kind", [places.FILE, places.SERVER], indirect=True)


@pytest.fixture(autouse=True)
def store_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kind of store that `store_in` makes."""
    kind = getattr(request, "param", places.FILE)
    with places.kind(kind):
        yield kind


def pytest_configure(config: pytest.Config) -> None:
    """Make what is generated of the Python client, once for all processes, if the source is newer."""
    if not hasattr(config, "workerinput"):
        subprocess.run([sys.executable, "clients/python/generate.py"], check=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector off during collection, and freeze the collected items: they live to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, which have timeouts of their own, then others that drive real programs: no worker
    is left with minutes of them at the end.
    """
    for item in items:
        if (room := _room(item)) == "interop" or _is_on_server(item):
            item.add_marker(pytest.mark.outside)
        elif room in COMPILED:
            item.add_marker(pytest.mark.compiled)
    longest, outside = ({_file(item) for item in items if item.get_closest_marker(n)} for n in ("timeout", "outside"))
    items.sort(key=lambda item: (_file(item) not in longest, _file(item) not in outside))


def _is_on_server(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("store_kind") == places.SERVER


def _room(item: pytest.Item) -> str:
    return item.nodeid.split("/", 2)[1]


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]
