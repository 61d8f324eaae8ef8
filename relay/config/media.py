"""`[media]`, `[recording]` and `[announcements]`: rtpengine, recordings, sounds. Faults name their key."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from pathlib import Path

from relay.config.tables import AnnouncementsTable, ApiTable, MediaTable, RecordingTable
from relay.errors import ConfigError, StoreError
from relay.events.recordings import FOLDERS
from relay.model.settings import Announcements, RtpengineAddress
from relay.net.sounds import SoundFiles
from relay.store.connection import Place
from relay.store.recordings import Recordings, has_cipher
from relay.store.sealing.sealer import load_key

_ADDRESS = re.compile(r"udp:(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})")
_HELP = 'write "udp:address:port", as rtpengine\'s listen-ng has it, such as "udp:127.0.0.1:2223"'


def read_rtpengine(table: MediaTable, problems: list[str]) -> tuple[RtpengineAddress, ...]:
    """Return the instances that anchor media; none where media go directly between peers."""
    if table.mode == "direct":
        return ()
    texts = (table.rtpengine,) if isinstance(table.rtpengine, str) else table.rtpengine or ()
    if not texts:
        problems.append(f'media.rtpengine: missing, and media.mode is "rtpengine"; {_HELP}')
    found: dict[str, RtpengineAddress] = {}
    for text in texts:
        address = _parse(text)
        if address is None:
            problems.append(f"media.rtpengine: {text!r} is not an rtpengine address; {_HELP}")
        elif text in found:
            problems.append(f"media.rtpengine: {text} is listed twice; leave one out")
        else:
            found[text] = address
    return tuple(found.values())


def _parse(text: str) -> RtpengineAddress | None:
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match[3]) <= 65535:
        return None
    try:
        host = ip_address(match[1] or match[2])
    except ValueError:
        return None
    return RtpengineAddress(text, str(host), int(match[3]))


# -- Announcements and their sound files


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


# -- Folders of recordings


def recordings(table: RecordingTable, media: MediaTable, api: ApiTable, problems: list[str]) -> Recordings:
    """Return the folders that recordings come from and go to."""
    spools = (table.spool,) if isinstance(table.spool, str) else table.spool
    spools = tuple(spool for spool in spools if spool)
    if spools and media.mode != "rtpengine":
        problems.append('recording.spool: rtpengine records; write media.mode = "rtpengine", or spool = ""')
    if spools and not api.enabled:
        problems.append(
            "recording.spool: recordings are taken over by the backend process, which serves the API, and must not "
            'stay there in clear; write api.enabled = true, or spool = ""'
        )
    return Recordings(Path(table.kept_in), tuple(map(Path, spools)), table.cipher)


def check_recording(recordings: Recordings, store: Place, key_file: Path) -> None:
    """Raises ConfigError with all faults; none where nothing is recorded."""
    if not recordings.spools:
        return
    problems = [fault for spool in recordings.spools for fault in _spool_faults(spool)]
    if not has_cipher(recordings.cipher):
        problems.append(f"recording.cipher: this OpenSSL has no {recordings.cipher}; write another one")
    nearest = next(folder for folder in (recordings.kept_in, *recordings.kept_in.absolute().parents) if folder.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        problems.append(f"recording.kept_in: {recordings.kept_in} cannot be written: no permission in {nearest}")
    if key_file.exists() or (isinstance(store, Path) and store.exists()):  # else the store's creation makes it
        try:
            load_key(key_file)
        except StoreError as error:
            problems.append(f"store.key_file: {error}")
    if problems:
        raise ConfigError(problems)


def _spool_faults(spool: Path) -> list[str]:
    """The relay must be able to read and delete rtpengine's files."""
    if not spool.is_dir():
        return [f"recording.spool: {spool} is not a folder here; name rtpengine's recording-dir, which it makes"]
    folders = [spool, *(folder for name in FOLDERS if (folder := spool / name).exists())]
    needed = os.R_OK | os.X_OK
    return [
        f"recording.spool: this user may not read and delete in {folder}; see its group and mode"
        for folder in folders
        if not os.access(folder, needed if folder == spool else needed | os.W_OK)
    ]
