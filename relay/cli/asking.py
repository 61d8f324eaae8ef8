"""Asks the relay that runs, by its control socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from relay.cli.stores import Opened, audited_first
from relay.config import Config
from relay.net.control import ANSWER_S, Answer, ControlClient, control_path


def ask(config: Config, name: str, *, patience_s: float = ANSWER_S, **fields: object) -> Answer:
    """What the relay of the configured store answers to `name`. Raises Refused: its words, or that none answers."""
    return asyncio.run(ControlClient(control_path(config.store.local), patience_s).ask(name, **fields))


def ask_audited(
    store: Opened, name: str, fields: Mapping[str, Any], action: str, object_: str, reason: str, **details: object
) -> Answer:
    """Has the relay do something. Raises Refused, and StoreError where the audit log does not take the line.

    That comes before it is done, and after the relay has said that it can be: what was refused has none.
    """
    ask(store.config, name, **fields, dry_run=True)
    audited_first(store, action, object_, reason, **details)
    return ask(store.config, name, **fields)
