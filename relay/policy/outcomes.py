"""All outcomes of call records, collected from the modules that decide them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from types import ModuleType
from typing import Final

from relay.call import admission, text_message
from relay.model.decision import Refusal
from relay.policy import rules
from relay.privacy import masking
from relay.privacy.masking import Verdict

ANSWERED: Final = "answered"


def _refusals(module: ModuleType) -> Iterator[str]:
    return (value.outcome for value in vars(module).values() if isinstance(value, Refusal))


def _verdicts(module: ModuleType) -> Iterator[str]:
    tables = (value.values() for value in vars(module).values() if isinstance(value, dict))
    values = chain(vars(module).values(), *tables)
    return (value.outcome for value in values if isinstance(value, Verdict))


# Outcomes of calls refused by the relay itself.
REFUSALS: Final = frozenset(chain(_refusals(rules), _refusals(admission)))
OUTCOMES: Final = tuple(sorted({ANSWERED, *REFUSALS, *_verdicts(masking), *_verdicts(text_message)}))
