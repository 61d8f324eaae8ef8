"""Settings that need a restart: a reload that changes one is refused as a whole."""

from __future__ import annotations

from collections.abc import Callable

from relay.config import Config

_FIXED: dict[str, Callable[[Config], object]] = {
    "sip.listen, sip.advertise": lambda config: config.settings.listeners,
    "sip.t1_ms": lambda config: config.settings.timings,
    "store": lambda config: config.store,
    "media.mode, media.rtpengine": lambda config: (config.settings.anchored, config.rtpengine),
    "recording.kept_in": lambda config: config.recordings.kept_in,
    "api.enabled": lambda config: config.api.enabled,
    "api.listen": lambda config: (config.api.host, config.api.port),
    "api.certificate, api.key": lambda config: (config.api.certificate, config.api.key),
    "verify": lambda config: config.verify,
    "log": lambda config: config.log,
    "streams": lambda config: config.streams,
}


def what_is_fixed(now: Config, wanted: Config) -> list[str]:
    """Return a fault for each changed setting that needs a restart."""
    return [
        f"{keys}: a change needs a restart; write the former value, or restart the relay"
        for keys, value in _FIXED.items()
        if value(now) != value(wanted)
    ]
