"""Rows of users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from relay.errors import StoreError
from relay.service import users
from relay.service.users import LogInSecrets
from relay.store.audit import AuditQuery, all_entries
from relay.store.database import connect, transaction
from relay.store.users import find_user
from tests.support.acting import Acting, acting


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as store:
        yield store


def _add(store: Acting, name: str) -> LogInSecrets:
    return store.run(lambda unit: users.add_user(unit, name, "auditor"))[1]


def test_a_user_enabled_in_the_database_is_not_believed(store: Acting) -> None:
    _add(store, "li.na")
    store.run(lambda unit: users.disable_user(unit, "li.na"))
    with closing(connect(store.path)) as thief, transaction(thief):
        thief.execute("UPDATE user_account SET disabled_at = NULL")
    with pytest.raises(StoreError):
        find_user(store.reader, store.sealer, "li.na")


def test_secrets_are_neither_in_the_row_nor_in_the_log(store: Acting) -> None:
    given = _add(store, "li.na")
    secret = parse_qs(urlparse(given.code_uri).query)["secret"][0]
    row = repr(store.reader.execute("SELECT * FROM user_account").fetchall()) + repr(
        find_user(store.reader, store.sealer, "li.na")
    )
    log = repr([each.entry for each in all_entries(store.reader, store.sealer, AuditQuery())])
    for text in (given.password, secret, "argon2"):
        assert text not in row + log
