"""The command in this process, with a configuration and a store per test."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result

from relay.cli import main
from relay.net.control import ControlServer, Handlers, control_path
from tests.support.places import first_store
from tests.support.stored import PREFIX

EXTENSIONS = 'parties = ["mobile", "extension"]\nextensions = ["8000-8999"]\n'


class Command(NamedTuple):
    """`relay700`, with `-c` behind the arguments."""

    folder: Path

    def run(self, *arguments: str, input: str | None = None, reason: str | None = None) -> Result:
        environment = {"RELAY700_REASON": reason}
        return CliRunner().invoke(
            main, [*arguments, "-c", str(self.folder / "relay.toml")], input=input, env=environment
        )

    def done(self, *arguments: str, input: str | None = None) -> str:
        result = self.run(*arguments, input=input)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout

    def objects(self, *arguments: str, reason: str | None = "test") -> list[dict[str, Any]]:
        """With a reason, so that numbers are in clear."""
        result = self.run(*arguments, "--json", reason=reason)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def refused(self, *arguments: str) -> str:
        """Run a command that ends with status 1. Returns its one line on stderr."""
        result = self.run(*arguments)
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        (line,) = result.stderr.splitlines()
        return line

    @property
    def store(self) -> tuple[Path, Path]:
        return self.folder / "var" / "relay.db", self.folder / "var" / "relay.key"


@contextmanager
def serving(path: Path, handlers: Handlers) -> Iterator[None]:
    """Serve the store's admin socket with these handlers."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = ControlServer(control_path(path), handlers)
    asyncio.run_coroutine_threadsafe(server.open(), loop).result()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def relay700(tmp_path: Path) -> Command:
    """With a store such as its first start makes."""
    command = Command(tmp_path)
    path, key_file = command.store
    path.parent.mkdir(mode=0o700)
    first_store(path.parent, PREFIX)
    (tmp_path / "relay.toml").write_text(
        f'[store]\nurl = "sqlite:{path}"\nkey_file = "{key_file}"\n[numbers]\nprefixes = ["{PREFIX}"]\n{EXTENSIONS}'
    )
    return command


@pytest.fixture
def usage(relay700: Command) -> Callable[..., str]:
    """Run a command with wrong usage, which is status 2. Returns its stderr."""

    def run(*arguments: str) -> str:
        result = relay700.run(*arguments)
        assert result.exit_code == 2
        return result.stderr

    return run
