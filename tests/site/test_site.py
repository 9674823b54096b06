"""The built site: complete, without dead links, and without anything from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import hms_dist
from hms_dist.commands.table import COMMANDS
from hms_dist.config.recipes import names

pytestmark = pytest.mark.slow
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""Element -> attribute of a resource that a browser loads by itself."""


class Links(HTMLParser):
    """Targets of links, loaded resources, and anchors of one page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag in LOADED and given.get(LOADED[tag]):
            self.loaded.append(given[LOADED[tag]])


@pytest.fixture(scope="module")
def pages(site):
    return {path: Links(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


def target_of(page: Path, link: str) -> tuple[Path, str]:
    parts = urlsplit(link)
    return (page if not parts.path else (page.parent / unquote(parts.path)).resolve()), unquote(parts.fragment)


def test_every_link_leads_somewhere(pages, site):
    dead = []
    for page, found in pages.items():
        for link in [*found.links, *found.loaded]:
            if urlsplit(link).scheme:
                continue
            path, anchor = target_of(page, link)
            if not path.is_file() or (anchor and path in pages and anchor not in {*pages[path].anchors, "__skip"}):
                dead.append(f"{page.relative_to(site)}: {link}")
    assert dead == []


def test_nothing_is_loaded_from_elsewhere(pages, site):
    assert [
        link for found in pages.values() for link in found.loaded if urlsplit(link).scheme not in ("", "data")
    ] == []
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"url\(['\"]?(?:https?:)?//[^)]*\)|@import[^;]*//[^;]*;", styles) == []


def test_every_command_and_recipe_has_its_place(pages, site):
    for command in COMMANDS:
        anchors = pages[site / f"commands/{command}.html"].anchors
        assert command == "recipes" or any(name.startswith("option-") for name in anchors)
    for folder in ("train", "canvas", "render"):
        assert {*names(folder)} <= pages[site / f"recipes/{folder}.html"].anchors


def test_every_public_name_is_in_the_reference(pages, site):
    anchors = {anchor.rpartition(".")[2] for anchor in pages[site / "reference/python.html"].anchors}
    assert anchors >= {*hms_dist.__all__}


def test_options_have_type_unit_and_default(site):
    text = re.sub(r"<[^>]+>", "", (site / "commands/train.html").read_text())
    assert re.search(r"--timeout_s · a number · seconds · default 600", text)
    assert re.search(r"--shards · text · required", text)
    assert re.search(r"--optim.lr · a number · default", text)
