"""Operations are tested over HTTP, with the fixtures of its tests."""

from __future__ import annotations

from tests.api.conftest import api, company, operator, relay

__all__ = ["api", "company", "operator", "relay"]
