"""The operator's rules, and the table of refusals."""

from __future__ import annotations

from relay.model.decision import Refusal
from relay.policy import rules
from relay.policy.rules import Cap, Rules


def test_the_store_counts_windows_longer_than_the_memory() -> None:
    made = Rules(caller_caps=(Cap(3, 300), Cap(9, 900), Cap(10, 901), Cap(20, 86_400)), number_caps=(Cap(1, 60),))
    assert made.caller_windows_s == (901, 86_400)
    assert made.number_windows_s == ()


def test_each_refusal_has_its_own_outcome() -> None:
    told = {name: refusal for name, refusal in vars(rules).items() if isinstance(refusal, Refusal)}
    assert {name.lower() for name in told} == {refusal.outcome for refusal in told.values()}
    assert all((refusal.status == 503) == (refusal.retry_after_s is not None) for refusal in told.values())
