"""The examples under config/ without a test of their own: each is read by the real program, where that can be had."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import dockerfile  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from relay.api.app import openapi_document
from relay.config import load_config
from relay.events.recordings import FOLDERS
from tests.interop.conftest import StartRelay
from tests.support.addresses import CALLEE, RELAY, free
from tests.support.asterisk import Asterisk
from tests.support.certificates import write_certificate
from tests.support.product import PYTHON, RELAY700

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
PATIENCE_S = 20.0
DIALPLAN, A_PHONE = "dialplan/relay700.xml", "directory/default/13800000001.xml"
MOST_EXPOSURE = 15  # of `systemd-analyze security`, in tenths; 100 is no protection at all


WITHOUT_COMMENTS = {"opensips/dispatcher", "opensips/version"}  # tables of db_text


def examples() -> list[str]:
    """Of neighbours and services, by their path in config/."""
    folders = ("asterisk", "freeswitch", "kamailio", "opensips", "peers", "systemd")
    files = [file for folder in folders for file in (CONFIG / folder).rglob("*") if file.is_file()]
    return sorted({str(file.relative_to(CONFIG)) for file in files} - WITHOUT_COMMENTS)


@pytest.mark.parametrize("example", [*examples(), "rtpengine/rtpengine.conf", "../Dockerfile"])
def test_an_example_says_first_how_far_it_is_tried(example: str) -> None:
    first = (CONFIG / example).read_text().partition("\n")[0]
    assert re.match(r"(#|;|<!--) (Tried|Not run): \S", first)


# --- relay.toml


@pytest.mark.parametrize(
    "example",
    ["asterisk/pjsip.conf", "freeswitch/sip_profiles/relay700.xml", "kamailio/kamailio.cfg", "opensips/opensips.cfg"],
)
def test_what_an_example_wants_in_relay_toml_is_good(tmp_path: Path, example: str) -> None:
    lines = re.findall(r"^(?:[#;]|  ) {2,3}(\[\[?\w+\]\]?|\w+ = .*)$", (CONFIG / example).read_text(), re.MULTILINE)
    assert "[[peer]]" in lines
    check(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("example", [example for example in examples() if example.startswith("peers/")])
def test_relay_toml_of_a_peer_is_good(tmp_path: Path, example: str) -> None:
    certificate, key = write_certificate(tmp_path)
    text = (CONFIG / example).read_text()
    for there, here in (("tls/fullchain.pem", certificate), ("tls/key.pem", key)):
        text = text.replace(f"/etc/relay700/{there}", str(here))
    check(tmp_path, text)


def check(folder: Path, text: str) -> None:
    (folder / "relay.toml").write_text(text)
    command = [*RELAY700, "check", "-c", str(folder / "relay.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 peer" in done.stdout


# --- programs that read their example as it stands


@pytest.mark.parametrize("defines", [[], ["-A", "BY_PREFIX"]], ids=" ".join)
def test_kamailio_reads_its_example(defines: list[str]) -> None:
    command = ["kamailio", "-c", "-f", str(CONFIG / "kamailio" / "kamailio.cfg"), *defines]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search("ERROR|WARNING|CRITICAL", done.stderr)


async def test_asterisk_finds_no_fault_with_its_example(tmp_path: Path) -> None:
    async with Asterisk(tmp_path / "pbx", free(CALLEE), free(RELAY)) as pbx:
        assert "relay700" in await pbx.command("pjsip show endpoints")
        assert await pbx.command("dialplan show from-relay")
    faults = re.findall(r"(?:ERROR|WARNING)\[\d+\]\S* (.*)", pbx.everything())
    of_other_files = ("Unable to load config file", "ccss.conf", "indications.conf", "music on hold")
    assert [fault for fault in faults if not any(words in fault for words in of_other_files)] == []


# --- FreeSWITCH, which no registry has: well-formed XML, and no name that its sources do not know


@pytest.mark.parametrize("example", [example for example in examples() if example.endswith(".xml")])
def test_a_file_for_freeswitch_is_well_formed(example: str) -> None:
    assert ElementTree.parse(CONFIG / example).getroot().tag in ("profile", "include", "configuration")


def freeswitch(name: str) -> ElementTree.Element:
    return ElementTree.parse(CONFIG / "freeswitch" / name).getroot()


def test_freeswitch_is_told_of_the_user_who_needs_no_password() -> None:
    """Its own configuration trusts 192.0.2.0/24, where the example's relay and phones are."""
    for example in ("sip_profiles/relay700.xml", A_PHONE):
        head = (CONFIG / "freeswitch" / example).read_text().partition("-->")[0]
        assert "brian.xml" in head and "192.0.2.0/24" in head and "delete" in head.lower()


def test_a_phone_behind_freeswitch_calls_as_itself_alone() -> None:
    """It has logged in, and neither its own word nor its directory entry says who calls."""
    (context,) = [each for each in freeswitch(DIALPLAN).iterfind("context") if each.attrib["name"] == "from-phones"]
    (extension,) = context.iterfind("extension")
    assert [condition.attrib["field"] for condition in extension.iterfind("condition")] == [
        "${sip_auth_username}",
        "destination_number",
    ]
    actions = [(each.attrib["application"], each.attrib["data"]) for each in extension.iterfind("condition/action")]
    assert ("set", "effective_caller_id_number=${sip_auth_username}") in actions
    assert ("set", "effective_caller_id_name=${sip_auth_username}") in actions
    assert ("privacy", "no") in actions


def test_freeswitch_does_not_give_up_before_the_relay() -> None:
    """Else an unanswered call would be recorded as cancelled by the caller."""
    actions = [action.attrib["data"] for action in freeswitch(DIALPLAN).iter("action")]
    times_s = [int(data.partition("=")[2]) for data in actions if data.startswith("call_timeout=")]
    assert len(times_s) == 2
    assert min(times_s) > load_config(CONFIG / "relay.toml").settings.ring_timeout_s


def known_to_freeswitch(kind: str) -> set[str]:
    lines = (ROOT / "tests" / "data" / "freeswitch" / "names.txt").read_text().splitlines()
    return {line.partition(" ")[2] for line in lines if line.startswith(f"{kind} ")}


@pytest.mark.parametrize(("kind", "path"), [("gateway", "gateways/gateway"), ("profile", "settings")])
def test_freeswitch_knows_each_parameter(kind: str, path: str) -> None:
    names = [param.attrib["name"] for param in freeswitch("sip_profiles/relay700.xml").iterfind(f"{path}/param")]
    assert names
    assert set(names) - known_to_freeswitch(kind) == set()
    assert len(names) == len(set(names))


def test_freeswitch_knows_each_application_and_variable() -> None:
    actions = list(freeswitch(DIALPLAN).iterfind("context/extension/condition/action"))
    assert {action.attrib["application"] for action in actions} - known_to_freeswitch("application") == set()
    set_ = [action.attrib["data"] for action in actions if action.attrib["application"] in ("set", "export")]
    assert {data.removeprefix("nolocal:").partition("=")[0] for data in set_} - known_to_freeswitch("variable") == set()


def test_what_one_freeswitch_file_names_stands_in_another() -> None:
    profile = freeswitch("sip_profiles/relay700.xml")
    settings = {param.attrib["name"]: param.attrib["value"] for param in profile.iterfind("settings/param")}
    dialplan = freeswitch(DIALPLAN)
    assert settings["apply-inbound-acl"] in {
        access.attrib["name"] for access in freeswitch("autoload_configs/acl.conf.xml").iterfind("network-lists/list")
    }
    contexts = {context.attrib["name"] for context in dialplan.iterfind("context")}
    user = {
        each.attrib["name"]: each.attrib["value"] for each in freeswitch(A_PHONE).iterfind("user/variables/variable")
    }
    assert {settings["context"], user["user_context"]} == contexts
    assert set(user) - known_to_freeswitch("variable") == set()
    (gateway,) = profile.iterfind("gateways/gateway")
    bridges = [action.attrib["data"] for action in dialplan.iter("action") if action.attrib["application"] == "bridge"]
    assert [bridge for bridge in bridges if bridge.startswith(f"sofia/gateway/{gateway.attrib['name']}/")]


# --- rtpengine, and the kernel's rules beside it


def test_rules_are_loaded_again_and_with_those_of_the_distribution(tmp_path: Path) -> None:
    """With other ports, too: no rule of before stays in force."""
    example = CONFIG / "rtpengine" / "nftables.conf"
    (before := tmp_path / "before.conf").write_text(example.read_text().replace("20000-29999", "10000-10999"))
    (etc := tmp_path / "nftables.conf").write_text(f'flush ruleset\ninclude "{example}"\n')
    for first, last in ((before, example), (example, etc)):
        load = f"PATH=$PATH:/usr/sbin; nft -f {first} && nft -f {last} && nft list ruleset"
        command = ["unshare", "--map-root-user", "--net", "sh", "-c", load]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert (done.stdout.count("drop"), done.stdout.count("sport 20000-29999")) == (2, 2)


def test_rules_are_for_the_ports_of_the_installed_rtpengine() -> None:
    """The package's own file answers at the same address, and has others."""
    conf, rules = ((CONFIG / "rtpengine" / name).read_text() for name in ("rtpengine.conf", "nftables.conf"))
    assert (
        "#   install -m 644 config/rtpengine/rtpengine.conf /etc/rtpengine/ && systemctl restart rtpengine-daemon"
        in conf
    )
    assert "#   systemctl enable nftables && systemctl restart nftables" in rules
    ports = re.search(r"^port-min = (\d+)\nport-max = (\d+)$", conf, re.MULTILINE)
    assert ports
    assert set(re.findall(r"sport (\S+)", rules)) == {"-".join(ports.groups())}


def test_the_spool_of_recordings_is_made_at_each_boot(tmp_path: Path) -> None:
    """By the lines of the comment, which systemd-tmpfiles applies here for another folder and owner."""
    text = (CONFIG / "rtpengine" / "rtpengine.conf").read_text()
    (spool,) = re.findall(r"^#recording-dir = (\S+)$", text, re.MULTILINE)
    (line,) = re.findall(r"^# {3}(tmpfs .*)$", text, re.MULTILINE)
    place, kind, options, *_ = line.split()[1:]
    assert (place, kind) == (spool, "tmpfs")
    assert {"uid=rtpengine", "gid=relay700", "mode=2770"} < set(options.split(","))
    folders = "".join(re.findall(rf"^# {{3}}(d {spool}/.*\n)", text, re.MULTILINE))
    (tmp_path / "spool").mkdir()
    of_this_user = folders.replace(spool, f"{tmp_path}/spool").replace(
        "rtpengine relay700", f"{os.getuid()} {os.getgid()}"
    )
    (tmp_path / "spool.conf").write_text(of_this_user)
    subprocess.run(["systemd-tmpfiles", "--create", tmp_path / "spool.conf"], check=True)
    assert {path.name: oct(path.stat().st_mode) for path in (tmp_path / "spool").iterdir()} == dict.fromkeys(
        FOLDERS, "0o42770"
    )
    for unit in ("relay700.service", "relay700@.service"):
        assert f"\n#ReadWritePaths=-{spool}\n" in (CONFIG / "systemd" / unit).read_text()


# --- systemd


def unit_of(folder: Path, name: str) -> Path:
    """The example, for the relay700 of this environment."""
    command = str(Path(PYTHON).with_name("relay700"))
    text = (CONFIG / "systemd" / name).read_text()
    assert "/opt/relay700/.venv/bin/relay700 serve" in text
    file = folder / name
    file.write_text(text.replace("/opt/relay700/.venv/bin/relay700", command))
    return file


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    return unit_of(tmp_path, "relay700.service")


@pytest.mark.parametrize("name", ["relay700.service", "relay700@.service"])
def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path, name: str) -> None:
    unit = unit_of(tmp_path, name)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_of_a_node_is_the_other_one_with_files_of_its_own() -> None:
    alone, of_node = (
        (CONFIG / "systemd" / name).read_text().partition("[Unit]")[2]
        for name in ("relay700.service", "relay700@.service")
    )
    for there, here in (
        ("Description=relay700,", "Description=relay700 node %i,"),
        ("/etc/relay700/relay.toml", "/etc/relay700/%i.toml"),
        ("if relay.toml has a fault", "if %i.toml has a fault"),
        ("WorkingDirectory=/var/lib/relay700\n", "WorkingDirectory=/var/lib/relay700/%i\n"),
        ("StateDirectory=relay700\n", "StateDirectory=relay700/%i\n"),
    ):
        assert there in alone
        alone = alone.replace(there, here)
    assert of_node == alone


def test_relay_toml_is_installed_unreadable_for_other_users() -> None:
    """It may hold a database's password and numbers of parties."""
    (by_hand,) = re.findall("install -D .* /etc/relay700/relay.toml", (CONFIG / "systemd/relay700.service").read_text())
    assert " -m 640 -o root -g relay700 " in by_hand
    scripts = CONFIG.parent / "scripts" / "dist.d"
    (packed,) = re.findall("install -D .*/etc/relay700/relay.toml", (scripts / "deb.sh").read_text())
    assert " -m 640 " in packed
    _, _, first_time = (scripts / "debian" / "postinst").read_text().partition('if [ -z "$2" ]; then\n')
    assert "chgrp relay700 /etc/relay700/relay.toml" in first_time.partition("\n    fi\n")[0]


def test_systemd_tries_a_start_that_fails_for_ever(unit: Path) -> None:
    """By default it gives up after five within 10 s, and a listen address that comes 6 s late is one too late."""
    own, _, service = unit.read_text().partition("[Service]")
    assert "\nStartLimitIntervalSec=0\n" in own
    assert re.search(r"^RestartMaxDelaySec=2s$", service, re.MULTILINE)


def test_systemd_waits_for_an_index_on_a_large_table(unit: Path) -> None:
    """Killed after the 90 s of its default, the relay would begin it anew at each start."""
    assert "\nTimeoutStartSec=1h\n" in unit.read_text()


def test_the_journal_drops_no_line(unit: Path) -> None:
    """By default it may after 10,000 in 30 s, and each call has one: a leak's among them."""
    assert "\nLogRateLimitIntervalSec=0\n" in unit.read_text()


def test_systemd_finds_the_unit_well_protected(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_command_by_which_systemd_reloads_works(unit: Path, start_relay: StartRelay) -> None:
    relay = start_relay()
    (line,) = re.findall("^ExecReload=(.*)$", unit.read_text(), re.MULTILINE)
    command = line.replace("/etc/relay700/relay.toml", str(relay.config)).split()
    for more, status in (("", 0), ("[sip]\nno_such = 1\n", 1)):
        relay.config.write_text(relay.config.read_text() + more)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
    relay.wait_for_event("relay.reloaded")


def test_relay_tells_its_service_manager_how_it_fares(
    start_relay: StartRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "10000000")
        relay = start_relay()
        assert {manager.recv(100) for _ in range(4)} == {b"READY=1", b"WATCHDOG=1"}
        relay.stop()
        while (told := manager.recv(100)) == b"WATCHDOG=1":
            pass
        assert told == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=12000000"  # drain_s is 2
        monkeypatch.delenv("NOTIFY_SOCKET")
        relay.start()


# --- the Dockerfile, read by BuildKit's own parser; scripts/dist builds it

INSTRUCTIONS = set(
    "ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL RUN STOPSIGNAL USER VOLUME WORKDIR".split()
)


@pytest.fixture(scope="module")
def instructions() -> list[dockerfile.Command]:
    return list(dockerfile.parse_file(str(ROOT / "Dockerfile")))


def the_last(name: str, instructions: list[dockerfile.Command]) -> dockerfile.Command:
    return [instruction for instruction in instructions if instruction.cmd == name][-1]


def test_dockerfile_has_known_instructions_and_is_not_run_by_root(instructions: list[dockerfile.Command]) -> None:
    assert {instruction.cmd for instruction in instructions} <= INSTRUCTIONS
    assert the_last("USER", instructions).value == ("10700:10700",)  # Kubernetes does not know the user behind a name
    assert the_last("VOLUME", instructions).value == the_last("WORKDIR", instructions).value


def test_dockerfile_labels_say_what_the_project_says(instructions: list[dockerfile.Command]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    words = iter(the_last("LABEL", instructions).value)
    labels = {name: value.strip('"') for name, value in zip(words, words, strict=True)}
    assert labels == {
        "org.opencontainers.image.title": project["name"],
        "org.opencontainers.image.description": project["description"],
        "org.opencontainers.image.licenses": project["license"],
    }


def test_parts_for_kubernetes_fit_image_and_api(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, instructions: list[dockerfile.Command]
) -> None:
    spec = yaml.safe_load((ROOT / "config/kubernetes/statefulset.yaml").read_text())["spec"]
    (container,) = spec["containers"]
    values = {each["name"]: each.get("value", "relay700-0") for each in container["env"]} | {"POD_IP": "192.0.2.7"}
    for name, value in values.items():
        monkeypatch.setenv(name, value.replace("$(POD_IP)", values["POD_IP"]))
    store = '[store]\nurl = "postgresql:///relay"\nkey_file = "/run/relay700/relay.key"\nfolder = "var"\n'
    (tmp_path / "relay.toml").write_text(f'{store}[api]\ncertificate = "/run/relay700/c"\nkey = "/run/relay700/k"\n')
    config = load_config(tmp_path / "relay.toml")
    assert (config.store.local, config.settings.listeners[0].host) == (Path("var/relay.relay700-0"), "192.0.2.7")
    for probe in (container["livenessProbe"], container["readinessProbe"]):
        assert probe["httpGet"]["port"] == config.api.port
        assert probe["httpGet"]["path"] in json.loads(openapi_document())["paths"]
    assert the_last("USER", instructions).value == (f"{spec['securityContext']['fsGroup']}:10700",)
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert {the_last("WORKDIR", instructions).value[0], "/run/relay700", "/etc/relay700"} == set(mounts)
    assert spec["terminationGracePeriodSeconds"] > config.drain_s
    (secret,) = [volume["secret"] for volume in spec["volumes"]]
    assert secret["defaultMode"] == 0o440


def test_dockerfile_says_how_its_user_may_read_relay_toml() -> None:
    """The package and the unit have it readable for their own group alone."""
    text = (ROOT / "Dockerfile").read_text()
    (made,) = re.findall(r"groupadd --gid (\d+) relay700", text)
    assert re.findall(r"^#   install -D -m 640 -g (\d+) config/relay.toml /etc/relay700/relay.toml$", text, re.M) == [
        made
    ]


def test_dockerfile_copies_all_that_is_installed(instructions: list[dockerfile.Command]) -> None:
    copies = [each for each in instructions if each.cmd == "COPY"]
    copied = {source for each in copies for source in each.value[:-1]}
    made = {"dist/relay700_*.deb"}
    assert [source for source in copied - made if not list(ROOT.glob(source))] == []
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert sent[1] == "*"
    assert {line.removeprefix("!") for line in sent if line.startswith("!")} == copied
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, wheel = tables["project"], tables["tool"]["hatch"]["build"]["targets"]["wheel"]
    files = {"pyproject.toml", "requirements", "scripts", "*.md", *project["license-files"], *wheel["packages"]}
    assert files <= copied


def test_dockerfile_installs_the_compiled_package(instructions: list[dockerfile.Command]) -> None:
    """pip runs in scripts/dist alone, which installs what has hashes."""
    commands = [each.value[0] for each in instructions if each.cmd == "RUN"]
    assert not [command for command in commands if "pip" in command]
    assert any("scripts/dist deb" in command for command in commands)
    assert "apt-get install -y --no-install-recommends /package/relay700_*.deb" in commands[-1]


def test_what_the_container_runs_starts_and_is_found_healthy(
    instructions: list[dockerfile.Command], start_relay: StartRelay
) -> None:
    run = [*the_last("ENTRYPOINT", instructions).value, *the_last("CMD", instructions).value]
    assert run == ["/opt/relay700/bin/relay700", "serve", "-c", "/etc/relay700/relay.toml"]
    relay = start_relay()  # without the API, which only one of several nodes serves
    kind, *check = the_last("HEALTHCHECK", instructions).value
    assert (kind, check[0], check[-1]) == ("CMD", run[0], run[-1])
    check = [*RELAY700, *check[1:-1], str(relay.config)]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    relay.stop()
    assert subprocess.run(check, capture_output=True, check=False).returncode != 0
    relay.start()
