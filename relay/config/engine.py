"""Settings of the engine: listeners, routes, media, announcements and recordings, each fault with its key path.

Also the announcement sounds for rtpengine: the shipped ones, replaced by the operator's where given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final, NamedTuple, cast

from msgspec.structs import asdict

from relay.call.announcement import SOUNDS
from relay.config.peers import Address, proven_by_tls, read_peers
from relay.config.tables import AnnouncementsTable, ApiTable, MediaTable, PeerTable, RecordingTable, RouteTable, Tables
from relay.errors import ConfigError
from relay.model.call import LANGUAGES, Language
from relay.model.settings import Announcements, Limits, Listener, PeerRoute, RtpengineAddress, Settings, Transport
from relay.net.hosts import is_loopback
from relay.sip.timers import Timings
from relay.store.recordings import Recordings

_LISTEN = re.compile(r"(udp|tcp|tls):(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})")
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]*)(?:\.[A-Za-z0-9][A-Za-z0-9-]*)*")
_LISTEN_HELP = 'write "udp|tcp|tls:address:port", such as "udp:127.0.0.1:5060" or "tcp:[::1]:5060"'
USUAL_T1_MS = 500  # RFC 3261 17.1.1.1: T1 of a peer; a longer one of ours is agreed with the peers


def build_settings(tables: Tables, problems: list[str]) -> Settings:
    """Return the settings of the engine. A faulty value is added to `problems` and left out."""
    listeners = _listeners(tables, problems)
    complete = len(listeners) == len(tables.sip.listen)  # else peers are not checked against the listeners
    peers = read_peers(tables.peer, listeners if complete else None, problems)
    if tables.tls is not None and tables.tls.client_ca:
        peers = proven_by_tls(peers)
    sip = tables.sip
    if not tables.limits.stranger_answers_per_s and any(peer.login for peer in peers):
        problems.append("limits.stranger_answers_per_s: 0 sends no challenge, so no peer can log in; write 20")
    if tables.limits.shed_lag_ms >= (t1_ms := max(sip.t1_ms, USUAL_T1_MS)):
        problems.append(f"limits.shed_lag_ms: peers retransmit after {t1_ms} ms; write less, such as 250")
    return Settings(
        listeners=tuple(listeners),
        peers=tuple(peers),
        routes=tuple(_routes(tables.route, tables.peer, problems)),
        prefixes=tables.numbers.prefixes,
        other_numbers=sip.other_numbers,
        login_algorithms=sip.login_algorithms,
        timings=_timings(sip.t1_ms),
        ring_timeout_s=sip.ring_timeout_s,
        no_progress_s=sip.no_progress_s,
        max_call_s=sip.max_call_s,
        anchored=tables.media.mode == "rtpengine",
        media_check_s=tables.media.check_s,
        announcements=announcements(tables.announcements),
        recording_needed=tables.recording.on_failure == "end",
        limits=Limits(**asdict(tables.limits)),
        sms=tables.sms.enabled,
        sms_numbers=tables.sms.numbers,
    )


def _timings(t1_ms: int) -> Timings:
    """T2 and T4 keep their ratio to T1 (RFC 3261 table 4): a small T1 makes all of them small."""
    t1 = t1_ms / 1000
    return Timings(t1, 8 * t1, 10 * t1)


# -- Listeners


def _listeners(tables: Tables, problems: list[str]) -> list[Listener]:
    advertised = _advertised(tables.sip.advertise, problems)
    listeners: list[Listener] = []
    seen: set[tuple[str, str, int]] = set()
    for index, text in enumerate(tables.sip.listen):
        path = f"sip.listen[{index}]"
        parsed = _parse_listen(path, text, problems)
        if parsed is None:
            continue
        transport, address, port = parsed
        if (transport, str(address), port) in seen:
            problems.append(f"{path}: {text} is listed twice; leave one out")
        seen.add((transport, str(address), port))
        shown = _shown(address, advertised)
        if shown is None:
            problems.append(
                f'{path}: {text} listens on every address; write sip.advertise = "…", the address that peers see'
            )
        elif transport == "tls" and tables.tls is None:
            problems.append(f"{path}: tls needs a certificate; write [tls] with certificate and key")
        else:
            listeners.append(Listener(transport, str(address), port, shown))
    return listeners


def _parse_listen(path: str, text: str, problems: list[str]) -> tuple[Transport, Address, int] | None:
    found = _LISTEN.fullmatch(text)
    if found is None:
        problems.append(f"{path}: {text!r} is not a listener; {_LISTEN_HELP}")
        return None
    try:
        address = ip_address(found[2] or found[3])
    except ValueError:
        problems.append(f"{path}: {found[2] or found[3]} is not an address; {_LISTEN_HELP}")
        return None
    port = int(found[4])
    if not 1 <= port <= 65535:
        problems.append(f"{path}: port {port} does not exist; write one of 1 to 65535")
        return None
    return cast(Transport, found[1]), address, port


def _advertised(value: str | tuple[str, ...] | None, problems: list[str]) -> list[Address | str]:
    advertised: list[Address | str] = []
    for host in (value,) if isinstance(value, str) else value or ():
        bare = host.removeprefix("[").removesuffix("]")
        try:
            advertised.append(ip_address(bare))
        except ValueError:
            if _HOST_NAME.fullmatch(host):
                advertised.append(host)
            else:
                problems.append(
                    f'sip.advertise: {host!r} is not an address; write one without a port, such as "203.0.113.7"'
                )
    return advertised


def _shown(address: Address, advertised: Sequence[Address | str]) -> str | None:
    """The host that peers see of a listener: the first advertised one of its address family, else its own."""
    fits = (host for host in advertised if isinstance(host, str) or host.version == address.version)
    host = next(fits, None if address.is_unspecified else address)
    if host is None:
        return None
    return f"[{host}]" if isinstance(host, IPv6Address) else str(host)


# -- Routes


def route_warnings(tables: Tables) -> list[str]:
    """A warning if there are peers and no routes."""
    if tables.route or not tables.peer:
        return []
    return [
        "route: none: no call reaches a party; add a [[route]] with a prefix of numbers and the peers to reach them"
    ]


def _routes(
    tables: Sequence[RouteTable | None], peers: Sequence[PeerTable | None], problems: list[str]
) -> list[PeerRoute]:
    names = {peer.name for peer in peers if peer is not None}
    all_known = None not in peers
    routes: dict[str, PeerRoute] = {}
    for index, table in enumerate(tables):
        if table is None:
            continue
        if table.prefix in routes:
            problems.append(f"route[{index}].prefix: an earlier route has it too; name all its peers in one")
        routes[table.prefix] = PeerRoute(table.prefix, table.peers)
        if all_known:
            problems.extend(_unknown_peers(f"route[{index}]", table, names))
    return list(routes.values())


def _unknown_peers(path: str, table: RouteTable, names: set[str]) -> list[str]:
    known = ", ".join(sorted(names)) or "(there are no peers)"
    return [
        f"{path}.peers[{place}]: no peer is named {name}; write one of {known}"
        for place, name in enumerate(table.peers)
        if name not in names
    ]


# -- `[media]`: rtpengine

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


def rtpengine_warnings(node: str, instances: Sequence[RtpengineAddress]) -> list[str]:
    """A warning for each instance at a loopback address, if there are several nodes; `node`: this one's name."""
    return [
        f"media.rtpengine: {instance.name}: a node on another machine that takes over a call does not reach it; list "
        "all instances on each node, by addresses that all nodes reach"
        for instance in instances
        if node and is_loopback(instance.host)
    ]


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


# -- Sounds

SHIPPED: Final = Path(__file__).parents[1] / "sounds"
MOST_BYTES: Final = 60_000  # a sound must fit into one datagram: 7 s of A-law


class SoundFiles(NamedTuple):
    language: Language  # the default
    own: Path | None = None  # the operator's folder


def read_sounds(files: SoundFiles) -> dict[tuple[str, str], bytes]:
    """All sounds as WAV files by (language, name); language "" is the default one.

    Raises ConfigError with every fault in the operator's files.
    """
    sounds: dict[tuple[str, str], bytes] = {
        (language, name): (SHIPPED / language / f"{name}.wav").read_bytes() for language in LANGUAGES for name in SOUNDS
    }
    if files.own is not None:
        sounds |= _read_own(files.own, files.language)
    return sounds | {("", name): sounds[files.language, name] for name in SOUNDS}


def _read_own(folder: Path, usual: Language) -> dict[tuple[str, str], bytes]:
    """The operator's sounds: FOLDER/*.wav in the default language, FOLDER/LANGUAGE/*.wav in others."""
    sounds: dict[tuple[str, str], bytes] = {}
    problems: list[str] = []
    found = [(usual, path) for path in sorted(folder.glob("*.wav"))]
    found += [(language, path) for language in LANGUAGES for path in sorted(folder.glob(f"{language}/*.wav"))]
    if not found:
        problems.append(f"{folder} has no .wav file; add one, or remove the setting")
    for language, path in found:
        try:
            data = path.read_bytes()
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}")
            continue
        problems += _faults(path, data)
        sounds[language, path.stem] = data
    if problems:
        raise ConfigError([f"announcements.folder: {problem}" for problem in problems])
    return sounds


def _faults(path: Path, data: bytes) -> list[str]:
    faults = []
    if path.stem not in SOUNDS:
        faults.append(f"{path} is not a known sound; the names are {', '.join(SOUNDS)}")
    if not (data.startswith(b"RIFF") and data[8:12] == b"WAVE"):
        faults.append(f"{path} is not a WAV file")
    if len(data) > MOST_BYTES:
        faults.append(f"{path} has {len(data)} bytes, above {MOST_BYTES}: encode it as 8 kHz, mono, A-law")
    return faults
