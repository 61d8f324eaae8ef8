"""`relay700 seal-key`: another key for what the store seals, while the relay runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from relay.cli import config_option
from relay.cli.asking import ask
from relay.cli.output import show_list
from relay.cli.stores import Opened, opened
from relay.errors import Refused, StoreError
from relay.service import sealing_keys as service
from relay.service.times import format_moment
from relay.store.database import is_newer
from relay.store.key_file import LAST_ID
from relay.store.lock import is_served
from relay.store.reseal import needs, reseal
from relay.store.sealing_keys import key_in_use, nodes_without, sealing_keys
from relay.store.server import Server

_COLUMNS = ("id", "state", "added_at", "used_at", "in_file", "needed_by")
_id = click.argument("key_id", metavar="ID", type=click.IntRange(1, LAST_ID))


@click.group("seal-key")
def seal_key() -> None:
    """The keys that the store is sealed with.

    A new key is added, copied to the other nodes of a shared store, and then used. The old ones stay in the key file
    until nothing needs them any more.
    """


@seal_key.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with the public keys.")
@config_option
def status(config_path: Path | None, as_json: bool) -> None:
    """List the keys, and how many rows of which table need each. It reads the whole store."""
    with opened(config_path) as store:
        found = list(_states(store))
    show_list(found if as_json else map(_in_words, found), _COLUMNS, as_json=as_json)


@seal_key.command("add")
@config_option
def add(config_path: Path | None) -> None:
    """Make a key, in the key file and known to the store. It is not in use yet."""
    with opened(config_path) as store:
        key_file = store.config.store.key_file
        key_id = store.act(lambda act: service.add(act, key_file))
    click.echo(f"added the key {key_id} to {key_file}: keep a copy of that file in another place")


@seal_key.command("use")
@_id
@config_option
def use(config_path: Path | None, key_id: int) -> None:
    """Seal with the key ID from now on, in all processes and nodes at once.

    Refused while one of them has not read it. The relay then reseals what lives on with it, in the background.
    """
    with opened(config_path) as store:
        unaware = _unaware(store, key_id)
        store.act(lambda act: service.use(act, key_id, unaware))
    click.echo(f"the key {key_id} is in use")


@seal_key.command("reseal")
@config_option
def reseal_(config_path: Path | None) -> None:
    """Reseal with the key in use what lives on. The relay does it by itself; this is for one that does not run."""
    with opened(config_path) as store:
        _refuse_newer(store)
        rows = reseal(store.config.store.path, store.sealer)
    click.echo(f"resealed {rows} rows")


@seal_key.command("drop")
@_id
@config_option
def drop(config_path: Path | None, key_id: int) -> None:
    """Delete the key ID from the key file. Refused while something in the store needs it.

    Call records and the audit log need the keys of their time until they are purged.
    """
    with opened(config_path) as store:
        _refuse_newer(store)
        needed = needs(store.reader).get(key_id, {})
        store.act(lambda act: service.drop(act, key_id, needed))
        key_file = store.config.store.key_file
        was_there = service.forget(key_file, key_id, store.sealer.hash_keys)
    click.echo(f"dropped the key {key_id}" + ("" if was_there else f"; {key_file} had it no more"))


def _refuse_newer(store: Opened) -> None:
    """Raises StoreError where there may be rows that this version neither counts nor reseals."""
    place = store.config.store.path
    if is_newer(place):
        raise StoreError(f"a newer relay700 has added to the store {place}: do this with that version")


def _states(store: Opened) -> Iterator[dict[str, Any]]:
    needed = needs(store.reader)
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


def _state(key_id: int, now: int, *, dropped: bool) -> str:
    if dropped:
        return "dropped"
    if key_id == now:
        return "in use"
    return "old" if key_id < now else "added"


def _in_words(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"needed_by": [f"{table}={count}" for table, count in state["needed_by"].items()]}


def _unaware(store: Opened, key_id: int) -> list[str]:
    """Who serves this store and does not have the key."""
    if isinstance(store.config.store.path, Server):
        return [f"the node {name}" for name in nodes_without(store.reader, key_id)]
    try:
        answer = ask(store.config, "sealing_keys")
    except Refused as refused:
        if refused.kind == "relay_unavailable" and not is_served(store.config.store.local):
            return []
        raise StoreError(f"the relay that runs was asked which keys it has: {refused.problem}") from None
    return [] if key_id in answer["ids"] else ["the relay that runs"]
