#!/usr/bin/env python3
"""Build the documents as a site: build.py FOLDER. Exit status 1 if a link leads nowhere.

Pages are written for the forge and copied at their places in the tree, with the files that they link to. MkDocs reads
lists a little differently: `for_site` indents them as it wants.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"(?<!`)\]\(([^)#:]+)(?:#[^)]*)?\)")
_ITEM = re.compile(r"( *)([-*]|\d+\.) (?=\S)")
_FENCE = re.compile(r" *(```+)")


def pages(root: Path) -> list[Path]:
    """The documents, relative to the root."""
    found = [*root.glob("*.md"), *root.glob("docs/**/*.md"), root / "clients/python/README.md"]
    return sorted(path.relative_to(root) for path in found)


def copy(root: Path, sources: Path) -> None:
    """Copy the documents, and what they link to. A linked folder is shown as a list of its files."""
    documents = pages(root)
    for page in documents:
        text = (root / page).read_text()
        for link in _LINK.findall(text):
            linked = Path(os.path.normpath(page.parent / link))
            if linked not in documents and (root / linked).is_file():
                shutil.copyfile(root / linked, _at(sources / linked))
            elif (root / linked).is_dir():
                _list(root, linked, sources)
                text = text.replace(f"]({link})", f"]({link.rstrip('/')}/index.txt)")
        _at(sources / page).write_text(for_site(text))


def _list(root: Path, folder: Path, sources: Path) -> None:
    """Copy the files of a linked folder, and make a list of them."""
    files = sorted(path for path in (root / folder).rglob("*") if path.is_file())
    for path in files:
        shutil.copyfile(path, _at(sources / path.relative_to(root)))
    names = [str(path.relative_to(root / folder)) for path in files]
    _at(sources / folder / "index.txt").write_text("\n".join(names) + "\n")


def _at(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def for_site(text: str) -> str:
    """A page with four blanks for each level of a list, and a blank line before a list."""
    return "\n".join(_lines(text.splitlines())) + "\n"


def _lines(lines: list[str]) -> Iterator[str]:
    levels: list[int] = []  # the column of the text of each open item
    fence = ""
    before = ""
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if not fence and line.strip():
            while levels and indent < levels[-1] and not (before.strip() and not _ITEM.match(line) and indent > 0):
                levels.pop()
        if not fence and (item := _ITEM.match(line)):
            if not levels and before.strip() and not before.startswith((" ", "#")) and not _ITEM.match(before):
                yield ""
            yield "    " * len(levels) + line.lstrip()
            levels.append(item.end())
        else:
            taken = min(indent, levels[-1]) if levels else 0
            yield "    " * len(levels) + line[taken:] if line.strip() else ""
        if found := _FENCE.match(line):
            fence = "" if fence else found[1]
        before = line


def main() -> None:
    os.environ["NO_MKDOCS_2_WARNING"] = "true"  # Material tells of MkDocs 2, which is not used
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    site = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        copy(ROOT, Path(folder))
        config = load_config(
            str(Path(__file__).with_name("mkdocs.yml")), docs_dir=folder, site_dir=str(site), strict=True
        )
        config.plugins.on_startup(command="build", dirty=False)
        try:
            build(config)
        except Abort as abort:
            sys.exit(str(abort))
        finally:
            config.plugins.on_shutdown()


if __name__ == "__main__":
    main()
