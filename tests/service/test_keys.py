"""The rules of API keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.errors import Refused
from relay.events.webhooks import make as make_webhook
from relay.service import keys
from relay.service.businesses import set_state
from relay.service.keys import BUSINESS_SCOPES, OPERATOR_SCOPES
from relay.store.audit import AuditQuery, all_entries
from relay.store.keys import ApiKey, find_key
from relay.store.unit_of_work import RELAY, Actor, operator_cli
from relay.store.webhooks import find_webhook
from tests.support.acting import Acting, acting, key_of
from tests.support.papers import apply
from tests.support.stored import NOW_MS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as store:
        for name in ("acme", "other"):
            store.run(lambda unit, name=name: apply(unit, name, name))
        yield store


def made(store: Acting, business: str | None, *scopes: str, actor: Actor = RELAY, **more: Any) -> ApiKey:
    key, _ = store.run(lambda unit: keys.make_key(unit, business, scopes, **more), actor)
    return key


def refused(store: Acting, do: Any, actor: Actor = RELAY) -> tuple[str, str]:
    with pytest.raises(Refused) as refusal:
        store.run(do, actor)
    return refusal.value.kind, refusal.value.field


def found(store: Acting, key_id: str) -> ApiKey:
    key = find_key(store.reader, store.sealer, key_id)
    assert key is not None
    return key


def test_a_key_is_valid_until_its_expiry(store: Acting) -> None:
    key = made(store, "acme", "calls:read", expires_at=NOW_MS + 10)
    assert [found(store, key.id).is_good(NOW_MS + after) for after in (0, 9, 10)] == [True, True, False]


def test_operator_scopes_are_refused_to_a_business_user(store: Acting) -> None:
    assert made(store, "acme", *BUSINESS_SCOPES).scopes == BUSINESS_SCOPES
    assert made(store, None, *OPERATOR_SCOPES).scopes == OPERATOR_SCOPES
    for scopes in (["operator"], ["trace"], ["bindings"], []):
        assert refused(store, lambda unit, of=scopes: keys.make_key(unit, "acme", of)) == ("invalid", "scopes")


def test_an_expiry_in_the_past_is_refused(store: Acting) -> None:
    assert refused(store, lambda unit: keys.make_key(unit, "acme", ["keys"], NOW_MS)) == ("invalid", "expires_at")


def test_a_key_cannot_grant_a_scope_it_lacks(store: Acting) -> None:
    actor = key_of("acme", "keys", "calls:read")
    assert made(store, "acme", "calls:read", actor=actor).scopes == {"calls:read"}
    for scopes in (["parties:read"], ["calls:read", "calls:hangup"]):
        assert refused(store, lambda unit, of=scopes: keys.make_key(unit, "acme", of), actor) == ("forbidden", "scopes")


def test_a_key_cannot_rotate_or_revoke_one_with_more_scopes(store: Acting) -> None:
    strong, weak = made(store, "acme", "keys", "parties:read"), made(store, "acme", "keys")
    actor = key_of("acme", "keys")
    assert refused(store, lambda unit: keys.rotate(unit, strong.id), actor) == ("forbidden", "scopes")
    assert refused(store, lambda unit: keys.revoke(unit, strong.id), actor) == ("forbidden", "key")
    assert found(store, strong.id) == strong
    assert store.run(lambda unit: keys.revoke(unit, weak.id), actor).revoked_at == NOW_MS


@pytest.mark.parametrize("scope", sorted(OPERATOR_SCOPES))
def test_an_operator_key_cannot_grant_or_end_a_scope_it_lacks(store: Acting, scope: str) -> None:
    """The scope "operator" implies no other scope."""
    actor = Actor("key:0123456789ab", None, OPERATOR_SCOPES - {scope})
    strong = made(store, None, scope)
    assert refused(store, lambda unit: keys.rotate(unit, strong.id), actor) == ("forbidden", "scopes")
    assert refused(store, lambda unit: keys.revoke(unit, strong.id), actor) == ("forbidden", "key")
    for owner in (None, "acme") if scope in BUSINESS_SCOPES else (None,):
        making = refused(store, lambda unit, of=owner: keys.make_key(unit, of, [scope]), actor)
        assert making == ("forbidden", "scopes")


def test_the_command_line_has_all_scopes(store: Acting) -> None:
    key = made(store, None, *OPERATOR_SCOPES, actor=operator_cli())
    assert store.run(lambda unit: keys.revoke(unit, key.id), operator_cli()).scopes == OPERATOR_SCOPES


@pytest.mark.parametrize(
    "do",
    [
        lambda unit, key_id: keys.make_key(unit, "other", ["keys"]),
        lambda unit, key_id: keys.make_key(unit, None, ["keys"]),
        lambda unit, key_id: keys.rotate(unit, key_id),
        lambda unit, key_id: keys.revoke(unit, key_id),
    ],
)
@pytest.mark.parametrize("owner", ["other", None])
def test_keys_of_another_owner_are_not_found(store: Acting, owner: str | None, do: Any) -> None:
    key = made(store, owner, "keys")
    kind, _ = refused(store, lambda unit: do(unit, key.id), key_of("acme", "keys"))
    assert kind == "not_found"
    assert found(store, key.id) == key


def test_a_rotated_key_ends_after_the_overlap(store: Acting) -> None:
    old = made(store, "acme", "keys", "lists", expires_at=NOW_MS + 60_000)
    new, text = store.run(lambda unit: keys.rotate(unit, old.id, overlap_s=30))
    assert (new.business, new.scopes, new.expires_at) == ("acme", old.scopes, old.expires_at)
    assert found(store, new.id).is_secret(store.sealer, text.removeprefix(f"rk_{new.id}_"))
    assert found(store, old.id).expires_at == NOW_MS + 30_000


def test_an_overlap_does_not_extend_a_key(store: Acting) -> None:
    old = made(store, "acme", "keys", expires_at=NOW_MS + 1_000)
    store.run(lambda unit: keys.rotate(unit, old.id, overlap_s=30))
    assert found(store, old.id).expires_at == NOW_MS + 1_000
    assert refused(store, lambda unit: keys.rotate(unit, old.id, overlap_s=-1)) == ("invalid", "overlap_s")


def test_a_revoked_key_stays_invalid(store: Acting) -> None:
    key = made(store, "acme", "keys")
    store.run(lambda unit: keys.revoke(unit, key.id, "lost"))
    assert not found(store, key.id).is_good(NOW_MS)
    for do in (keys.revoke, keys.rotate):
        assert refused(store, lambda unit, do=do: do(unit, key.id)) == ("ended", "key")


def test_a_revoked_business_user_cannot_have_keys(store: Acting) -> None:
    store.run(lambda unit: set_state(unit, "acme", "revoke", "fraud"))
    assert refused(store, lambda unit: keys.make_key(unit, "acme", ["keys"])) == ("business_not_approved", "business")


def test_changes_of_keys_are_audited_without_the_secret(store: Acting) -> None:
    key, text = store.run(lambda unit: keys.make_key(unit, "acme", ["keys"]))
    new, _ = store.run(lambda unit: keys.rotate(unit, key.id))
    store.run(lambda unit: keys.revoke(unit, new.id, "lost"))
    log = [logged.entry for logged in all_entries(store.reader, store.sealer, AuditQuery(business="acme"))][1:]
    assert [(entry.action, entry.object_, entry.reason) for entry in log] == [
        ("key.make", key.id, ""),
        ("key.rotate", key.id, ""),
        ("key.revoke", new.id, "lost"),
    ]
    assert text.split("_", 2)[2] not in repr(log)


def test_a_key_cannot_make_one_that_outlives_it(store: Acting) -> None:
    own = made(store, "acme", "keys", expires_at=NOW_MS + 1_000)
    actor = key_of("acme", "keys")._replace(name=f"key:{own.id}")
    for expires_at in (None, NOW_MS + 1_001):
        making = refused(store, lambda unit, at=expires_at: keys.make_key(unit, "acme", ["keys"], at), actor)
        assert making == ("forbidden", "expires_at")
    assert made(store, "acme", "keys", actor=actor, expires_at=NOW_MS + 1_000).expires_at == NOW_MS + 1_000
    endless = made(store, "acme", "keys")
    assert refused(store, lambda unit: keys.rotate(unit, endless.id), actor) == ("forbidden", "expires_at")


def test_an_operator_key_cannot_make_one_that_outlives_it(store: Acting) -> None:
    own = made(store, None, "keys", expires_at=NOW_MS + 1_000)
    actor = Actor(f"key:{own.id}", None, own.scopes)
    assert refused(store, lambda unit: keys.make_key(unit, "acme", ["keys"]), actor) == ("forbidden", "expires_at")
    endless = made(store, None, "keys")
    assert refused(store, lambda unit: keys.rotate(unit, endless.id), actor) == ("forbidden", "expires_at")
    assert made(store, "acme", "keys", actor=actor, expires_at=NOW_MS + 1_000).expires_at == NOW_MS + 1_000


def test_the_valid_keys_of_a_business_user_are_limited(store: Acting) -> None:
    first, *_ = [made(store, "acme", "keys") for _ in range(keys.MOST_KEYS)]
    assert refused(store, lambda unit: keys.make_key(unit, "acme", ["keys"])) == ("quota", "business")
    assert refused(store, lambda unit: keys.rotate(unit, first.id, overlap_s=1)) == ("quota", "business")
    second, _ = store.run(lambda unit: keys.rotate(unit, first.id))
    store.run(lambda unit: keys.revoke(unit, second.id))
    made(store, "acme", "keys", expires_at=NOW_MS + 1_000)
    store.now_ms += 1_000
    made(store, "acme", "keys")
    made(store, "other", "keys")


def test_revoking_a_business_user_ends_its_keys_and_webhooks(store: Acting) -> None:
    ids = {name: made(store, name, "keys").id for name in ("acme", "other")}
    hooks = {name: store.run(lambda unit, name=name: make_webhook(unit, name, "https://x.example/"))[0] for name in ids}
    store.run(lambda unit: set_state(unit, "acme", "revoke", "fraud"))
    assert [found(store, key_id).is_good(NOW_MS) for key_id in ids.values()] == [False, True]
    left = [find_webhook(store.reader, store.sealer, hook.id) for hook in hooks.values()]
    assert [hook and hook.disabled_at for hook in left] == [NOW_MS, None]
