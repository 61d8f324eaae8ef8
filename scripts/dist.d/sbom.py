"""sbom.py [--environment VENV] ARTIFACT…: writes ARTIFACT.cdx.json, its materials in CycloneDX, by cyclonedx-py.

It lists what VENV has, for an artifact that holds it; otherwise what requirements/run.txt lets be installed with it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tomllib
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


def write(bom: dict[str, Any], artifact: Path) -> None:
    content = hashlib.sha256(artifact.read_bytes()).hexdigest()
    about = bom["metadata"]["component"]
    about["purl"] = f"pkg:generic/relay700@{PROJECT['version']}?checksum=sha256:{content}&file_name={artifact.name}"
    about["hashes"] = [{"alg": "SHA-256", "content": content}]
    artifact.with_name(f"{artifact.name}.cdx.json").write_text(json.dumps(bom, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path)
    parser.add_argument("artifacts", type=Path, nargs="+")
    options = parser.parse_args()
    bom = components(options.environment)
    for artifact in options.artifacts:
        write(bom, artifact)


if __name__ == "__main__":
    main()
