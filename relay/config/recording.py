"""What records calls and where recordings go, each fault with its key path; and whether these folders can be used."""

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
    """Where they come from and go to."""
    spools = (table.spool,) if isinstance(table.spool, str) else table.spool
    spools = tuple(spool for spool in spools if spool)
    if spools and media.mode != "rtpengine":
        problems.append('recording.spool: rtpengine records; write media.mode = "rtpengine", or spool = ""')
    if spools and not api.enabled:
        problems.append(
            "recording.spool: the process that has the API takes recordings over, and nothing may stay there in clear; "
            'write api.enabled = true, or spool = ""'
        )
    return Recordings(Path(table.kept_in), tuple(map(Path, spools)), table.cipher)


def check_recording(recordings: Recordings, store: Place, key_file: Path) -> None:
    """Raises ConfigError with every fault. Where nothing is recorded there is none."""
    if not recordings.spools:
        return
    problems = [fault for spool in recordings.spools for fault in _spool_faults(spool)]
    if not has_cipher(recordings.cipher):
        problems.append(f"recording.cipher: the OpenSSL here has no {recordings.cipher}; write another one")
    nearest = next(folder for folder in (recordings.kept_in, *recordings.kept_in.absolute().parents) if folder.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        problems.append(f"recording.kept_in: {recordings.kept_in} cannot be written to: {nearest} does not allow it")
    if key_file.exists() or (isinstance(store, Path) and store.exists()):  # else it is made with the store
        try:
            load_key(key_file)
        except StoreError as error:
            problems.append(f"store.key_file: {error}")
    if problems:
        raise ConfigError(problems)


def _spool_faults(spool: Path) -> list[str]:
    """What rtpengine puts there must be read, and deleted."""
    if not spool.is_dir():
        return [f"recording.spool: {spool} is no folder here; name rtpengine's recording-dir, which it makes"]
    folders = [spool, *(folder for name in FOLDERS if (folder := spool / name).exists())]
    needed = os.R_OK | os.X_OK
    return [
        f"recording.spool: {folder} cannot be read and cleared by who runs this; see its group and mode"
        for folder in folders
        if not os.access(folder, needed if folder == spool else needed | os.W_OK)
    ]
