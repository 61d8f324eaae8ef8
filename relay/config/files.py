"""Checks of the files that a configuration names. It opens no store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from relay.config import Config
from relay.config.media import check_recording
from relay.config.passwords import with_passwords
from relay.errors import ConfigError
from relay.net.sounds import read_sounds
from relay.net.tls import check_identity, client_context, peer_contexts, read_secret, server_context


def check_files(config: Config) -> None:
    """Raises ConfigError with all faults."""
    problems: dict[str, None] = {}  # each fault once, in order: both TLS contexts read the same files
    for check in _checks(config):
        try:
            check()
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise ConfigError(list(problems))


def _checks(config: Config) -> list[Callable[[], object]]:
    checks: list[Callable[[], object]] = []
    if config.tls is not None:
        checks += [partial(server_context, config.tls), partial(client_context, config.tls)]
        checks.append(partial(peer_contexts, config.tls))
    checks.append(partial(with_passwords, config))
    api, verify = config.api, config.verify
    if api.enabled and api.certificate is not None and api.key is not None:
        checks.append(partial(check_identity, "api", api.certificate, api.key))
    if verify is not None:
        checks.append(partial(read_secret, "verify.secret_file", verify.secret_file))
    checks.append(partial(check_recording, config.recordings, config.store.path, config.store.key_file))
    if config.sounds is not None:
        checks.append(partial(read_sounds, config.sounds))
    return checks
