"""`relay700 seal-key`: rotation of the store's sealing key while the relay runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option, say
from relay.cli.options import Opened, opened
from relay.cli.output import show_list
from relay.cli.serve import ask
from relay.errors import Refused, StoreError
from relay.service.fields import format_moment
from relay.store.captures import Captures
from relay.store.connection import PostgresServer
from relay.store.database import is_newer
from relay.store.files import is_served
from relay.store.maintenance import count_rows_by_key, reseal
from relay.store.sealing import keys as rotation
from relay.store.sealing.keys import key_in_use, nodes_without, sealing_keys
from relay.store.sealing.sealer import LAST_ID

_COLUMNS = ("id", "state", "added_at", "used_at", "in_file", "needed_by")
_id = click.argument("key_id", metavar="ID", type=click.IntRange(1, LAST_ID))


@click.group("seal-key")
def seal_key() -> None:
    """Keys that the store is sealed with.

    To rotate: add a key, copy the key file to the other nodes of a shared store, use it. Old keys stay in the key file
    until no row needs them.
    """


@seal_key.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, with the public keys.")
@config_option
def status(config_path: Path | None, as_json: bool) -> None:
    """List the keys, and how many rows of which tables need each. Reads the whole store."""
    with opened(config_path) as store:
        found = list(_states(store))
    show_list(found if as_json else map(_in_words, found), _COLUMNS, as_json=as_json)


@seal_key.command("add")
@config_option
def add(config_path: Path | None) -> None:
    """Make a key, and add it to the key file and the store. It is not in use yet."""
    with opened(config_path) as store:
        key_file = store.config.store.key_file
        key_id = store.run(lambda unit: rotation.add(unit, key_file))
    say(f"added the key {key_id} to {key_file}: keep a copy of that file in another place")


@seal_key.command("use")
@_id
@config_option
def use(config_path: Path | None, key_id: int) -> None:
    """Seal with the key ID from now on, in all processes and nodes.

    Refused while one of them has not read the key. The relay then reseals current rows in the background.
    """
    with opened(config_path) as store:
        unaware = _unaware(store, key_id)
        store.run(lambda unit: rotation.use(unit, key_id, unaware))
    say(f"the key {key_id} is in use")


@seal_key.command("reseal")
@config_option
def reseal_(config_path: Path | None) -> None:
    """Reseal current rows with the key in use. A running relay does this by itself."""
    with opened(config_path) as store:
        _refuse_newer(store)
        rows = reseal(store.config.store.path, store.sealer)
    say(f"resealed {rows} rows")


@seal_key.command("drop")
@_id
@config_option
def drop(config_path: Path | None, key_id: int) -> None:
    """Delete the key ID from the key file. Refused while a row of the store needs it.

    Call records and the audit log need the keys of their time until they are purged.
    """
    with opened(config_path) as store:
        _refuse_newer(store)
        needed = _needs(store).get(key_id, {})
        store.run(lambda unit: rotation.drop(unit, key_id, needed))
        key_file = store.config.store.key_file
        was_there = rotation.forget(key_file, key_id, store.sealer.hash_keys)
    say(f"dropped the key {key_id}" if was_there else f"dropped the key {key_id}; it was no longer in {key_file}")


def _refuse_newer(store: Opened) -> None:
    """Raise StoreError if the store is of a newer version, with tables that this one would miss."""
    place = store.config.store.path
    if is_newer(place):
        raise StoreError(f"the store {place} was written by a newer relay700: run this command with that version")


def _states(store: Opened) -> Iterator[dict[str, Any]]:
    needed = _needs(store)
    now = key_in_use(store.reader)
    keys = {key.id: key for key in sealing_keys(store.reader)}
    for key_id in sorted({*keys, *store.sealer.key_ids}):
        key, in_file = keys.get(key_id), key_id in store.sealer.key_ids
        yield {
            "id": key_id,
            "state": "unknown" if key is None else _state(key_id, now, dropped=key.dropped_at is not None),
            "added_at": None if key is None else format_moment(key.added_at),
            "used_at": None if key is None or key.used_at is None else format_moment(key.used_at),
            "in_file": in_file,
            "needed_by": needed.get(key_id, {}),
            "public_key": store.sealer.public_key(key_id).hex() if in_file else None,
        }


def _needs(store: Opened) -> dict[int, dict[str, int]]:
    needed = count_rows_by_key(store.reader)
    with closing(Captures(store.config.store.path, store.sealer)) as captures:
        for key_id, count in captures.needs().items():
            needed.setdefault(key_id, {})["capture"] = count
    return needed


def _state(key_id: int, now: int, *, dropped: bool) -> str:
    if dropped:
        return "dropped"
    if key_id == now:
        return "in use"
    return "old" if key_id < now else "added"


def _in_words(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"needed_by": [f"{table}={count}" for table, count in state["needed_by"].items()]}


def _unaware(store: Opened, key_id: int) -> list[str]:
    """The relays that serve this store and do not have the key."""
    if isinstance(store.config.store.path, PostgresServer):
        return [f"the node {name}" for name in nodes_without(store.reader, key_id)]
    try:
        answer = ask(store.config, "sealing_keys")
    except Refused as refused:
        if refused.kind == "relay_unavailable" and not is_served(store.config.store.local):
            return []
        raise StoreError(f"the running relay did not say which keys it has: {refused.problem}") from None
    return [] if key_id in answer["ids"] else ["the running relay"]
