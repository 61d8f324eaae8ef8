"""The Python client on the application of the API's tests, in this process."""

from tests.api.conftest import api, company, operator, relay

__all__ = ["api", "company", "operator", "relay"]
