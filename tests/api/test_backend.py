"""What the HTTP API needs from its process can be named without a web framework."""

from __future__ import annotations

import subprocess
import sys

IMPORTED = """
import sys
import relay.api.backend
print(*{name.partition(".")[0] for name in sys.modules} & {"aiohttp", "fastapi", "pydantic", "starlette", "uvicorn"})
"""


def test_the_backend_can_be_named_without_a_web_framework() -> None:
    """Else each command and each relay without an API would load one."""
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
