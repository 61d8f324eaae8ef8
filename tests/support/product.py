"""The Python that runs the relay as a process: RELAY700_PYTHON (set by scripts/test), else the tests' own.

The tests' Python is chosen for the softphone's bindings, the product's for speed, so outside tests run the real one.
"""

from __future__ import annotations

import os
import sys

PYTHON = os.environ.get("RELAY700_PYTHON", sys.executable)
RELAY700 = (PYTHON, "-P", "-m", "relay")  # -P: the installed relay, not one in the working directory
