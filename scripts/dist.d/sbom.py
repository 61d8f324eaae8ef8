"""sbom.py [--environment VENV --report FILE] ARTIFACT…: writes ARTIFACT.cdx.json, its materials in CycloneDX.

It lists what VENV has, for an artifact that holds it: each package with the hash of its wheel, from pip's report, and
what that wheel bundles. Otherwise it lists what requirements/run.txt lets be installed with it, with all hashes there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]


def components(environment: Path | None) -> dict[str, Any]:
    kind, source = (
        ("requirements", Path("requirements/run.txt")) if environment is None else ("environment", environment)
    )
    program = Path(sys.executable).with_name("cyclonedx-py")
    done = subprocess.run(
        [program, kind, "--pyproject", "pyproject.toml", "--output-reproducible", "--no-validate", source],
        check=True, capture_output=True,
    )  # fmt: skip
    bom: dict[str, Any] = json.loads(done.stdout)
    if environment is None:
        locked = bom["components"]
        for component in locked:
            component.pop("description")  # the line of the file
        root = bom["metadata"]["component"]["bom-ref"]
        graph = [{"ref": component["bom-ref"]} for component in locked]
        bom["dependencies"] = [{"ref": root, "dependsOn": [each["ref"] for each in graph]}, *graph]
    return bom


# -- What is in the wheels of an environment

_KEPT = ("type", "name", "version", "purl", "hashes", "licenses", "author")  # of a component of another bill


def add_wheels(bom: dict[str, Any], environment: Path, report: Path) -> None:
    """Add the hash of each installed wheel, and what it bundles, on which it is then said to depend.

    `report`: pip's, of the installation.
    """
    wheels = {
        canonical(each["metadata"]["name"]): each["download_info"]["archive_info"]["hashes"]["sha256"]
        for each in json.loads(report.read_text())["install"]
    }
    edges = {each["ref"]: each for each in bom["dependencies"]}
    for component in list(bom["components"]):
        name, ref = canonical(component["name"]), component["bom-ref"]
        if name in wheels:
            component["hashes"] = [{"alg": "SHA-256", "content": wheels[name]}]
        if bundled := list(bundled_by(name, environment)):
            bom["components"] += bundled
            own = edges.setdefault(ref, {"ref": ref})
            own["dependsOn"] = sorted([*own.get("dependsOn", ()), *(each["bom-ref"] for each in bundled)])
            edges |= {each["bom-ref"]: {"ref": each["bom-ref"]} for each in bundled}
    bom["dependencies"] = list(edges.values())


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def bundled_by(package: str, environment: Path) -> Iterator[dict[str, Any]]:
    """What a package's wheel says of itself (PEP 770), and the shared libraries that auditwheel has copied into it."""
    (packages,) = environment.glob("lib/python3.*/site-packages")
    for folder in sorted(packages.glob("*.dist-info")):
        if canonical(folder.name.partition("-")[0]) == package:
            seen = {package}
            for bill in sorted(folder.glob("sboms/*.json")):
                for component in json.loads(bill.read_text()).get("components", ()):
                    ref = component.get("purl") or f"{component['name']}@{component.get('version', '')}"
                    if canonical(component["name"]) != package and ref not in seen:
                        seen.add(ref)
                        kept = {key: component[key] for key in _KEPT if key in component}
                        yield {"type": "library", **kept, "bom-ref": f"{package}/{ref}"}
    for library in sorted(packages.glob("*.libs/*")):
        if canonical(library.parent.name.removesuffix(".libs")) == package:
            content = hashlib.sha256(library.read_bytes()).hexdigest()
            place = f"{library.parent.name}/{library.name}"
            hashes = [{"alg": "SHA-256", "content": content}]
            yield {"type": "file", "name": place, "hashes": hashes, "bom-ref": f"{package}/{place}"}


def write(bom: dict[str, Any], artifact: Path) -> None:
    content = hashlib.sha256(artifact.read_bytes()).hexdigest()
    about = bom["metadata"]["component"]
    about["purl"] = f"pkg:generic/relay700@{PROJECT['version']}?checksum=sha256:{content}&file_name={artifact.name}"
    about["hashes"] = [{"alg": "SHA-256", "content": content}]
    artifact.with_name(f"{artifact.name}.cdx.json").write_text(json.dumps(bom, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("artifacts", type=Path, nargs="+")
    options = parser.parse_args()
    bom = components(options.environment)
    if options.environment is not None:
        add_wheels(bom, options.environment, options.report)
    for artifact in options.artifacts:
        write(bom, artifact)


if __name__ == "__main__":
    main()
