"""What all tests share: everything under tests/interop drives real programs and carries the mark `outside`."""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support import places

INTEROP = Path(__file__).parent / "interop"
# Each of their tests runs with a store in a file, and with one on a server (tests/support/places.py).
ON_BOTH = ("tests.service.",)
MODEL = "tests.service.test_model"  # thousands of small steps, which a file takes faster


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    module = metafunc.module.__name__
    said = any(
        mark.name == "parametrize" and "store_kind" in mark.args[0] for mark in metafunc.definition.iter_markers()
    )
    if module.startswith(ON_BOTH) and module != MODEL and not said:
        kinds = [places.FILE, pytest.param(places.SERVER, marks=pytest.mark.outside)]
        metafunc.parametrize("store_kind", kinds, indirect=True)


@pytest.fixture(autouse=True)
def store_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which kind of store `place_in` gives."""
    kind = getattr(request, "param", places.FILE)
    with places.kind(kind):
        yield kind


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "no_cover: pytest-cov's own, which may be left out")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays: no garbage collection looks through it, neither meanwhile nor while the tests run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that drive real programs come first: of several processes none is left with minutes of them at the end.

    Coverage doubles what a test costs. It is not taken where it tells nothing: of a relay that is another process, and
    of hundreds of drawn examples, since what they reach has tests of its own.
    """
    for item in items:
        in_interop = INTEROP in item.path.parents
        if in_interop:
            item.add_marker(pytest.mark.outside)
        if in_interop or getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.no_cover)
    first = {item.path for item in items if item.get_closest_marker("outside")}
    items.sort(key=lambda item: item.path not in first)
