"""Client of relay700's HTTP API."""

from msgspec import UNSET

from relay700_client import problems
from relay700_client.client import AsyncClient, Client
from relay700_client.errors import ApiError, Relay700Error, Unreachable
from relay700_client.problems import *  # noqa: F403
from relay700_client.webhooks import BadSignature, read_events

__all__ = ["UNSET", "ApiError", "AsyncClient", "BadSignature", "Client", "Relay700Error", "Unreachable", "read_events"]
__all__ += problems.__all__
