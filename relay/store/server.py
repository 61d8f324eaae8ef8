"""The location of a store: the path of an SQLite file, or a database of a PostgreSQL server that relays share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple


class Server(NamedTuple):
    """A database shared by several relays, the nodes."""

    url: str
    node: str  # name of this relay
    local: Path  # base name of this node's local files, such as sockets and locks

    def __str__(self) -> str:
        return re.sub(r"//([^/@:]*):[^/@]*@", r"//\1:***@", self.url)


Place = Path | Server


def local_path(place: Place) -> Path:
    """The base name of the local files of a store."""
    return place.local if isinstance(place, Server) else place
