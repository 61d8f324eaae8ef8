"""Asks the relay that runs, by its control socket."""

from __future__ import annotations

import asyncio

from relay.config import Config
from relay.net.control import ANSWER_S, Answer, ControlClient, control_path


def ask(config: Config, name: str, *, patience_s: float = ANSWER_S, **fields: object) -> Answer:
    """What the relay of the configured store answers to `name`. Raises Refused: its words, or that none answers."""
    return asyncio.run(ControlClient(control_path(config.store.local), patience_s).ask(name, **fields))
