"""Events against the schemas that the API documents for them."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from relay.api.events import EVENTS, AlteredEvent


def fault_of(event: dict[str, Any]) -> str:
    """What of an event is not as documented; "" if all is."""
    model = AlteredEvent if "altered" in event else EVENTS[event["kind"]]
    try:
        model.model_validate(event, strict=True)
    except ValidationError as error:
        return f"{event['kind']}: {error}"
    return ""
