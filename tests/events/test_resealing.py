"""Resealing in the background after a change of the sealing key."""

from __future__ import annotations

from contextlib import closing

from relay.events.timers import AGAIN_S, RETRY_S, ResealTask
from relay.store.database import connect
from relay.store.maintenance import count_rows_by_key
from relay.store.sealing import keys as rotation
from relay.store.sealing.sealer import load_key
from relay.store.unit_of_work import RELAY
from relay.store.writer import GroupWriter, Writer
from tests.events.conftest import Shop
from tests.support.stored import Y, binding, put


async def turned(shop: Shop, writer: GroupWriter) -> None:
    """Change the key in another process; the backend's writer finds it with its next transaction."""
    key_file = shop.path.with_name("relay.key")
    with closing(Writer(shop.path, load_key(key_file))) as other:
        key_id = other.run(RELAY, lambda unit: rotation.add(unit, key_file))
        other.run(RELAY, lambda unit: rotation.use(unit, key_id, []))
    assert shop.sealer.key_id == 1
    await writer.run(RELAY, lambda unit: unit.audit("test", "x"))
    assert shop.sealer.key_id == 2


def resealer(shop: Shop) -> ResealTask:
    return ResealTask(shop.path, shop.sealer, shop.log.logger)


def old_rows(shop: Shop) -> set[str]:
    with closing(connect(shop.path)) as connection:
        return set(count_rows_by_key(connection)[1])


async def test_with_one_key_nothing_is_resealed(shop: Shop) -> None:
    assert await resealer(shop).make_pass() == AGAIN_S
    assert shop.log.events() == []


async def test_a_key_changed_by_another_process_reseals_once(shop: Shop, writer: GroupWriter) -> None:
    put(shop.path, shop.sealer, binding(business="shop"))
    await turned(shop, writer)
    assert "binding" in old_rows(shop)
    assert await resealer(shop).make_pass() == AGAIN_S
    assert old_rows(shop) == {"audit"}
    assert shop.log.events() == ["reseal.done"]


async def test_an_altered_row_is_logged_and_the_others_are_resealed(shop: Shop, writer: GroupWriter) -> None:
    made = [binding("b1", business="shop"), binding("b2", business="shop", x=Y)]
    put(shop.path, shop.sealer, *made)
    await turned(shop, writer)
    with closing(connect(shop.path)) as connection:
        connection.execute("UPDATE binding SET sealed = substr(sealed, 1, 40) WHERE id = 'b1'")
    assert await resealer(shop).make_pass() == RETRY_S
    ((event, fields),) = shop.log.said
    assert event == "reseal.failed"
    assert fields["reason"].startswith("1 rows cannot be opened, and were not resealed: binding: ")
    assert shop.rows("SELECT id, hex(substr(sealed, 1, 1)) FROM binding ORDER BY id") == [("b1", "01"), ("b2", "02")]
