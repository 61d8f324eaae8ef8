"""The rules of users: roles, log-in with password and code, lock-out, and the last operator, who stays.

A role is a set of scopes. A password is checked outside a unit of work (`check_password`, 50 ms and more of a CPU), its
result is counted in one (`note_log_in`): failures and codes used hold on every node and over restarts. Wrong name,
wrong password, wrong code and lock look alike and take the same time.
"""

from __future__ import annotations

import hmac
import re
import secrets
from contextlib import suppress
from typing import Final, Literal, NamedTuple

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from relay.errors import Refused
from relay.privacy.texts import mask_numbers
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.store.unit_of_work import BUSINESS_SCOPES, OPERATOR, UnitOfWork
from relay.store.users import UserAccount, find_user, names_in_role, put_user

Role = Literal["operator", "on_duty", "support", "compliance", "auditor", "business_admin", "business_reader"]
_READS: Final = frozenset(["bindings:read", "numbers:read", "calls:read"])
ROLES: Final[dict[Role, frozenset[str]]] = {
    "operator": OPERATOR,
    "on_duty": _READS | {"calls:hangup", "webhooks", "lists"},
    "support": _READS | {"bindings:write", "lists"},
    "compliance": _READS | {"recordings:read", "parties:read", "filings", "papers", "lists", "reports", "trace"},
    "auditor": _READS | {"operator", "filings", "papers", "lists", "webhooks", "reports"},
    "business_admin": BUSINESS_SCOPES,
    "business_reader": _READS,
}
OF_BUSINESS: Final = ("business_admin", "business_reader")
READING: Final = ("auditor", "business_reader")  # roles that change nothing, whatever their scopes allow

SHORTEST_PASSWORD: Final = 12
LONGEST_PASSWORD: Final = 256
MOST_FAILURES: Final = 5  # in a row, then the user is locked
LOCKED_MS: Final = 15 * 60_000
STEP_MS: Final = 30_000  # of a code (RFC 6238)
NAME_WORDS: Final = "must be 2 to 32 of a-z, 0-9, _ . or -, beginning with a letter, and no phone number"
_NAME: Final = r"[a-z][a-z0-9._-]{1,31}"
# A first password is random and needs no slow hash: it is made while a unit of work holds the store.
_first_hasher: Final = PasswordHasher(time_cost=1, memory_cost=1_024, parallelism=1)
_hasher: Final = PasswordHasher()  # argon2id, the second recommended option of RFC 9106
_NOBODY: Final = "$argon2id$v=19$m=65536,t=3,p=4$bm9ib2R5bm9ib2R5bm9ib2R5$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


class LogInSecrets(NamedTuple):
    """The secrets of the first log-in, shown once."""

    password: str
    code_uri: str  # otpauth://, for an authenticator


class LoggedIn(NamedTuple):
    """A user with a session: the same questions as to an API key."""

    user: UserAccount

    @property
    def id(self) -> str:
        """The name under which sessions and requests are counted."""
        return self.actor_name

    @property
    def actor_name(self) -> str:
        """The user's name in the audit log."""
        return f"user:{self.user.name}"

    @property
    def business(self) -> str | None:
        """The business user whose data is visible; None for one of the operator's people."""
        return self.user.business

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes of the role; none of a role that does not exist."""
        return next((scopes for role, scopes in ROLES.items() if role == self.user.role), frozenset())

    @property
    def only_reads(self) -> bool:
        """Whether the user may change nothing."""
        return self.user.role in READING

    def is_good(self, now_ms: int) -> bool:
        """Whether the user is not disabled. A lock stops log-ins, not sessions: else anybody could end them."""
        return self.user.disabled_at is None


def add_user(unit: UnitOfWork, name: str, role: Role, business: str | None = None) -> tuple[UserAccount, LogInSecrets]:
    """Add a user, with a first password that must be changed. Raises Refused."""
    if not is_user_name(name):
        raise fields.invalid("name", NAME_WORDS)
    if find_user(unit.connection, unit.sealer, name) is not None:
        raise Refused("state_conflict", "name", f"there is a user {name}: take another name, or `relay700 users reset`")
    _check_role(unit, role, business)
    given, hash_, secret = _new_secrets(name)
    user = UserAccount(name, role, business, hash_, secret, True, unit.now_ms, unit.now_ms, unit.actor.name)
    unit.audit("user.add", name, business=business, details={"role": role})
    return put_user(unit, user), given


def set_role(unit: UnitOfWork, name: str, role: Role) -> UserAccount:
    """Change a role, from the next request on. Raises Refused, also for the last operator."""
    user = _managed(unit, name)
    _check_role(unit, role, user.business)
    if role != "operator":
        _keep_last_operator(unit, user, "role")
    unit.audit("user.role", name, business=user.business, details={"from": user.role, "to": role})
    return put_user(unit, user._replace(role=role))


def disable_user(unit: UnitOfWork, name: str, reason: str = "") -> UserAccount:
    """End a user and all sessions, at once. Raises Refused, also for the last operator."""
    user = _managed(unit, name)
    if user.disabled_at is not None:
        raise Refused("ended", "name", "is disabled already")
    _keep_last_operator(unit, user, "name")
    unit.audit("user.disable", name, business=user.business, reason=fields.reason(reason))
    return put_user(unit, user._replace(disabled_at=unit.now_ms))


def reset_user(unit: UnitOfWork, name: str) -> tuple[UserAccount, LogInSecrets]:
    """Give new secrets, end a lock and all sessions, and enable the user again. Raises Refused."""
    user = _managed(unit, name)
    if user.business is not None:
        _check_role(unit, user.role, user.business)
    given, hash_, secret = _new_secrets(name)
    user = user._replace(password_hash=hash_, code_secret=secret, must_change=True, password_at=unit.now_ms)
    unit.audit("user.reset", name, business=user.business)
    return put_user(unit, user._replace(disabled_at=None, failures=0, locked_until=None, last_step=None)), given


# -- Log-in


def check_password(user: UserAccount | None, password: str) -> bool:
    """Whether the password is the user's. It takes as long for nobody, and for a first password with its fast hash."""
    shown = password[:LONGEST_PASSWORD]
    if user is None or user.must_change:
        _is_hashed(_NOBODY, shown)
    return user is not None and _is_hashed(user.password_hash, shown)


def _is_hashed(hash_: str, password: str) -> bool:
    with suppress(VerificationError, InvalidHashError):
        return _hasher.verify(hash_, password)
    return False


def hash_password(password: str) -> str:
    """The argon2id hash of a password, which takes as long as `check_password`."""
    return _hasher.hash(password)


def is_user_name(name: str) -> bool:
    """Whether a user may have this name."""
    return re.fullmatch(_NAME, name) is not None and mask_numbers(name, sender="") == name


def note_log_in(unit: UnitOfWork, checked: UserAccount | None, code: str, *, is_password: bool) -> UserAccount | None:
    """Take a log-in whose password was checked against `checked`. None if it fails, which is counted and audited."""
    user = None if checked is None else find_user(unit.connection, unit.sealer, checked.name)
    if user is None or checked is None:
        unit.audit("user.log_in_failed", "unknown user")  # the name may be a password, or a number
        return None
    is_locked = user.locked_until is not None and user.locked_until > unit.now_ms
    step = _step_of(user, code, unit.now_ms)
    is_same = user.password_hash == checked.password_hash
    if is_password and is_same and step is not None and not is_locked and user.disabled_at is None:
        unit.audit("user.log_in", user.name, business=user.business)
        return put_user(unit, user._replace(failures=0, locked_until=None, last_step=step))
    note_failure(unit, user)
    return None


def note_failure(unit: UnitOfWork, user: UserAccount) -> None:
    """Count and audit a wrong password or code. The fifth in a row locks, and each further one after the lock."""
    failures = user.failures + 1
    locked_until = user.locked_until
    if failures >= MOST_FAILURES and (locked_until is None or locked_until <= unit.now_ms):
        locked_until = unit.now_ms + LOCKED_MS
    details: dict[str, object] = {"failures": failures, "locked_until": locked_until}
    unit.audit("user.log_in_failed", user.name, business=user.business, details=details)
    put_user(unit, user._replace(failures=failures, locked_until=locked_until))


def change_password(unit: UnitOfWork, checked: UserAccount, new_hash: str, *, is_password: bool) -> UserAccount | None:
    """Set a user's own password; other sessions end. None if the current one was wrong, which is counted as a log-in.

    `is_password`: the result of `check_password`; `new_hash`: `hash_password` of one that `check_new_password` allows.
    """
    user = _existing(unit, checked.name)
    if not is_password or user.password_hash != checked.password_hash:
        note_failure(unit, user)
        return None
    unit.audit("user.password", user.name, business=user.business)
    changed = user._replace(password_hash=new_hash, must_change=False, password_at=unit.now_ms)
    return put_user(unit, changed)


def check_new_password(user: UserAccount, password: str) -> None:
    """Raises Refused for a password that a user may not take."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        problem = f"must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters"
        raise fields.invalid("password", problem)
    if user.name in password.lower() or len(set(password)) < 5:
        raise fields.invalid("password", "is too easy to guess: take one without your name and with more characters")


def _step_of(user: UserAccount, code: str, now_ms: int) -> int | None:
    """The time step of a code that is valid and was not used; None for any other. A clock may be a step off."""
    codes, now = pyotp.TOTP(user.code_secret), now_ms // STEP_MS
    steps = range(max(now - 1, (user.last_step or 0) + 1), now + 2)
    shown = code.strip().encode()
    return next((step for step in steps if hmac.compare_digest(codes.generate_otp(step).encode(), shown)), None)


def _new_secrets(name: str) -> tuple[LogInSecrets, str, str]:
    password, secret = secrets.token_urlsafe(12), pyotp.random_base32()
    uri = pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name="relay700")
    return LogInSecrets(password, uri), _first_hasher.hash(password), secret


def _existing(unit: UnitOfWork, name: str) -> UserAccount:
    user = find_user(unit.connection, unit.sealer, name)
    if user is None:
        raise Refused("not_found", "", "there is no such user")
    return user


def _managed(unit: UnitOfWork, name: str) -> UserAccount:
    """A user to change. Raises Refused if the actor lacks a scope of the role: a reset gives all of them."""
    user = _existing(unit, name)
    unit.actor.must_have(LoggedIn(user).scopes, "name")
    return user


def _check_role(unit: UnitOfWork, role: str, business: str | None) -> None:
    scopes = next((scopes for known, scopes in ROLES.items() if known == role), None)
    if scopes is None:
        raise fields.invalid("role", f"must be one of: {', '.join(ROLES)}")
    if role in OF_BUSINESS and business is None:
        raise fields.invalid("business", f"the role {role} needs the business user that it is for")
    if role not in OF_BUSINESS and business is not None:
        raise fields.invalid("business", f"the role {role} is for no business user: leave it out")
    if business is not None and get_business(unit, business).state == "revoked":
        raise Refused("business_not_approved", "business", "the business user is revoked and cannot have users")
    unit.actor.must_have(scopes, "role")


def _keep_last_operator(unit: UnitOfWork, user: UserAccount, field: str) -> None:
    if user.role == "operator" and names_in_role(unit, "operator") == [user.name]:
        raise Refused("state_conflict", field, f"{user.name} is the last operator: add another one first")
