"""Scripts that install programs, with stubs in the place of apt, systemd and pip."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


class Machine:
    """Programs that scripts find instead of this machine's, and what those wrote into `log`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self._bin = folder / "bin"
        self._bin.mkdir()

    def stub(self, name: str, script: str) -> None:
        path = self._bin / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def run(self, *command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """As root, who is made in a namespace where the tests have another user."""
        as_root = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
        environment = os.environ | {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "DPKG_ROOT": str(self.folder),
            "LOG": str(self.log),
        }
        return subprocess.run(
            [*as_root, *command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )

    def logged(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# --- the Debian package


@pytest.mark.parametrize("scripts", [("upgrade", "configure"), ("abort-upgrade", "abort-upgrade")])
def test_an_upgrade_succeeds_although_a_relay_does_not_start_yet(machine: Machine, scripts: tuple[str, str]) -> None:
    """As while PostgreSQL is away. A failed postinst would leave the package half-configured."""
    (machine.folder / "run/systemd/system").mkdir(parents=True)
    stopped = machine.folder / "run/relay700.stopped"
    stopped.write_text("relay700@a.service\nrelay700@b.service\n")
    for name in ("getent", "install"):
        machine.stub(name, "exit 0")
    machine.stub("systemctl", 'echo "systemctl $*" >>"$LOG"; [[ $1 != start ]]')
    for script, argument in zip(("postrm", "postinst"), scripts, strict=True):  # in the order of dpkg
        text = (ROOT / "scripts/dist.d/debian" / script).read_text().replace("/run/", f"{machine.folder}/run/")
        done = machine.run("sh", "-c", text, script, argument, "1.0.0")
        assert done.returncode == 0
    assert "systemctl status relay700@a.service relay700@b.service" in done.stderr
    assert machine.logged() == ["systemctl daemon-reload"] * 2 + [
        "systemctl start relay700@a.service relay700@b.service"
    ]
    assert not stopped.exists()


# --- scripts/counts


def test_a_count_above_its_limit_is_named(tmp_path: Path) -> None:
    """A class name with two meanings here."""

    def check(**classes: str) -> subprocess.CompletedProcess[str]:
        for module, name in classes.items():
            (tmp_path / f"relay/{module}.py").write_text(f"class {name}: ...\n")
        command = [sys.executable, ROOT / "scripts/counts", "--check", tmp_path]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    (tmp_path / "relay").mkdir()
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert (check(a="Call", b="Leg").returncode, check().stderr) == (0, "")
    two = check(b="Call")
    assert (two.returncode, two.stderr) == (1, "class names with two meanings: 1, above the limit of 0\n")
    assert "    Call: relay/a.py, relay/b.py\n" in two.stdout


# --- scripts/dist


@pytest.mark.parametrize("kinds", [["image"], ["deb", "image"]], ids=" ".join)
def test_the_image_has_the_package_of_this_tree(machine: Machine, kinds: list[str]) -> None:
    """dist/ may have that of an older one. It is built once a run."""
    tree = machine.folder / "tree"
    for name, script in {
        "scripts/dist": (ROOT / "scripts/dist").read_text(),
        "scripts/epoch.sh": "echo 0",
        "scripts/wheel.sh": "echo relay700.whl",
        "scripts/dist.d/deb.sh": 'echo deb >>"$LOG" && rm -f dist/*.deb && touch dist/new.deb dist/new.deb.cdx.json',
        "scripts/dist.d/image.sh": 'echo "image of $*" >>"$LOG" && touch dist/new.docker.tar',
        "requirements/dist.txt": "",
        ".venv-dist/relay700.stamp": "",
        "dist/old.deb": "",
        "dist/old.deb.cdx.json": "",
    }.items():
        (path := tree / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script if script.startswith("#!") or not script else f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
    machine.stub("buildah", "exit 0")
    done = machine.run("scripts/dist", *kinds, cwd=tree)
    assert done.returncode == 0, done.stderr
    assert machine.logged() == ["deb", "image of dist/new.deb"]


# --- scripts/apt.sh


@pytest.fixture
def debian(machine: Machine) -> Machine:
    """Its ssh.service was there before; kamailio comes with two units that are enabled, and one that is not."""
    (machine.folder / "usr/sbin").mkdir(parents=True)
    machine.stub("apt-config", f"echo \"state='{machine.folder}/'\"")
    machine.stub("apt-get", 'echo "apt-get $*, policy $("$DPKG_ROOT/usr/sbin/policy-rc.d"; echo $?)" >>"$LOG"')
    machine.stub(
        "systemctl",
        """
        [[ $1 == list-unit-files ]] || { echo "systemctl $*" >>"$LOG"; exit; }
        echo 'ssh.service enabled enabled'
        grep -qs '^apt-get install' "$LOG" || exit 0
        printf '%s enabled enabled\\n' kamailio.service kamailio.socket
        [[ $* == *--state=enabled* ]] || echo 'kamailio@.service disabled enabled'""",
    )
    return machine


def test_a_service_that_is_installed_starts_neither_now_nor_at_boot(debian: Machine) -> None:
    done = debian.run("scripts/apt.sh", "kamailio")
    assert done.returncode == 0, done.stderr
    update, install, disable = debian.logged()
    assert update == "apt-get update -qq, policy 101"
    assert install.startswith("apt-get install") and install.endswith(" kamailio, policy 101")
    assert disable == "systemctl disable --quiet kamailio.service kamailio.socket"
    assert not (debian.folder / "usr/sbin/policy-rc.d").exists()


def test_the_policy_of_a_machine_stays(debian: Machine) -> None:
    policy = debian.folder / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 104\n")
    policy.chmod(0o755)
    debian.run("scripts/apt.sh", "kamailio")
    assert policy.read_text() == "#!/bin/sh\nexit 104\n"
    assert debian.logged()[0].endswith("policy 104")


def test_the_policy_of_an_installation_that_was_killed_is_removed(debian: Machine) -> None:
    policy = debian.folder / "usr/sbin/policy-rc.d"
    debian.stub("apt-get", "kill -9 $PPID")
    assert debian.run("scripts/apt.sh", "kamailio").returncode != 0
    assert policy.exists()
    debian.stub("apt-get", "exit 0")
    assert debian.run("scripts/apt.sh", "kamailio").returncode == 0
    assert not policy.exists()


def test_a_failed_installation_leaves_no_policy(debian: Machine) -> None:
    debian.stub("apt-get", "exit 100")
    assert debian.run("scripts/apt.sh", "kamailio").returncode == 100
    assert not (debian.folder / "usr/sbin/policy-rc.d").exists()


@pytest.mark.parametrize("systemctl", ["exit 1", "exit 0"])
def test_packages_are_installed_without_systemd(debian: Machine, systemctl: str) -> None:
    debian.stub("systemctl", systemctl)
    assert debian.run("scripts/apt.sh", "kamailio").returncode == 0
    assert len(debian.logged()) == 2


def test_packages_are_installed_although_systemd_fails(debian: Machine) -> None:
    debian.stub(
        "systemctl", "[[ $1 == list-unit-files && ! -e $LOG ]] && echo ssh.service || { echo new.service; exit 1; }"
    )
    done = debian.run("scripts/apt.sh", "kamailio")
    assert done.returncode == 0
    assert "start at the next boot: new.service" in done.stderr


def test_packages_wait_for_another_apt(debian: Machine) -> None:
    """dpkg's lock by its option; apt's timer, which updates the lists, by the lock that it holds meanwhile."""
    debian.stub("flock", 'echo "flock $*" >>"$LOG"; [[ $* != --nonblock* ]]')
    done = debian.run("scripts/apt.sh", "kamailio")
    assert "waiting for another apt" in done.stderr
    assert debian.logged()[:2] == ["flock --nonblock 9", "flock 9"]
    assert (debian.folder / "daily_lock").exists()
    assert " -o DPkg::Lock::Timeout=" in debian.logged()[3]


# --- scripts/sources.sh, and what takes its lines


@pytest.fixture
def sources(debian: Machine) -> Machine:
    """What a Debian 13 of a cloud has: lists of mirrors; and a third party's repository before them."""
    for name in ("debian", "debian-security"):
        text = f"# nearest first\nhttps://mirror.example/{name}\tpriority:1\nhttps://other.example/{name}\n"
        (debian.folder / name).write_text(text)
    write_sources(
        debian,
        "Elsewhere https://packages.example/apt/ stable main",
        "Debian file:/srv/copy/ trixie main",
        f"Debian mirror+file:{debian.folder}/debian-security/ trixie-security main",
        f"Debian mirror+file:{debian.folder}/debian/ trixie main",
        f"Debian mirror+file:{debian.folder}/debian/ trixie main",
        "Debian http://archive.example/debian/ trixie-updates main",
    )
    return debian


def write_sources(debian: Machine, *lines: str) -> None:
    (debian.folder / "sources").write_text("".join(f"{line}\n" for line in lines))
    debian.stub("apt-get", f"[[ $1 != indextargets ]] || cat '{debian.folder}/sources'")


def test_sources_are_those_of_debian_and_a_list_of_mirrors_is_read(sources: Machine) -> None:
    assert sources.run("scripts/sources.sh").stdout.splitlines() == [
        "deb https://mirror.example/debian-security trixie-security main",
        "deb https://mirror.example/debian trixie main",
        "deb http://archive.example/debian/ trixie-updates main",
    ]


def test_without_a_mirror_it_says_what_to_do(sources: Machine) -> None:
    write_sources(sources, "Elsewhere https://packages.example/apt/ stable main", "Debian file:/srv/copy/ trixie main")
    done = sources.run("scripts/sources.sh")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no Debian mirror (http: or https:) in apt's sources: add one in " in done.stderr


def test_asterisk_is_of_debian_and_not_of_its_security_archive(sources: Machine) -> None:
    sources.stub("debootstrap", 'echo "$*" >>"$LOG"; exit 1')
    sources.run("env", f"RELAY700_ASTERISK={sources.folder}/asterisk", "scripts/asterisk.sh")
    assert {line.split()[-1] for line in sources.logged()} == {"https://mirror.example/debian"}


def test_a_clean_system_is_of_debian(sources: Machine) -> None:
    release = platform.freedesktop_os_release().get("VERSION_CODENAME")
    if not release:
        pytest.skip("this machine's release has no name, so it is not Debian's")
    write_sources(
        sources,
        f"Elsewhere https://packages.example/apt/ {release} main",
        f"Debian mirror+file:{sources.folder}/debian/ {release} main",
    )
    sources.stub("debootstrap", 'echo "$*" >>"$LOG"; exit 1')
    root = sources.folder / "root"
    sources.run("env", f"RELAY700_ROOTS={sources.folder}/roots", "scripts/root.sh", root)
    (made,) = sources.logged()
    assert made.split()[-3:] == [release, str(root), "https://mirror.example/debian"]


# --- scripts/venv.sh


def test_an_environment_is_made_once_by_starts_at_the_same_time(machine: Machine) -> None:
    tree = machine.folder / "tree"
    (tree / "requirements").mkdir(parents=True)
    (tree / "scripts").symlink_to(ROOT / "scripts")
    for name in ("pyproject.toml", "requirements/run.txt"):
        (tree / name).touch()
    found = (
        machine.folder / "found"
    )  # a line for each start that has found its Python; the first to create waits for all
    os.mkfifo(found)
    machine.stub(
        "python9.9",
        f"""
        case $0$* in
            *9.9-c' ') echo >{found} ;;
            *version_info*) echo '9.9 /usr' ;;
            *-m' venv '*)
                echo venv >>"$LOG"
                ! mkdir {machine.folder}/first || for i in {{1..8}}; do read -r; done <{found}
                mkdir -p "$4/bin" && ln -sf "$0" "$4/bin/python" ;;
            *-m' pip '*) echo pip >>"$LOG" ;;
        esac""",
    )
    starts = range(8)
    with found.open("r+b", buffering=0), ThreadPoolExecutor(len(starts)) as threads:
        done = list(threads.map(lambda _: machine.run("scripts/venv.sh", ".venv-test-9.9", cwd=tree), starts))
    assert [each.stderr for each in done] == [""] * len(starts)
    assert machine.logged() == ["venv", "pip", "pip"]  # requirements, then the relay


# --- scripts/wheel.sh


@pytest.mark.outside
def test_the_compiler_refuses_a_folder_where_nothing_can_be_run(machine: Machine) -> None:
    """Before it has compiled for minutes: mypyc's own modules lie in that folder."""
    tree = machine.folder / "tree"
    for name in ("pyproject.toml", "relay/a.py", "requirements/run.txt", "requirements/compile.txt"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    (tree / "scripts").symlink_to(ROOT / "scripts")
    copy = machine.folder / "copy"
    copy.mkdir()
    machine.stub("mktemp", f"echo {copy}")
    machine.stub("apt-get", "exit 100")
    machine.stub("gcc", "exit 1")
    mount = f'mount -t tmpfs -o noexec tmpfs {copy} && exec "$@"'
    done = machine.run("unshare", "--mount", "sh", "-c", mount, "-", "scripts/wheel.sh", sys.executable, cwd=tree)
    assert done.returncode == 1
    assert "/tmp is noexec: mount -o remount,exec /tmp" in done.stderr


# --- the trial of the units under a real systemd, which CI does not run


def test_the_unit_is_installed_as_its_head_says_in_a_container_without_git_and_systemd() -> None:
    script = "source <(sed -n '/^steps()/,/^}/p' scripts/service); steps"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    steps = done.stdout.splitlines()
    assert steps[0].startswith("useradd --system")
    assert steps[1].startswith("/opt/relay700/scripts/venv.sh .venv")
    assert steps[-1] == "systemctl enable relay700"
    assert not [step for step in steps if "git" in step or "daemon-reload" in step]
