"""TOML files to tables, unknown keys and wrong types as faults; and the plain values of API, reports and hook."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct
from msgspec.structs import FieldInfo, fields

from relay.config.tables import Tables
from relay.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ApiConfig:
    enabled: bool
    host: str  # without brackets
    port: int
    certificate: Path | None  # both or neither; without them plain HTTP, on loopback only
    key: Path | None
    requests_per_s: int  # of one key
    burst: int


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """Daily batches for the authority."""

    key_file: Path
    batches: Path


@dataclass(frozen=True, slots=True)
class VerifyConfig:
    url: str
    secret_file: Path
    timeout_s: float
    fail: Literal["closed", "open"]


# -- TOML text to the tables of `relay.config.tables`


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Raises ConfigError with the line and column."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{name}: not TOML: {error}"]) from error


def read_file(path: Path) -> str:
    """Raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text (byte {error.start})"]) from error


def read_tables(document: dict[str, Any], problems: list[str]) -> Tables:
    """Return all tables. A wrong value is reported and replaced by its default, or its table is left out."""
    values: dict[str, Any] = {}
    known = {field.name: field for field in fields(Tables)}
    for key, raw in document.items():
        if key not in known:
            problems.append(_unknown(key, "table", known))
        elif key in ("peer", "route"):
            values[key] = tuple(_read_array(key, raw, _table_type(known[key]), problems))
        elif isinstance(raw, dict):
            table = read_table(key, raw, _table_type(known[key]), problems)
            if table is not None:
                values[key] = table
        else:
            problems.append(f"{key}: not a table; write [{key}] on a line of its own")
    return Tables(**values)


def read_table(path: str, raw: dict[str, Any], type_: type[Struct], problems: list[str]) -> Struct | None:
    """Return the table; None if a required value is missing or wrong."""
    known = {field.name: field for field in fields(type_)}
    values: dict[str, Any] = {}
    problems.extend(f"{path}.{_unknown(key, 'setting', known)}" for key in raw if key not in known)
    complete = True
    for name, field in known.items():
        if name in raw:
            try:
                values[name] = msgspec.convert(raw[name], field.type)
            except msgspec.ValidationError as error:
                problems.append(_wrong(f"{path}.{name}", str(error), field))
                complete &= not field.required
        elif field.required:
            problems.append(f"{path}.{name}: missing; write {_description(field.type)}")
            complete = False
    return type_(**values) if complete else None


def _read_array(key: str, raw: Any, type_: type[Struct], problems: list[str]) -> list[Struct | None]:
    if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
        problems.append(f"{key}: not an array of tables; write [[{key}]] before each")
        return []
    return [read_table(f"{key}[{index}]", entry, type_, problems) for index, entry in enumerate(raw)]


def _unknown(key: str, what: str, known: dict[str, FieldInfo]) -> str:
    near = get_close_matches(key, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"{key}: unknown {what}; {hint}"


def _wrong(path: str, message: str, field: FieldInfo) -> str:
    message, _, place = message.partition(" - at `$")
    return f"{path}{place.rstrip('`')}: {_lower_first(message)}; write {_description(field.type)}"


def _lower_first(text: str) -> str:
    return re.sub(r"`", "", text[:1].lower() + text[1:])


def _description(type_: Any) -> str:
    """The description in the field's Meta, which may be inside `… | None`."""
    for part in getattr(type_, "__metadata__", ()):
        if isinstance(part, msgspec.Meta) and part.description:
            return part.description
    return next(filter(None, map(_description, get_args(type_))), "")


def _table_type(field: FieldInfo) -> type[Struct]:
    """The Struct within `Table`, `Table | None` or `tuple[Table | None, ...]`."""
    type_ = field.type
    while get_origin(type_) is not None or isinstance(type_, UnionType):
        type_ = get_args(type_)[0]
    table: type[Struct] = type_
    return table
