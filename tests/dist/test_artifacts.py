"""What `scripts/dist` builds: names, contents, materials, the same bytes twice; each in a clean system, with a call.

`scripts/run` takes what is compiled. The compiled wheel is that of `scripts/compile`, or is made here once.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sysconfig
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from generate import MADE
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from tests.test_requirements import pins, text

pytestmark = [pytest.mark.outside, pytest.mark.timeout(1200)]  # seconds: the compiler may be at work

ROOT = Path(__file__).parents[2]
_HASHES = re.compile(r"^([a-z0-9-]+)==\S+(?: ; [^\\\n]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)", re.MULTILINE)
DIST = ROOT / "dist"
VERSION = Version(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
PRODUCT = ROOT / ".venv" / "bin" / "python"


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def version() -> str:
    """Of the product's Python, such as 3.13."""
    run("scripts/venv.sh", ".venv")
    return run(PRODUCT, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()


@pytest.fixture(scope="module", autouse=True)
def built(version: str) -> str:
    """What the build says. What costs little to build is built twice."""
    shutil.rmtree(DIST, ignore_errors=True)
    said = run("scripts/dist", "--check", "sdist", "wheel")
    assert said.count(": OK") == 4
    return run("scripts/dist", f"compiled:{version}", "deb", "image")


@pytest.fixture(scope="module")
def artifacts(built: str) -> list[Path]:
    """All but the image and the bills of materials."""
    return sorted(file for file in DIST.iterdir() if file.suffix not in (".json", ".tar"))


@pytest.fixture(scope="module")
def compiled() -> Path:
    (wheel,) = DIST.glob("*manylinux*.whl")
    return wheel


@pytest.fixture(scope="module")
def pure() -> Path:
    (wheel,) = DIST.glob("*-none-any.whl")
    return wheel


def test_names_tell_version_python_and_system(artifacts: list[Path], compiled: Path, pure: Path, version: str) -> None:
    assert len(artifacts) == 4
    (sdist,) = DIST.glob("*.tar.gz")
    assert parse_sdist_filename(sdist.name) == ("relay700", VERSION)
    minor = tuple(map(int, version.split(".")))
    platform = sysconfig.get_platform().replace("-", "_").removeprefix("linux_")
    for wheel, tags in (
        (pure, compatible_tags(minor)),
        (compiled, cpython_tags(minor, platforms=[f"manylinux_2_{libc}_{platform}" for libc in range(17, 42)])),
    ):
        name, number, _, own = parse_wheel_filename(wheel.name)
        assert (name, number) == ("relay700", VERSION)
        assert own & set(tags)


def test_pip_chooses_the_compiled_wheel(tmp_path: Path, compiled: Path) -> None:
    options = ("--no-index", "--find-links", DIST, "--no-deps", "--dest", tmp_path)
    run(PRODUCT, "-m", "pip", "download", "--quiet", *options, "relay700")
    assert [file.name for file in tmp_path.iterdir()] == [compiled.name]


def test_the_compiled_wheel_has_the_pure_ones_files_and_machine_code(compiled: Path, pure: Path) -> None:
    with ZipFile(compiled) as own, ZipFile(pure) as other:
        more = {name for name in own.namelist() if name.endswith(".so")}
        assert any(name.startswith("relay/call/engine.") for name in more)
        sources = {name for name in other.namelist() if name.startswith("relay/")}
        files = {name for name in own.namelist() if name.startswith("relay/") and not name.endswith("/")}
        assert files - more == sources
        assert all(own.read(name) == other.read(name) for name in sources)


def test_no_path_of_the_building_machine_is_compiled_in(compiled: Path) -> None:
    with ZipFile(compiled) as wheel:
        code = b"".join(wheel.read(name) for name in wheel.namelist() if name.endswith(".so"))
    assert b"/tmp/" not in code
    assert str(ROOT).encode() not in code


def test_the_sdist_has_all_that_git_has_and_the_made_client_and_gives_the_pure_wheel(
    pure: Path, tmp_path: Path
) -> None:
    (sdist,) = DIST.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    known = run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    files = {str(file.relative_to(tree)) for file in tree.rglob("*") if file.is_file()}
    made = {str(path.relative_to(ROOT)) for path in MADE}
    assert files - {"PKG-INFO"} == {name for name in known if (ROOT / name).exists()} | made
    builder = ROOT / ".venv-dist" / "bin" / "python"
    epoch = run("scripts/epoch.sh").strip()
    run(
        "env",
        f"SOURCE_DATE_EPOCH={epoch}",
        builder,
        "-m",
        "hatchling",
        "build",
        "-t",
        "wheel",
        "-d",
        tmp_path,
        cwd=tree,
    )
    assert (tmp_path / pure.name).read_bytes() == pure.read_bytes()
    shutil.rmtree(tree)


def test_each_has_a_bill_of_what_is_locked_beside_it(artifacts: list[Path]) -> None:
    locked = {
        f"pkg:pypi/{name}@{number}"
        for name, number in pins("run").items()
        if f"{name}=={number} ; sys_platform == 'win32'" not in text("run")
    }
    for artifact in artifacts:
        bom = json.loads(artifact.with_name(f"{artifact.name}.cdx.json").read_text())
        assert bom["bomFormat"] == "CycloneDX"
        about = bom["metadata"]["component"]
        assert (about["name"], about["version"]) == ("relay700", str(VERSION))
        assert about["hashes"] == [
            {"alg": "SHA-256", "content": hashlib.sha256(artifact.read_bytes()).hexdigest()},
        ]
        listed = {component["purl"].partition("?")[0] for component in bom["components"] if "purl" in component}
        assert locked - listed == set()


@pytest.fixture(scope="module")
def unpacked(artifacts: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, its control files in DEBIAN/."""
    (deb,) = DIST.glob("*.deb")
    folder = tmp_path_factory.mktemp("deb")
    run("dpkg-deb", "--raw-extract", deb, folder)
    return folder


def test_the_bill_of_the_package_has_hashes_and_what_its_wheels_bundle(unpacked: Path) -> None:
    (file,) = DIST.glob("*.deb.cdx.json")
    bom = json.loads(file.read_text())
    locked = {name: set(hashes.split()) for name, hashes in _HASHES.findall(text("run"))}
    packages = {each["name"]: each for each in bom["components"] if each.get("purl", "").startswith("pkg:pypi/")}
    assert packages.keys() > {"cryptography", "psycopg-binary"}
    for name, component in packages.items():
        ((algorithm, content),) = [each.values() for each in component["hashes"]]
        assert algorithm == "SHA-256" and f"--hash=sha256:{content}" in locked[name.lower().replace("_", "-")]
    edges = {each["ref"]: each.get("dependsOn", []) for each in bom["dependencies"]}
    names = {each["bom-ref"]: each["name"] for each in bom["components"]}
    assert "openssl" in {names[ref] for ref in edges[packages["cryptography"]["bom-ref"]]}
    files = {each["name"]: each["hashes"][0]["content"] for each in bom["components"] if each["type"] == "file"}
    assert any("/libpq-" in name for name in files)
    (place,) = unpacked.glob("opt/relay700/lib/python3.*/site-packages")
    libraries = {str(each.relative_to(place)): each for each in place.glob("*.libs/*")}
    assert files == {name: hashlib.sha256(each.read_bytes()).hexdigest() for name, each in libraries.items()}


def test_lintian_finds_no_fault_in_the_package(artifacts: list[Path]) -> None:
    """But for those that the package says why it has (usr/share/lintian/overrides)."""
    (deb,) = DIST.glob("*.deb")
    done = subprocess.run(["lintian", "--fail-on=error,warning", deb], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_dpkg_can_check_the_files_of_the_package(unpacked: Path) -> None:
    run("md5sum", "--check", "--quiet", "DEBIAN/md5sums", cwd=unpacked)
    listed = {line.split("  ", 1)[1] for line in (unpacked / "DEBIAN/md5sums").read_text().splitlines()}
    files = {
        str(each.relative_to(unpacked)) for each in unpacked.rglob("*") if each.is_file() and not each.is_symlink()
    }
    assert {name for name in files - listed if not name.startswith("DEBIAN/")} == {"etc/relay700/relay.toml"}


# --- in a clean system

ENTER = """
mount -t proc proc "$0/proc"
mount -t tmpfs tmpfs "$0/dev/shm"
ip link set lo up
exec chroot "$0" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
"""
ENGINE = "import relay.call.engine; print(relay.call.engine.__file__)"
AS_OPERATOR = ("runuser", "-u", "relay700", "--", "env", "--chdir=/var/lib/relay700")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, artifacts: list[Path]) -> Iterator[Path]:
    """A Debian that knows nothing of this machine: artifacts and Debian's pip in /dist, what they need in /needed."""
    root = tmp_path_factory.mktemp("system")
    run("scripts/root.sh", root, "ca-certificates", "python3")  # the image's
    (root / "dist").mkdir()
    for file in (*artifacts, *Path("/usr/share/python-wheels").glob("pip-*.whl")):
        shutil.copy(file, root / "dist")
    download = (PRODUCT, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", root / "needed")
    run(*download, "--requirement", "requirements/run.txt", "--requirement", "requirements/dist.txt")
    yield root
    shutil.rmtree(root)


def inside(root: Path, *command: str) -> str:
    """Run as root in a system, which has its own network: loopback alone."""
    return run("unshare", "--mount", "--pid", "--fork", "--net", "sh", "-euc", ENTER, root, *command)


def test_a_call_passes_through_the_package(system: Path) -> None:
    (deb,) = (system / "dist").glob("*.deb")
    said = inside(system, "dpkg", "--install", f"/dist/{deb.name}")
    assert "systemctl enable --now relay700" in said
    assert inside(system, "/opt/relay700/bin/python", "-c", ENGINE).strip().endswith(".so")
    assert "is good" in inside(system, *AS_OPERATOR, "relay700", "check", "-c", "/etc/relay700/relay.toml")
    assert inside(system, "stat", "-c", "%a %U %G", "/etc/relay700/relay.toml").split() == ["640", "root", "relay700"]
    assert "answered" in inside(system, *AS_OPERATOR, "relay700", "demo")


@pytest.mark.parametrize(("wanted", "engine"), [("", ".so"), ("*-none-any.whl", ".py"), ("*.tar.gz", ".py")])
def test_a_call_passes_through_what_pip_installs(system: Path, wanted: str, engine: str) -> None:
    """pip chooses among all of /dist, or is given one; it builds the sdist, and adds the dependencies."""
    (pip,) = (system / "dist").glob("pip-*.whl")
    folder = tempfile.mkdtemp(dir=system / "srv")
    target = f"/{Path(folder).relative_to(system)}"
    options = ("--no-index", "--find-links=/dist", "--find-links=/needed", f"--target={target}")
    given = [f"/dist/{file.name}" for file in (system / "dist").glob(wanted)] if wanted else ["relay700"]
    command = ("python3", f"/{pip.relative_to(system)}/pip", "install", "--quiet", "--root-user-action=ignore")
    inside(system, *command, *options, *given)
    python = ("env", f"PYTHONPATH={target}", "python3", "-P")
    used = Path(inside(system, *python, "-c", ENGINE).strip())
    assert used.is_relative_to(target) and used.suffix == engine
    assert "answered" in inside(system, *python, "-m", "relay", "demo")


def test_a_call_passes_through_the_image(built: str) -> None:
    assert "answered" in built
    (image,) = DIST.glob("*.docker.tar")
    with tarfile.open(image) as archive:

        def read(name: str) -> Any:
            file = archive.extractfile(name)
            assert file is not None
            return json.load(file)

        (named,) = read("manifest.json")
        config = read(named["Config"])["config"]
    assert set(named["RepoTags"]) == {f"{place}/relay700:{VERSION}" for place in ("docker.io/library", "localhost")}
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "/opt/relay700/bin/relay700"]
    assert (config["User"], config["StopSignal"]) == ("10700:10700", "SIGTERM")
    assert config["Labels"]["org.opencontainers.image.title"] == "relay700"
    assert config["Entrypoint"] == ["/opt/relay700/bin/relay700"]
    assert config["Cmd"] == ["serve", "-c", "/etc/relay700/relay.toml"]


def test_the_package_serves_by_the_units_of_config(system: Path) -> None:
    for name in ("relay700.service", "relay700@.service"):
        _, _, packaged = (system / "usr/lib/systemd/system" / name).read_text().partition("[Unit]")
        _, _, own = (ROOT / "config" / "systemd" / name).read_text().partition("[Unit]")
        assert packaged.replace("/opt/relay700/", "/opt/relay700/.venv/") == own
        (program,) = set(re.findall(r"/opt/\S+", packaged))
        assert (system / program[1:]).exists()


def test_a_package_that_is_removed_leaves_configuration_and_call_records(system: Path) -> None:
    records, key = (system / "var/lib/relay700" / name for name in ("relay.db", "relay.key"))
    for file in (records, key):
        file.write_text("kept")
    inside(system, "dpkg", "--remove", "relay700")
    assert (system / "etc/relay700/relay.toml").exists()
    said = inside(system, "dpkg", "--purge", "relay700")
    assert "kept call records and their key" in said
    assert records.exists() and key.exists()
    assert not (system / "etc/relay700").exists()
    assert not (system / "opt/relay700").exists()


def test_purge_leaves_the_user_alone_where_nothing_was_recorded(system: Path) -> None:
    (deb,) = (system / "dist").glob("*.deb")
    shutil.rmtree(system / "var/lib/relay700")
    inside(system, "dpkg", "--install", f"/dist/{deb.name}")
    inside(system, "dpkg", "--purge", "relay700")
    assert [
        path for path in system.rglob("*relay700*") if path.relative_to(system).parts[0] not in ("dist", "srv")
    ] == []
    assert "relay700" in (system / "etc/passwd").read_text()


# --- scripts/run


def started(tree: Path) -> str:
    """What `scripts/run` says, and the command that it ends in."""
    command = ["bash", "-x", "scripts/run", "-c", "missing.toml"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "missing.toml" in done.stderr
    return done.stderr


def test_run_takes_the_compiled_engine_where_it_is_made_of_this_tree() -> None:
    said = started(ROOT)
    assert "+ exec .venv-compiled/bin/relay700 serve" in said
    assert "pure Python" not in said


def test_run_starts_in_pure_python_where_it_is_not_and_says_how_to_get_it(tmp_path: Path) -> None:
    """With another tree, in which nothing has to be installed: .venv is this one's."""
    for name in ("scripts", "build"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("requirements", "relay"):
        shutil.copytree(ROOT / name, tmp_path / name)
    run("scripts/wheel.sh", "--if-built", PRODUCT, cwd=tmp_path)
    with (tmp_path / "relay" / "errors.py").open("a") as file:
        file.write("# changed\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(ROOT / ".venv" / "bin")
    shutil.copy(ROOT / ".venv" / "relay700.stamp", tmp_path / ".venv")
    first, _ = (ROOT / ".venv" / "relay700.python").read_text().splitlines()
    (tmp_path / ".venv" / "relay700.python").write_text(f"{first}\n{tmp_path}\n")
    said = started(tmp_path)
    assert "+ exec .venv/bin/relay700 serve" in said
    assert "\nstarting in pure Python. Full speed: ./scripts/run --compiled," in said
