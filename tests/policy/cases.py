"""A granted call; tests change one aspect of it."""

from __future__ import annotations

from relay.model.call import Refusal, Route
from relay.model.settings import CallerNumbers, Peer
from relay.policy.evaluate import BindingContext, DialledCall, LookupResult, evaluate
from relay.policy.rules import Recent, Rules
from tests.support.stored import NOW_MS, A, B, X

NOW_S = NOW_MS / 1000  # 08:00 in China
C = "8613700000003"
FOREIGN = "442071838750"

ID = "88.101.1/7"  # an industrial-internet identifier
BOUND = BindingContext(
    in_force=True,
    party="a",
    binding_id="b1",
    mode="AXB",
    business="firm",
    x=X,
    y=None,
    direction="both",
    max_call_s=None,
    ring_timeout_s=None,
    white_only=0,
    hours=None,
    expires_at=None,
    ended_at=None,
    business_state="approved",
    max_calls=None,
    max_cps=None,
    business_white_only=0,
    business_hours=None,
    language=None,
    live_events=0,
    record=0,
    entry=None,
    qualification=None,
    hook=None,
    a=A,
    b=B,
    order_id="order-1",
    last_caller=None,
    industrial_id=ID,
)
FOUND = LookupResult(b"hash", 0, 0, True, BOUND, (), ())


def found(**changes: object) -> LookupResult:
    """The case with changed fields of the binding, and of the look-up result."""
    of_found = {name: changes.pop(name) for name in LookupResult._fields if name in changes}
    return FOUND._replace(bound=BOUND._replace(**changes), **of_found)  # type: ignore[arg-type]


def judged(
    found: LookupResult, caller: str = A, *, at_s: float = NOW_S, recent: Recent | None = None, **rules: object
) -> Route | Refusal:
    asked = DialledCall(X, caller, at_s, 1, 2)
    return evaluate(found, asked, Rules(**rules), Recent() if recent is None else recent)  # type: ignore[arg-type]


def outcome(answer: Route | Refusal) -> str:
    return answer.outcome if isinstance(answer, Refusal) else "granted"


def named_peer(name: str, numbers: CallerNumbers | None = None, most_refused: int = 0) -> Peer:
    return Peer(name, (), tcp_allowed=False, sources=(), numbers=numbers, max_refused_in=most_refused)
