"""`relay700 numbers` and `pools`: the platform's prefixes and 700 numbers, and the pools they are in."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import click

from relay.cli import config_option, say
from relay.cli.options import (
    NONE,
    Opened,
    duration,
    every,
    json_option,
    limit_option,
    needed_reason,
    opened,
    or_none,
    reason_option,
    required,
    stacked,
)
from relay.cli.options import number as any_number
from relay.cli.output import plain, show_list, show_one
from relay.errors import StoreError
from relay.service import numbers as service
from relay.service.fields import format_moment
from relay.service.numbers import PREFIX_STATES, PoolChange, PrefixChange
from relay.store.numbers import (
    Number,
    NumberQuery,
    Pool,
    Prefix,
    State,
    find_number,
    find_numbers,
    find_pool,
    find_pools,
    find_prefixes,
    usage,
)
from relay.store.writer import now_ms

_COLUMNS = ("number", "pool", "state", "locked_by", "bindings", "cools_until")
_PREFIX_COLUMNS = ("prefix", "operator", "platform", "peer", "state", "cool_down_s", "created_at")
_POOL_COLUMNS = ("id", "business", "area", "max_bindings", "warn_percent")
_USAGE_COLUMNS = ("pool", "business", "total", "free", "bound", "cooling", "locked", "bindings", "percent", "warning")


@click.group()
def numbers() -> None:
    """The platform's prefixes and 700 numbers."""


@numbers.command("load")
@click.argument("prefix")
@click.option("--peer", default="", metavar="NAME", help="[[peer]] of the carrier.")
@click.option("--pool", default="default", metavar="ID", show_default=True, help="Pool to put them into.")
@click.option(
    "--cool-down", type=duration, metavar="TIME", help="Rest before re-use, such as 12h. Default: as configured."
)
@config_option
def load(config_path: Path | None, prefix: str, peer: str, pool: str, cool_down: int | None) -> None:
    """Put the 10,000 numbers of PREFIX into a pool. PREFIX is the 11 managed digits."""
    wanted = service.new_prefix(prefix, peer, cool_down)
    with opened(config_path, make=True) as store:
        count = store.run(lambda unit: service.load_prefix(unit, wanted, pool, _peers(store)))
    say(f"{count} numbers loaded")


@numbers.command("prefixes")
@limit_option
@json_option
@config_option
def prefixes(config_path: Path | None, limit: int | None, as_json: bool) -> None:
    """List prefixes."""
    with opened(config_path) as store:
        found = every(partial(find_prefixes, store.reader), "", lambda prefix: prefix.prefix)
        show_list(map(_prefix, found), _PREFIX_COLUMNS, as_json=as_json, limit=limit)


@numbers.command("prefix")
@click.argument("prefix")
@click.option(
    "--state", type=click.Choice(PREFIX_STATES), help="locked: calls are refused; returned: refused for good."
)
@click.option("--peer", metavar="NAME", help="[[peer]] of the carrier.")
@click.option(
    "--cool-down",
    "cool_down_ms",
    type=or_none(duration),
    metavar="TIME|none",
    help="Rest before re-use; none: as configured.",
)
@reason_option
@json_option
@config_option
def prefix_(
    config_path: Path | None,
    prefix: str,
    reason: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Change a prefix. Options not given keep their value."""
    asked = cast(PrefixChange, _given(options, "cool_down_ms"))
    with opened(config_path) as store:
        changed = store.run(lambda unit: service.change_prefix(unit, prefix, asked, reason, _peers(store)))
    show_one(_prefix(changed), as_json=as_json)


@numbers.command("list")
@click.option("--pool", metavar="ID", help="Only numbers of this pool.")
@click.option("--prefix", metavar="DIGITS", help="Only numbers that begin with these digits.")
@click.option("--state", type=click.Choice(get_args(State)), help="Only numbers in this state.")
@limit_option
@json_option
@config_option
def list_(
    config_path: Path | None,
    pool: str | None,
    prefix: str | None,
    state: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List numbers and their state, in ascending order."""
    query = NumberQuery(pool, prefix, state)
    with opened(config_path) as store:
        found = every(
            partial(find_numbers, store.reader, query, now_ms()),
            "",
            lambda number: number.number,
        )
        show_list(map(_number, found), _COLUMNS, as_json=as_json, limit=limit)


@numbers.command("show")
@click.argument("number", type=any_number)
@json_option
@config_option
def show_(config_path: Path | None, number: str, as_json: bool) -> None:
    """Show one number."""
    with opened(config_path) as store:
        found = find_number(store.reader, number, now_ms())
    if found is None:
        raise StoreError("not a number of this platform: `relay700 numbers prefixes` lists its prefixes")
    show_one(_number(found), as_json=as_json)


@numbers.command("lock")
@click.argument("number", type=any_number)
@needed_reason
@config_option
def lock(config_path: Path | None, number: str, reason: str) -> None:
    """Lock a number: its calls are refused from the next one on."""
    with opened(config_path) as store:
        found = store.run(lambda unit: service.lock(unit, number, reason))
    say(f"{found.number} is {found.state}")


@numbers.command("unlock")
@click.argument("number", type=any_number)
@reason_option
@config_option
def unlock(config_path: Path | None, number: str, reason: str) -> None:
    """Unlock a number, also one locked for fraud."""
    with opened(config_path) as store:
        found = store.run(lambda unit: service.unlock(unit, number, reason))
    say(f"{found.number} is {found.state}")


@numbers.command("hold")
@click.argument("number", type=any_number)
@reason_option
@config_option
def hold(config_path: Path | None, number: str, reason: str) -> None:
    """Keep a number from new bindings; its bindings and calls go on."""
    with opened(config_path) as store:
        found = store.run(lambda unit: service.hold(unit, number, reason))
    say(f"{found.number} is held")


@numbers.command("unhold")
@click.argument("number", type=any_number)
@reason_option
@config_option
def unhold(config_path: Path | None, number: str, reason: str) -> None:
    """Let a held number get new bindings."""
    with opened(config_path) as store:
        found = store.run(lambda unit: service.unhold(unit, number, reason))
    say(f"{found.number} is {found.state}")


@numbers.command("move")
@click.argument("numbers", nargs=-1, required=True, type=any_number)
@click.option("--pool", required=True, metavar="ID", help="Pool to move them to.")
@config_option
def move(config_path: Path | None, numbers: tuple[str, ...], pool: str) -> None:
    """Move numbers to another pool. Their bindings stay."""
    with opened(config_path) as store:
        count = store.run(lambda unit: service.move(unit, numbers, pool))
    say(f"{count} moved")


@numbers.command("end-rest")
@needed_reason
@config_option
def end_rest(config_path: Path | None, reason: str) -> None:
    """End the rest of all free numbers that `verify --accept` began.

    The next bindings may then get numbers of bindings that the restored store lacks: late call-backs would reach
    another customer. Numbers in the cool-down of a binding rest on.
    """
    with opened(config_path) as store:
        count = store.run(lambda unit: service.end_rest(unit, reason))
    say(f"{count} numbers rest no longer")


@click.group()
def pools() -> None:
    """Pools of free numbers, and their usage."""


_limits = stacked(
    click.option("--area", metavar="TEXT", help="Area of the numbers, such as beijing."),
    click.option("--max-bindings", type=int, metavar="N", help="Maximum number of bindings per number."),
    click.option("--warn-percent", type=int, metavar="N", help="Usage, in percent, from which on to warn."),
)


@pools.command("make")
@click.argument("pool_id", metavar="ID")
@click.option("--business", metavar="ID", help="Owner. Default: shared by business users without a pool.")
@_limits
@json_option
@config_option
def make(config_path: Path | None, pool_id: str, as_json: bool, **options: Any) -> None:
    """Make a pool. Fill it with `numbers load --pool` or `numbers move`."""
    wanted = service.new_pool(pool_id, **_given(options, "business"))
    with opened(config_path, make=True) as store:
        pool = store.run(lambda unit: service.make_pool(unit, wanted))
    show_one(_pool(pool), as_json=as_json)


@pools.command("change")
@click.argument("pool_id", metavar="ID")
@click.option("--business", metavar="ID|none", help="Owner; none: shared by business users without a pool.")
@_limits
@json_option
@config_option
def change(config_path: Path | None, pool_id: str, as_json: bool, **options: Any) -> None:
    """Change a pool. Options not given keep their value."""
    asked = cast(PoolChange, _given(options, "business"))
    with opened(config_path) as store:
        pool = store.run(lambda unit: service.change_pool(unit, pool_id, asked))
    show_one(_pool(pool), as_json=as_json)


@pools.command("show")
@click.argument("pool_id", metavar="ID")
@json_option
@config_option
def show_pool(config_path: Path | None, pool_id: str, as_json: bool) -> None:
    """Show one pool."""
    with opened(config_path) as store:
        pool = required(find_pool(store.reader, pool_id), "pool", "pools list")
    show_one(_pool(pool), as_json=as_json)


@pools.command("list")
@limit_option
@json_option
@config_option
def list_pools(config_path: Path | None, limit: int | None, as_json: bool) -> None:
    """List pools."""
    with opened(config_path) as store:
        found = every(partial(find_pools, store.reader, None), "", lambda pool: pool.pool_id)
        show_list(map(_pool, found), _POOL_COLUMNS, as_json=as_json, limit=limit)


@pools.command("usage")
@json_option
@config_option
def usage_(config_path: Path | None, as_json: bool) -> None:
    """Show the usage of each pool. `warning`: warn_percent is reached."""
    with opened(config_path) as store:
        found = usage(store.reader, now_ms())
    show_list((_with_pool_as("pool", each) for each in found), _USAGE_COLUMNS, as_json=as_json)


def _given(options: dict[str, Any], clearable: str = "") -> dict[str, Any]:
    """The options that were given; "none" or "" for `clearable` becomes None."""
    found = {name: value for name, value in options.items() if value is not None}
    if found.get(clearable) in (NONE, ""):
        found[clearable] = None
    return found


def _peers(store: Opened) -> list[str]:
    """The names of the configured peers."""
    return [peer.name for peer in store.config.settings.peers]


def _prefix(prefix: Prefix) -> dict[str, Any]:
    values = plain(prefix)
    cool_down_ms = values.pop("cool_down_ms")
    return values | {"cool_down_s": None if cool_down_ms is None else cool_down_ms // 1000}


def _number(number: Number) -> dict[str, Any]:
    values = plain(number)
    del values["locked"]
    return values | {
        "locked_by": number.locked_by,
        "cools_until": format_moment(number.cools_until) if number.cools_until > now_ms() else None,
    }


def _pool(pool: Pool) -> dict[str, Any]:
    return _with_pool_as("id", pool)


def _with_pool_as(new: str, value: Any) -> dict[str, Any]:
    """The fields of a value, with another name for `pool_id`."""
    return {new if name == "pool_id" else name: each for name, each in plain(value).items()}
