"""Requests to the running relay over its control socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from relay.cli.stores import Opened, audited_first
from relay.config import Config
from relay.net.control import ANSWER_S, Answer, ControlClient, control_path


def ask(config: Config, name: str, *, patience_s: float = ANSWER_S, **fields: object) -> Answer:
    """Return the answer of the relay that serves the configured store. Raises Refused, also when none answers."""
    return asyncio.run(ControlClient(control_path(config.store.local), patience_s).ask(name, **fields))


def ask_audited(
    store: Opened, name: str, fields: Mapping[str, Any], action: str, object_: str, reason: str, **details: object
) -> Answer:
    """Write the audit line, then send the command. Raises Refused, and StoreError if the line cannot be written.

    A dry run goes first, so that a refused command leaves no line.
    """
    ask(store.config, name, **fields, dry_run=True)
    audited_first(store, action, object_, reason, **details)
    return ask(store.config, name, **fields)
