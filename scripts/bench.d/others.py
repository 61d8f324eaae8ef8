"""The competitors: Kamailio and Sippy's B2BUA, each doing as much of relay700's job as it can, and a lower bound."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import stores
from load import HERE, Address, free
from servers import Server, running

SIPPY_PYTHON = HERE.parents[1] / ".venv-sippy/bin/python"  # scripts/bench makes it
WORKERS = 2  # Kamailio's UDP children, and Sippy's look-up and record programs


@contextlib.contextmanager
def kamailio(run: Path, bindings: stores.Bindings, callee: Address) -> Iterator[Server]:
    """Kamailio with its fast memory managers (-x fm -X fm), its best configuration for this job."""
    run.mkdir()
    address = free("127.0.0.12")
    stores.make_records_table(run / "acc.db")
    stores.make_bindings_table(run / "bindings.db", bindings)
    template = (HERE / "kamailio.cfg.in").read_text()
    values = {
        "CHILDREN": str(WORKERS),
        "LISTEN_HOST": address.host,
        "LISTEN": str(address),
        "CALLEE": str(callee),
        "RUN_PATH": str(run).lstrip("/"),  # db_sqlite's URL adds the first slash
        "RUN": str(run),
    }
    for name, value in values.items():
        template = template.replace(f"@{name}@", value)
    config = run / "kamailio.cfg"
    config.write_text(template)
    memory = ["-m", "4096", "-M", "32", "-x", "fm", "-X", "fm"]
    command = ["/usr/sbin/kamailio", "-f", str(config), "-DD", "-E", *memory, "-Y", str(run)]
    with running("kamailio", command, address, run / "kamailio.log") as server:
        yield server


@contextlib.contextmanager
def sippy(run: Path, bindings: stores.Bindings, callee: Address) -> Iterator[Server]:
    """Sippy's `b2bua`, with a RADIUS client for routes and call records, and without log."""
    run.mkdir()
    address = free("127.0.0.14")
    stores.make_bindings_table(run / "bindings.db", bindings)
    client = run / "radiusclient"
    client.write_text(f'#!/bin/sh\nexec "{SIPPY_PYTHON}" "{HERE / "sippy_client.py"}" "{run}" "{callee}"\n')
    client.chmod(0o755)
    command = [str(SIPPY_PYTHON), str(HERE / "sippy_b2bua.py"), "--foreground=on"]
    command += [f"--sip_address={address.host}", f"--sip_port={address.port}", f"--b2bua_socket={run}/control"]
    command += [f"--radiusclient={client}", f"--max_radiusclients={WORKERS}"]
    command += ["--digest_auth=off", "--hide_call_id=on"]
    environment = {**os.environ, "SIPLOG_BEND": "none"}
    with running("sippy", command, address, run / "sippy.log", environment=environment) as server:
        yield server


@contextlib.contextmanager
def forwarder(run: Path, bindings: stores.Bindings, callee: Address) -> Iterator[Server]:
    """The least possible program in Python, on the relay's interpreter."""
    run.mkdir()
    address = free("127.0.0.16")
    stores.make_bindings_table(run / "bindings.db", bindings)
    command = [sys.executable, str(HERE / "forwarder.py"), str(run), *map(str, (*address, *callee))]
    with running("forwarder", command, address, run / "forwarder.log") as server:
        yield server


ALL = {"kamailio": kamailio, "sippy": sippy, "forwarder": forwarder}
