"""The rules of users: roles, log-in, lock-out, the last operator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pyotp
import pytest

from relay.errors import Refused
from relay.service import users
from relay.service.businesses import set_state
from relay.service.users import LOCKED_MS, MOST_FAILURES, ROLES, STEP_MS, LoggedIn, LogInSecrets, Role
from relay.store.audit import AuditQuery, all_entries
from relay.store.unit_of_work import OPERATOR, Actor
from relay.store.users import UserAccount, find_user, list_users
from tests.support.acting import Acting, acting
from tests.support.papers import apply


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as store:
        store.run(lambda unit: apply(unit, "acme", "acme"))
        yield store


def added(store: Acting, name: str, role: Role = "operator", business: str | None = None) -> LogInSecrets:
    return store.run(lambda unit: users.add_user(unit, name, role, business))[1]


def found(store: Acting, name: str) -> UserAccount:
    user = find_user(store.reader, store.sealer, name)
    assert user is not None
    return user


def code_of(store: Acting, given: LogInSecrets) -> str:
    secret = parse_qs(urlparse(given.code_uri).query)["secret"][0]
    return pyotp.TOTP(secret).generate_otp(store.now_ms // STEP_MS)


def logs_in(store: Acting, name: str, password: str, code: str) -> bool:
    user = find_user(store.reader, store.sealer, name)
    is_password = users.check_password(user, password)
    return store.run(lambda unit: users.note_log_in(unit, user, code, is_password=is_password)) is not None


def refused(store: Acting, do: object, actor: Actor | None = None) -> tuple[str, str]:
    with pytest.raises(Refused) as refusal:
        store.run(do, *([actor] if actor else []))  # type: ignore[arg-type]
    return refusal.value.kind, refusal.value.field


def test_password_and_code_log_in_and_a_code_only_once(store: Acting) -> None:
    given = added(store, "li.na")
    code = code_of(store, given)
    assert not logs_in(store, "li.na", "wrong password", code)
    assert not logs_in(store, "li.na", given.password, "000000" if code != "000000" else "111111")
    assert logs_in(store, "li.na", given.password, code)
    assert not logs_in(store, "li.na", given.password, code)
    store.now_ms += 2 * STEP_MS
    assert not logs_in(store, "li.na", given.password, code)
    assert logs_in(store, "li.na", given.password, code_of(store, given))


def test_failures_lock_whatever_is_given_then_and_the_lock_ends(store: Acting) -> None:
    given = added(store, "li.na")
    for _ in range(MOST_FAILURES):
        assert not logs_in(store, "li.na", "wrong password", "")
    assert not logs_in(store, "li.na", given.password, code_of(store, given))
    store.now_ms += LOCKED_MS
    assert not logs_in(store, "li.na", "wrong password", "")  # locks again
    store.now_ms += LOCKED_MS - 1
    assert not logs_in(store, "li.na", given.password, code_of(store, given))
    store.now_ms += 1
    assert logs_in(store, "li.na", given.password, code_of(store, given))
    assert found(store, "li.na").failures == 0


def test_a_password_checked_before_a_reset_is_not_taken_after_it(store: Acting) -> None:
    given = added(store, "li.na")
    before = found(store, "li.na")
    _, later = store.run(lambda unit: users.reset_user(unit, "li.na"))
    code = code_of(store, later)
    assert store.run(lambda unit: users.note_log_in(unit, before, code, is_password=True)) is None
    assert not logs_in(store, "li.na", given.password, code)


def test_an_unknown_name_is_counted_without_its_text(store: Acting) -> None:
    assert not logs_in(store, "13800000001", "13800000001", "1")
    entries = [each.entry for each in all_entries(store.reader, store.sealer, AuditQuery())]
    assert entries[-1].action == "user.log_in_failed"
    assert "1380" not in repr(entries[-1])


def test_the_last_operator_stays(store: Acting) -> None:
    added(store, "li.na")
    added(store, "wang", "auditor")
    assert refused(store, lambda unit: users.disable_user(unit, "li.na")) == ("state_conflict", "name")
    assert refused(store, lambda unit: users.set_role(unit, "li.na", "auditor")) == ("state_conflict", "role")
    store.run(lambda unit: users.set_role(unit, "wang", "operator"))
    store.run(lambda unit: users.disable_user(unit, "li.na"))
    assert refused(store, lambda unit: users.disable_user(unit, "wang")) == ("state_conflict", "name")


def test_nobody_gives_or_takes_over_rights_that_he_lacks(store: Acting) -> None:
    added(store, "li.na")
    key = Actor("key:0123456789ab", None, OPERATOR - {"parties:read"})
    assert refused(store, lambda unit: users.add_user(unit, "wang", "operator"), key) == ("forbidden", "role")
    for do in (users.reset_user, users.disable_user):
        assert refused(store, lambda unit, do=do: do(unit, "li.na"), key) == ("forbidden", "name")
    assert refused(store, lambda unit: users.set_role(unit, "li.na", "auditor"), key) == ("forbidden", "name")


@pytest.mark.parametrize(
    ("name", "role", "business", "field"),
    [
        ("Li", "operator", None, "name"),
        ("x13800000001", "operator", None, "name"),
        ("li.na", "king", None, "role"),
        ("li.na", "operator", "acme", "business"),
        ("li.na", "business_admin", None, "business"),
        ("li.na", "business_admin", "nobody", "business"),
    ],
)
def test_a_bad_user_is_refused_with_the_field(
    store: Acting, name: str, role: Role, business: str | None, field: str
) -> None:
    assert refused(store, lambda unit: users.add_user(unit, name, role, business))[1] == field
    assert list_users(store.reader, store.sealer, "", 10) == []


def test_a_user_of_a_revoked_business_user_is_disabled(store: Acting) -> None:
    added(store, "boss", "business_admin", "acme")
    assert LoggedIn(found(store, "boss")).is_good(store.now_ms)
    store.run(lambda unit: set_state(unit, "acme", "revoke", "fraud"))
    assert not LoggedIn(found(store, "boss")).is_good(store.now_ms)


def test_a_reset_enables_and_unlocks_with_new_secrets(store: Acting) -> None:
    added(store, "li.na")
    given = added(store, "wang")
    store.run(lambda unit: users.disable_user(unit, "wang"))
    assert not logs_in(store, "wang", given.password, code_of(store, given))
    _, later = store.run(lambda unit: users.reset_user(unit, "wang"))
    assert not logs_in(store, "wang", given.password, code_of(store, given))
    assert logs_in(store, "wang", later.password, code_of(store, later))


def test_own_password_changes_with_the_current_one_only(store: Acting) -> None:
    given = added(store, "li.na")
    user = found(store, "li.na")
    new = "correct horse battery"
    hash_ = users.hash_password(new)
    assert store.run(lambda unit: users.change_password(unit, user, hash_, is_password=False)) is None
    assert (found(store, "li.na").failures, found(store, "li.na").must_change) == (1, True)
    assert store.run(lambda unit: users.change_password(unit, user, hash_, is_password=True))
    assert not found(store, "li.na").must_change
    assert logs_in(store, "li.na", new, code_of(store, given))
    for bad in ("short", "li.na-li.na-li.na", "aaaaaaaaaaaaaaa", "x" * 300):
        with pytest.raises(Refused):
            users.check_new_password(user, bad)


def test_only_roles_with_the_right_see_real_numbers() -> None:
    assert {role for role, scopes in ROLES.items() if "parties:read" in scopes} == {
        *("operator", "compliance", "business_admin")
    }
