"""Where a store is: the path of an SQLite file, or a database of a PostgreSQL server that several relays share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple


class Server(NamedTuple):
    """A database that several relays, the nodes, use at once."""

    url: str
    node: str  # this relay's name among them
    local: Path  # what this node has for itself, sockets and locks, is named after this path

    def __str__(self) -> str:
        return re.sub(r"//([^/@:]*):[^/@]*@", r"//\1:***@", self.url)


Place = Path | Server


def local_path(place: Place) -> Path:
    """What the files of this machine beside the store are named after."""
    return place.local if isinstance(place, Server) else place
