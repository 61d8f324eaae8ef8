"""`relay700 webhooks`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from relay.store.database import open_store
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.webhooks import dead_letter, queue_event
from relay.store.writer import Writer
from tests.cli.conftest import Command

URL = "https://shop.example/events"


@pytest.fixture
def made(relay700: Command) -> dict[str, Any]:
    (made,) = relay700.objects("webhooks", "make", URL, "--kind", "call.ended", "--kind", "number.cooling")
    return made


def give_up(unit: UnitOfWork, event_id: str) -> None:
    queue_event(unit, "default", "call.ended", event_id, {"caller": "8613800000001"})
    dead_letter(unit, [seq for (seq,) in unit.connection.execute("SELECT seq FROM outbox")], "404 Not Found")


def leave_dead(relay700: Command, *event_ids: str) -> None:
    """Dead letters of the business `default`."""
    path, key_file = relay700.store
    with closing(Writer(path, open_store(path, key_file))) as writer:
        for event_id in event_ids:
            writer.run(RELAY, partial(give_up, event_id=event_id))


def test_a_webhook_shows_its_secret_once(relay700: Command, made: dict[str, Any]) -> None:
    assert made["secret"].startswith("whsec_")
    (listed,) = relay700.objects("webhooks", "list", "--business", "default")
    assert "secret" not in listed
    assert (listed["id"], listed["url"], listed["kinds"]) == (made["id"], URL, ["call.ended", "number.cooling"])
    assert (listed["parties"], listed["disabled_at"], listed["next_at"]) == ("masked", None, None)
    assert URL in relay700.done("webhooks", "list")


def test_invalid_webhooks_are_refused_in_one_line(relay700: Command, usage: Callable[..., str]) -> None:
    assert relay700.refused("webhooks", "make", "http://shop.example/events").startswith("url: write https")
    assert relay700.refused("webhooks", "make", "shop.example").startswith("url: write a URL without user")
    assert relay700.refused("webhooks", "make", URL, "--business", "nobody").startswith("business: there is no")
    assert relay700.refused("webhooks", "dead", "nothing").startswith("there is no such webhook")
    assert "--kind" in usage("webhooks", "make", URL, "--kind", "call.lost")


def test_a_webhook_is_shown_and_changed(relay700: Command, made: dict[str, Any]) -> None:
    (changed,) = relay700.objects("webhooks", "change", made["id"], "--url", f"{URL}/2", "--parties", "none")
    assert (changed["url"], changed["parties"], changed["kinds"]) == (f"{URL}/2", "none", made["kinds"])
    (disabled,) = relay700.objects("webhooks", "change", made["id"], "--disabled", "--kind", "call.refused")
    assert disabled["disabled_at"] is not None and disabled["kinds"] == ["call.refused"]
    assert relay700.objects("webhooks", "show", made["id"]) == [disabled]
    assert f"{URL}/2" in relay700.done("webhooks", "show", made["id"])
    (enabled,) = relay700.objects("webhooks", "change", made["id"], "--enabled")
    assert enabled == disabled | {"disabled_at": None, "enabled": True}
    assert relay700.refused("webhooks", "show", "nothing").startswith("there is no such webhook")


def test_dead_letters_are_listed_without_numbers_and_resent(relay700: Command, made: dict[str, Any]) -> None:
    leave_dead(relay700, "c1.ended", "c2.ended", "c3.ended")
    dead = relay700.objects("webhooks", "dead", made["id"])
    assert [(event["event_id"], event["last_error"]) for event in dead] == [
        (f"c{n}.ended", "404 Not Found") for n in (3, 2, 1)
    ]
    assert "13800000001" not in relay700.done("webhooks", "dead", made["id"])
    assert relay700.done("webhooks", "resend", made["id"], "c2.ended") == "1 to be sent again\n"
    assert relay700.done("webhooks", "resend", made["id"]) == "2 to be sent again\n"
    assert relay700.objects("webhooks", "dead", made["id"]) == []


def test_a_webhook_is_tested_and_removed(relay700: Command, made: dict[str, Any]) -> None:
    assert relay700.done("webhooks", "test", made["id"]).startswith(f"event {made['id']}.test.")
    assert relay700.done("webhooks", "enable", made["id"]) == f"enabled {made['id']}\n"
    assert relay700.done("webhooks", "remove", made["id"]) == f"removed {made['id']}\n"
    assert relay700.objects("webhooks", "list") == []
