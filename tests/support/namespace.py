"""Reruns a test inside its own namespaces.

Its network has only `lo`: private ports, optional packet loss, no route out. Its mounts are private and end with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

INSIDE = "RELAY_TESTS_OWN_NETWORK"
ROOT = Path(__file__).parents[2]


def reran_in_own_network(request: pytest.FixtureRequest, *, loss_percent: int = 0) -> bool:
    """Inside the namespace: returns False, go on. Outside: runs the test there, fails if it fails, and returns True.

    `loss_percent`: the probability of dropping each UDP datagram on arrival.
    """
    if os.environ.get(INSIDE):
        return False
    setup = "ip link set lo up"
    if loss_percent:
        rule = f"meta l4proto udp numgen random mod 100 < {loss_percent} drop"
        setup += f" && nft 'table inet loss {{ chain c {{ type filter hook input priority 0; {rule}; }}; }}'"
    _run_again(request, "--net", setup)
    return True


def reran_as_root(request: pytest.FixtureRequest) -> bool:
    """For tests that make namespaces themselves: root goes on; others as `reran_in_own_network`, as root there."""
    return os.geteuid() != 0 and reran_in_own_network(request)


def reran_with_own_mounts(request: pytest.FixtureRequest) -> bool:
    """As `reran_in_own_network`, for tests that mount file systems."""
    if os.environ.get(INSIDE):
        return False
    _run_again(request, "--mount", "true")
    return True


def _run_again(request: pytest.FixtureRequest, namespace: str, setup: str) -> None:
    test = f"{sys.executable} -m pytest -q -p no:cacheprovider -p no:slipcover '{request.node.nodeid}'"
    rootless = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        ["unshare", namespace, *rootless, "sh", "-c", f"{setup} && exec {test}"],
        cwd=ROOT,
        env={**os.environ, INSIDE: "1", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"in its own namespace:\n{done.stdout}\n{done.stderr}", pytrace=False)
