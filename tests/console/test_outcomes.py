"""Every outcome of a call record has its words."""

from __future__ import annotations

from relay.console.outcomes import CLASSES, OUTCOMES
from relay.model.outcomes import OUTCOMES as ALL
from relay.model.outcomes import REFUSALS


def test_every_outcome_has_words() -> None:
    assert set(OUTCOMES) == set(ALL)
    assert len({each.title for each in OUTCOMES.values()}) == len(OUTCOMES)


def test_what_is_not_good_says_why_and_what_to_do() -> None:
    for name, outcome in OUTCOMES.items():
        assert outcome.class_ in CLASSES
        assert outcome.class_ == "good" or (outcome.why and outcome.do), name


def test_a_refusal_is_no_call_of_persons() -> None:
    assert all(OUTCOMES[name].class_ in ("refused", "bad") for name in REFUSALS)
