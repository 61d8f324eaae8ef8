"""Settings that differ from node to node, which the environment may give: one relay.toml then serves all containers.

A value of the environment replaces that of the file. An empty one is none, as compose files pass it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

# variable: table, setting, and whether it is a list, written with commas
_VARIABLES: Final = {
    "RELAY700_SIP_LISTEN": ("sip", "listen", True),
    "RELAY700_SIP_ADVERTISE": ("sip", "advertise", True),
    "RELAY700_STORE_NODE": ("store", "node", False),
    "RELAY700_API_LISTEN": ("api", "listen", False),
}
_KEPT: Final = re.compile(r"^# (RELAY700_[A-Z_]+)=(.*)$", re.MULTILINE)


def given_by(environment: Mapping[str, str]) -> dict[str, str]:
    """Our variables in an environment, with their values."""
    return {name: text for name in _VARIABLES if (text := environment.get(name, "").strip())}


def with_given(document: dict[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """The document of a TOML file, with the values of the environment."""
    changed = dict(document)
    for name, text in given.items():
        table, setting, is_list = _VARIABLES[name]
        value = [part.strip() for part in text.split(",")] if is_list else text
        if isinstance(changed.get(table, {}), dict):  # else the file's own fault is reported
            changed[table] = changed.get(table, {}) | {setting: value}
    return changed


def variable_at_fault(problem: str, given: Mapping[str, str]) -> str | None:
    """A problem of a setting that the environment gave, by the name of its variable; None: another one."""
    path, _, text = problem.partition(": ")
    for name in given:
        table, setting, _ = _VARIABLES[name]
        if re.sub(r"\[[0-9]+\]$", "", path) == f"{table}.{setting}":
            return f"{name}: {text}"
    return None


def noted(text: str, given: Mapping[str, str]) -> str:
    """The text of a configuration that is kept, with the environment's values as comments."""
    lines = (f"# {name}={' '.join(value.split())}\n" for name, value in given.items())
    return "".join(lines) + text


def noted_in(text: str) -> dict[str, str]:
    """The environment's values that `noted` wrote."""
    return given_by(dict(_KEPT.findall(text)))
