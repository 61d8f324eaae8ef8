"""Folders of recordings, each fault with its key path, and the check that they can be used."""

from __future__ import annotations

import os
from pathlib import Path

from relay.config.tables import ApiTable, MediaTable, RecordingTable
from relay.errors import ConfigError, StoreError
from relay.events.spool import FOLDERS
from relay.store.recording_file import Recordings, has_cipher
from relay.store.sealing import load_key
from relay.store.server import Place


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
