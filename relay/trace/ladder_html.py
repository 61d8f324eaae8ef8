"""A ladder as one self-contained HTML file, without scripts. The console has the same macros in its pages.

Text of peers is hostile: every value is escaped.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from relay.trace.ladder import Ladder, ladder_object, story_of
from relay.version import VERSION


def ladder_html(ladder: Ladder) -> str:
    """The file, to attach to a ticket."""
    css = resources.files("relay.trace").joinpath("templates/ladder.css").read_text("utf-8")
    return _template().render(it=ladder_object(ladder), story=story_of(ladder), css=Markup(css), version=VERSION)


@cache
def _template() -> Template:
    environment = make_environment("relay.trace")
    environment.install_null_translations(newstyle=True)  # type: ignore[attr-defined]
    return environment.get_template("ladder_page.html")


def make_environment(*packages: str) -> Environment:
    """The templates of packages. Everything from outside is escaped: no template turns that off."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
