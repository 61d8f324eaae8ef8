"""Users: people who log in to the console.

Owns the table `user_account`. `relay.service.users` has the rules. Password hash and secret of the codes are sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from relay.errors import StoreError
from relay.store.connection import Connection
from relay.store.proven_reads import proven_row, proven_rows
from relay.store.sealing.rows import SealedRows
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

_CHANGED = (
    *("role", "business", "sealed", "must_change", "password_at", "created_at", "created_by", "disabled_at"),
    *("failures", "locked_until", "last_step"),
)
_COLUMNS = ", ".join(("name", *_CHANGED))
_FIND = f"SELECT {_COLUMNS} FROM user_account WHERE name = ?"
_PAGE = f"SELECT {_COLUMNS} FROM user_account WHERE name > ? ORDER BY name LIMIT ?"
_IN_ROLE = "SELECT name FROM user_account WHERE role = ? AND disabled_at IS NULL ORDER BY name"
_PUT = f"""
INSERT INTO user_account ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _CHANGED)}
"""
_OWNER = "SELECT state, updated_at FROM business WHERE id = ?"
_decode = msgspec.msgpack.Decoder(tuple[str, str]).decode


class UserAccount(NamedTuple):
    """A user. Times are Unix milliseconds."""

    name: str
    role: str
    business: str | None  # None: one of the operator's people
    password_hash: str  # argon2id, with its parameters and salt
    code_secret: str  # base32, of the codes by RFC 6238
    must_change: bool  # the password is the first one
    password_at: int  # when the password was set
    created_at: int
    created_by: str
    disabled_at: int | None = None
    failures: int = 0  # failed log-ins in a row
    locked_until: int | None = None
    last_step: int | None = None  # half-minute since 1970 of the last code

    def __repr__(self) -> str:
        return f"UserAccount({self.name!r}, {self.role!r}, {self.business!r})"  # without secrets, for logs


def put_user(unit: UnitOfWork, user: UserAccount) -> UserAccount:
    """Add or replace a user."""
    secrets = msgspec.msgpack.encode((user.password_hash, user.code_secret))
    sealed = unit.sealer.seal(secrets, _context(user.name, user.role, user.business))
    unit.connection.execute(_PUT, (*user[:3], sealed, int(user.must_change), *user[6:]))
    return user


def find_user(connection: Connection, sealer: Sealer, name: str) -> UserAccount | None:
    """The user of this name; None if there is none. Raises StoreError if the row is not proven.

    A user of a revoked business user is disabled.
    """
    row = proven_row(connection, sealer, "user_account", name, _FIND, (name,))
    if row is None:
        return None
    user = _open(sealer, row)
    if user.business is None or user.disabled_at is not None:
        return user
    owner = proven_row(connection, sealer, "business", user.business, _OWNER, (user.business,))
    return user if owner is not None and owner[0] != "revoked" else user._replace(disabled_at=owner[1] if owner else 0)


def list_users(connection: Connection, sealer: Sealer, after: str, most: int) -> Sequence[UserAccount]:
    """A page of users by name, after the name `after`. Raises StoreError if a row is not proven."""
    rows = proven_rows(connection, sealer, "user_account", _PAGE, (after, most))
    return [_open(sealer, row) for row in rows]


def names_in_role(unit: UnitOfWork, role: str) -> list[str]:
    """The users of a role who are not disabled; on a server they stay so until the unit of work ends."""
    return [name for (name,) in proven_rows(unit.connection, unit.sealer, "user_account", _IN_ROLE, (role,))]


def _open(sealer: Sealer, row: tuple[Any, ...]) -> UserAccount:
    name, role, business, sealed, must_change, *rest = row
    try:
        secrets = _decode(sealer.open_(sealed, _context(name, role, business)))
    except (StoreError, msgspec.DecodeError):
        raise StoreError(f"the user {name} was altered") from None
    return UserAccount(name, role, business, *secrets, bool(must_change), *rest)


def _context(name: str, role: str, business: str | None) -> bytes:
    return f"user {name} {role} {business or ''}".encode()


SEALED_USERS = SealedRows("user_account", ("name",), ("name", "role", "business"), _context)
