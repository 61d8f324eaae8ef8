"""The documents as a site, which scripts/docs builds: each internal link and anchor of its pages leads somewhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.outside

ROOT = Path(__file__).parents[1]


class Links(HTMLParser):
    """The links, sources and ids of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids |= {value for name in ("id", "name") if (value := given.get(name))}
        loaded = given.get("href" if given.get("rel") in ("stylesheet", "preconnect") else "src")
        self.loaded += [loaded] if loaded else []
        self.targets += [value for name in ("href", "src") if (value := given.get(name)) is not None]


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, root / "scripts/docs.d/build.py", site]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def broken(site: Path) -> list[str]:
    """Each internal link that leads nowhere, with its page."""
    pages = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(pages) > 50
    found = []
    for page, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            path = path / "index.html" if path.is_dir() else path
            anchor = unquote(parts.fragment)
            if not path.is_file() or (path in pages and anchor not in {"", *pages[path].ids}):
                found.append(f"{page.relative_to(site)}: {target}")
    return found


def test_every_link_of_the_site_leads_somewhere(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert broken(tmp_path) == []
    taken = {source for page in tmp_path.rglob("*.html") for source in Links(page).loaded}
    assert taken and not any(urlsplit(source).netloc for source in taken), "a page loads something from elsewhere"


@pytest.mark.parametrize("link", ["docs/NOWHERE.md", "docs/CALLS.md#nowhere"])
def test_a_broken_link_fails(tmp_path: Path, link: str) -> None:
    copy = tmp_path / "tree"
    for name in ("docs", "config", "requirements", "scripts", "clients", "tests/data"):
        shutil.copytree(ROOT / name, copy / name)
    for path in (*ROOT.glob("*.md"), ROOT / "LICENSE", ROOT / "Dockerfile"):
        shutil.copy(path, copy)
    with (copy / "docs/FAQ.md").open("a") as page:
        page.write(f"\n[a page](../{link})\n")
    done = build(copy, tmp_path / "site")
    assert done.returncode != 0
    assert link.rpartition("/")[2].partition("#")[2] in done.stderr and "FAQ.md" in done.stderr
