"""Configurations from texts, and their faults."""

from __future__ import annotations

import re

import pytest

from relay.config import Config, parse_config
from relay.errors import ConfigError

PEER = '[[peer]]\nname = "carrier"\nuri = "sip:127.0.0.2:5060;transport=udp"\n'


def config(text: str) -> Config:
    return parse_config(text, "t")


def problems(text: str) -> list[str]:
    """Without the configuration's name and those of peers."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "t")
    return [re.sub(r"^(peer\S+) \(\S+\):", r"\1:", problem.removeprefix("t: ")) for problem in caught.value.problems]


def problem(text: str) -> str:
    (only,) = problems(text)
    return only
