"""Announcements and their sound files, each fault with its key path."""

from __future__ import annotations

from pathlib import Path

from relay.call.settings import Announcements
from relay.config.tables import AnnouncementsTable, MediaTable
from relay.net.sounds import SoundFiles


def announcements(table: AnnouncementsTable) -> Announcements:
    return Announcements(table.refused, table.begin, table.ending, table.max_at_once)


def sound_files(
    table: AnnouncementsTable, media: MediaTable, recording: bool, problems: list[str]
) -> SoundFiles | None:
    """Return None where nothing is announced. `recording`: calls are recorded, which both sides are told."""
    announced = table.refused or table.begin or table.ending
    if announced and media.mode != "rtpengine":
        problems.append('announcements: rtpengine plays them; write media.mode = "rtpengine", or set none of them')
    if not announced and not recording:
        return None
    return SoundFiles(table.language, Path(table.folder) if table.folder else None)
