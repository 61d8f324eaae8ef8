"""Captures on a file and on a server: one contract."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from relay.errors import StoreError
from relay.model.capture import CapturedCall, registrations_of
from relay.store.captures import MOST_LOADED, Captures
from relay.store.connection import Connection, PostgresServer
from relay.store.database import connect
from relay.store.sealing.keys import add, use
from relay.store.sqlite.captures import CaptureFile
from tests.support.acting import Acting
from tests.support.captured import ADDRESS, CALLEE, CALLER, NAME, call_id_of, captured
from tests.support.stored import NOW_MS

DAY_MS = 86_400_000
BIG = 1 << 40


@pytest.fixture
def captures(store: Acting) -> Iterator[Captures]:
    with closing(Captures(store.path, store.sealer)) as captures:
        yield captures


def table(store: Acting) -> Connection:
    """A connection of a thief to the table of captures."""
    if isinstance(store.path, PostgresServer):
        return connect(store.path)
    return CaptureFile(store.path).connect()


def kept(captures: Captures, until: int) -> list[int]:
    return [number for number in range(until) if captures.load(call_id_of(number)) is not None]


def test_a_call_is_loaded_as_it_was_saved(captures: Captures) -> None:
    captures.save([captured(1), captured(2)])
    assert captures.load(call_id_of(1)) == captured(1)
    assert captures.load(call_id_of(3)) is None


def test_nothing_is_there_before_the_first_call_is_saved(captures: Captures) -> None:
    assert captures.load(call_id_of(1)) is None
    assert captures.trim(0, NOW_MS) == captures.count_before(NOW_MS) == captures.sizes().rows == 0
    assert captures.verify() == (0, [])


def test_a_call_saved_twice_is_kept_once(captures: Captures) -> None:
    """Such as after a commit whose answer was lost."""
    captures.save([captured(1)])
    captures.save([captured(1), captured(2)])
    assert captures.load(call_id_of(1)) == captured(1)
    assert captures.sizes().rows == 2


def test_the_parts_of_a_call_are_joined_in_the_order_of_time(captures: Captures) -> None:
    later, first = captured(1, NOW_MS + 60_000)._replace(lost=2), captured(1)
    captures.save([later])
    captures.save([first])
    loaded = captures.load(call_id_of(1))
    assert loaded is not None
    assert loaded.messages == first.messages + later.messages
    assert (loaded.dialogs, loaded.marks, loaded.lost) == (first.dialogs, first.marks + later.marks, 2)


@pytest.mark.parametrize("noise", [0, 30_000])
def test_of_registrations_without_end_the_newest_are_loaded(captures: Captures, noise: int) -> None:
    """A peer may fill 1 MB in 40 s, for days: whoever looks at them must not wait for all, nor run out of memory."""
    name = registrations_of("carrier")
    messages, times = (20, 12) if noise else (4_000, 9)
    for number in range(times):
        captures.save([captured(number, NOW_MS + number * 40_000, noise, name, messages)])
    loaded = captures.load(name)
    assert loaded is not None
    assert loaded.messages[-1].at_us == (NOW_MS + (times - 1) * 40_000 + messages - 1) * 1000
    assert MOST_LOADED < sum(len(message.data) for message in loaded.messages) < MOST_LOADED + 1_000_000


def test_a_call_without_messages_is_not_saved(captures: Captures) -> None:
    captures.save([captured(1, messages=0)])
    assert captures.sizes().rows == 0


def test_the_oldest_calls_go_first_above_the_limit(captures: Captures) -> None:
    for number in range(60):
        captures.save([captured(number, NOW_MS + number, noise=5_000)])
    assert captures.trim(300_000, 0) > 0
    left = kept(captures, 60)
    assert left == list(range(60 - len(left), 60))
    assert 200_000 < captures.sizes().size <= 300_000


def of_peer(call: CapturedCall, peer: str, business: str = "", *, is_armed: bool = False) -> CapturedCall:
    dialogs = tuple(dialog._replace(peer=peer) for dialog in call.dialogs)
    return call._replace(dialogs=dialogs, business=business, is_armed=is_armed)


def test_a_flood_of_one_peers_failed_calls_pushes_out_no_call_of_another(captures: Captures) -> None:
    """3,200 failed calls of one peer pushed out the ladder that an operator had armed."""
    captures.save([of_peer(captured(0, NOW_MS, noise=5_000), "pbx", is_armed=True)])
    captures.save([of_peer(captured(1, NOW_MS, noise=5_000), "pbx")])
    captures.save([of_peer(captured(2, NOW_MS, noise=5_000), "flood", "small")])
    for first in range(3, 303, 50):
        flood = [captured(number, NOW_MS + number, noise=5_000) for number in range(first, first + 50)]
        captures.save([of_peer(call, "flood", "big") for call in flood])
        captures.trim(300_000, 0)
    left = kept(captures, 303)
    assert left == [0, 1, 2, *range(303 - len(left) + 3, 303)]
    assert 200_000 < captures.sizes().size <= 300_000


def test_what_was_asked_for_goes_last(captures: Captures) -> None:
    armed = [of_peer(captured(number, NOW_MS + number, noise=5_000), "pbx", is_armed=True) for number in range(20)]
    failed = [of_peer(captured(number, NOW_MS + number, noise=5_000), "carrier") for number in range(20, 40)]
    captures.save([*armed, *failed])
    captures.trim(300_000, 0)
    assert kept(captures, 40)[:20] == list(range(20))
    captures.trim(120_000, 0)
    left = kept(captures, 40)
    assert left == list(range(20 - len(left), 20))


def test_calls_go_by_age(captures: Captures) -> None:
    captures.save([captured(number, NOW_MS - number * DAY_MS) for number in range(5)])
    before_ms = NOW_MS - 2 * DAY_MS
    assert captures.count_before(before_ms) == 2
    assert captures.trim(BIG, before_ms) == 2
    assert kept(captures, 5) == [0, 1, 2]


def test_everything_may_go(captures: Captures) -> None:
    captures.save([captured(number, NOW_MS - number * DAY_MS) for number in range(3)])
    assert captures.trim(0, 0) == 3
    captures.save([captured(7)])
    assert kept(captures, 9) == [7]


def test_threads_share_it(captures: Captures) -> None:
    def save(first: int) -> None:
        for number in range(first, first + 10):
            captures.save([captured(number, NOW_MS + number)])

    threads = [threading.Thread(target=save, args=(first,)) for first in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept(captures, 30) == list(range(30))


def test_a_thief_sees_no_number_name_or_address(store: Acting, captures: Captures) -> None:
    captures.save([captured(1), captured(2, call_id=registrations_of("carrier"))])
    with closing(table(store)) as thief:
        rows = thief.execute("SELECT * FROM capture").fetchall()
    stolen = repr(rows).encode() + b"".join(value for row in rows for value in row if isinstance(value, bytes))
    if not isinstance(store.path, PostgresServer):
        stolen += b"".join(file.read_bytes() for file in store.path.parent.glob("relay.db*"))
    for mark in (CALLER, CALLEE, ADDRESS, NAME, "canary", "7001000000"):
        assert mark[-10:].encode() not in stolen
    assert call_id_of(1).encode() in stolen  # it is the right table


def test_a_capture_opens_only_in_its_place(store: Acting, captures: Captures) -> None:
    captures.save([captured(1), captured(2)])
    with closing(table(store)) as thief:
        (sealed,) = thief.execute("SELECT sealed FROM capture WHERE call_id = ?", (call_id_of(2),)).fetchone()
        thief.execute("UPDATE capture SET sealed = ? WHERE call_id = ?", (sealed, call_id_of(1)))
    with pytest.raises(StoreError, match=f"the capture of {call_id_of(1)} cannot be opened"):
        captures.load(call_id_of(1))
    intact, faults = captures.verify()
    assert intact == 1
    assert [call_id_of(1) in fault for fault in faults] == [True]


def test_captures_are_resealed_with_the_key_in_use(store: Acting, captures: Captures) -> None:
    captures.save([captured(number) for number in range(3)])
    assert captures.needs() == {1: 3}
    key_file = store.path.local.with_name("relay.key") if isinstance(store.path, PostgresServer) else None
    key_file = key_file or store.path.with_name("relay.key")  # type: ignore[union-attr]
    new = store.run(lambda unit: add(unit, key_file))
    store.run(lambda unit: use(unit, new, []))
    captures.save([captured(3)])
    assert captures.needs() == {1: 3, new: 1}
    assert captures.reseal(lambda: False) == 0
    assert captures.reseal() == 3
    assert captures.needs() == {new: 4}
    assert captures.verify() == (4, [])
    assert captures.load(call_id_of(1)) == captured(1)
