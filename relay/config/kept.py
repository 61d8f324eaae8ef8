"""Keeps the configuration in force in the store, and reads the one of an earlier time, for explanations.

Passwords in URLs are left out; all other secrets are in files, of which the text has the paths.
"""

from __future__ import annotations

import json
import re
import tomllib
from contextlib import closing

from relay.config import Config, parse_config, urls_with_passwords
from relay.config.environment import noted_in
from relay.errors import ConfigError
from relay.reports.explain import PolicyConfiguration
from relay.service.fields import format_moment
from relay.store.configurations import find_configuration, is_in_force, node_of, put_configuration
from relay.store.connection import Connection, without_password
from relay.store.database import reading
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.writer import Writer

_COMMENTED = re.compile(r"(://[^/@\s\"':]*:)[^\s\"']*(?=@)|([?&](?:ssl)?password=)[^&\s\"']*")


def keep_configuration(config: Config, sealer: Sealer) -> None:
    """Keep the configuration as in force from now on, unless it is the last one that was kept. Raises StoreError.

    The audit log names the settings that differ from the last one, without their values.
    """
    place, text = config.store.path, _without_passwords(config)
    node = node_of(place)
    with reading(place) as reader:
        if is_in_force(reader, sealer, node, text):
            return  # a relay must start on a read-only store
    with closing(Writer(place, sealer)) as writer:
        writer.run(RELAY, lambda unit: _put(unit, node, text))


def _put(unit: UnitOfWork, node: str, text: str) -> None:
    last = find_configuration(unit.connection, unit.sealer, node, unit.now_ms)
    changed = changed_settings("" if last is None else last.text, text)
    put_configuration(unit, node, text)
    unit.audit("configuration.apply", node or "relay", details={"changed": changed})


def changed_settings(old: str, new: str) -> list[str]:
    """The paths of the settings in which two texts differ, such as `sip.t1_ms` or `peer.carrier.uri`, sorted.

    All settings if the old text is no TOML.
    """
    try:
        before = _settings(tomllib.loads(old))
    except tomllib.TOMLDecodeError:
        before = {}
    after = _settings(tomllib.loads(new))
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def _settings(value: object, path: str = "") -> dict[str, object]:
    """Each setting by its path. A table of an array goes by its `name`, else by its place."""
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        value = {str(one.get("name", place)): one for place, one in enumerate(value)}
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, object] = {}
    for name, one in value.items():
        found |= _settings(one, f"{path}.{name}" if path else name)
    return found


def configured_at(connection: Connection, sealer: Sealer, now: Config, at_ms: int) -> PolicyConfiguration:
    """The configuration in force at a time, as far as it was kept; else the present one. Raises StoreError."""
    kept = find_configuration(connection, sealer, node_of(now.store.path), at_ms)
    if kept is None:
        return configured(now, "the configuration is that of now: none was kept at that time")
    try:
        then = parse_config(kept.text, "the configuration of that time", noted_in(kept.text))
    except ConfigError as error:
        note = f"the configuration is that of now; this version cannot read the former one: {error.problems[0]}"
        return configured(now, note)
    return configured(then, f"the configuration is the one in force since {format_moment(kept.at_ms)}")


def configured(config: Config, note: str = "") -> PolicyConfiguration:
    """The parts of the configuration that explanations and replays use."""
    return PolicyConfiguration(config.rules, config.settings, config.numbers.cool_down_ms, note)


def _without_passwords(config: Config) -> str:
    """The text without the passwords of its URLs, in comments as far as they hold no quotes."""
    text = config.text
    for url in urls_with_passwords(config):
        masked = without_password(url)
        text = text.replace(url, masked).replace(_escaped(url), _escaped(masked))
    return _COMMENTED.sub(r"\1\2***", text)


def _escaped(text: str) -> str:
    """As within double quotes in TOML."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
