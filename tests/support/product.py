"""Which relay is started as a process: that of the Python which scripts/test names, else that of the tests' own Python.

The tests' Python is chosen for their softphone, the product's for speed: what is driven from outside is what is run.
"""

from __future__ import annotations

import os
import sys

PYTHON = os.environ.get("RELAY700_PYTHON", sys.executable)
RELAY700 = (PYTHON, "-P", "-m", "relay")  # -P: the installed relay, not one in the folder where it is started
