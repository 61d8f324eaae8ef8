"""An exception for each kind of problem: made by generate.py from /openapi.json."""

from __future__ import annotations

from relay700_client.errors import ApiError

__all__ = ['Invalid', 'Unauthorised', 'Replayed', 'Forbidden', 'BusinessNotApproved', 'ModeNotAllowed', 'NotFiled', 'NotFound', 'NumberUnknown', 'Conflict', 'PoolEmpty', 'NumberFull', 'NumberCooling', 'NumberLocked', 'Quota', 'Unqualified', 'StateConflict', 'Ended', 'TooLarge', 'IdempotencyMismatch', 'RateLimited', 'StoreBusy', 'RelayUnavailable']


class Invalid(ApiError, kind="invalid"):
    """A field of the request is invalid: 400."""


class Unauthorised(ApiError, kind="unauthorised"):
    """The request has no valid key: 401."""


class Replayed(ApiError, kind="replayed"):
    """The signed request was repeated, or its time is out of range: 401."""


class Forbidden(ApiError, kind="forbidden"):
    """The key does not permit this: 403."""


class BusinessNotApproved(ApiError, kind="business_not_approved"):
    """The business user is not approved: 403."""


class ModeNotAllowed(ApiError, kind="mode_not_allowed"):
    """The business user may not use this binding mode: 403."""


class NotFiled(ApiError, kind="not_filed"):
    """An A number is not filed with the carriers: 403."""


class NotFound(ApiError, kind="not_found"):
    """The resource does not exist: 404."""


class NumberUnknown(ApiError, kind="number_unknown"):
    """The number does not exist: 404."""


class Conflict(ApiError, kind="conflict"):
    """A party is already bound on this number: 409."""


class PoolEmpty(ApiError, kind="pool_empty"):
    """The pool has no free number for these parties: 409."""


class NumberFull(ApiError, kind="number_full"):
    """The number carries its maximum of bindings: 409."""


class NumberCooling(ApiError, kind="number_cooling"):
    """The number is cooling down: 409."""


class NumberLocked(ApiError, kind="number_locked"):
    """The number is locked: 409."""


class Quota(ApiError, kind="quota"):
    """A quota of the business user is exhausted: 409."""


class Unqualified(ApiError, kind="unqualified"):
    """The qualification of the business user is incomplete: 409."""


class StateConflict(ApiError, kind="state_conflict"):
    """The state of the resource does not allow this: 409."""


class Ended(ApiError, kind="ended"):
    """The binding or key has ended: 409."""


class TooLarge(ApiError, kind="too_large"):
    """The request body is too large: 413."""


class IdempotencyMismatch(ApiError, kind="idempotency_mismatch"):
    """The Idempotency-Key was used for another request: 422."""


class RateLimited(ApiError, kind="rate_limited"):
    """Too many requests: 429."""


class StoreBusy(ApiError, kind="store_busy"):
    """The store is unavailable: 503."""


class RelayUnavailable(ApiError, kind="relay_unavailable"):
    """The relay is not available: 503."""
