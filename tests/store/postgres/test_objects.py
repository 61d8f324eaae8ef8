"""The version of a server's schema changes with each object; tests/store/test_schema_check.py has the attacks."""

from __future__ import annotations

from contextlib import closing

import pytest

from relay.store.database import connect
from relay.store.ledger_tables import POSTGRES, triggers
from relay.store.postgres.objects import HASH, VERSION
from tests.support.acting import Acting

pytestmark = [pytest.mark.outside, pytest.mark.parametrize("store_kind", ["postgresql"], indirect=True)]


def test_version_changes_with_a_function_that_is_written_again_as_it_was(store: Acting) -> None:
    function, _ = triggers(POSTGRES)["ledger_webhook_insert"]
    with closing(connect(store.path)) as owner:
        version, found = owner.execute(VERSION).fetchone(), owner.execute(HASH).fetchone()
        assert owner.execute(VERSION).fetchone() == version
        owner.execute(function)
        assert owner.execute(VERSION).fetchone() != version
        assert owner.execute(HASH).fetchone() == found
