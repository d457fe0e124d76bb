"""Links lead somewhere. Those between pages of the site are looked at when it is built (`test_site.py`)."""

import re
from urllib.parse import urlsplit

import pytest

from tests.docs.pages import FENCE, ROOT, name_of, pages

IMAGES = ROOT / "docs" / "images"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)|<(https?:[^>]*)>|(?<![(<\w])(https?://[^\s)>`\"|]+)")
every_page = pytest.mark.parametrize("page", pages(), ids=name_of)


def plain(page):
    """A page without its blocks and without what stands in code font."""
    return re.sub(r"`[^`\n]+`", "", FENCE.sub("", page.read_text(encoding="utf-8")))


def links_of(page):
    return [next(filter(None, groups)) for groups in LINK.findall(plain(page))]


def anchors_of(page):
    """The anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in pages() if not name_of(page).startswith("docs/")], ids=name_of)
def test_a_link_within_the_repository_leads_to_a_file_and_a_heading(page):
    for link in links_of(page):
        place, _, anchor = link.partition("#")
        if not urlsplit(link).scheme:
            target = (page.parent / place).resolve() if place else page
            assert target.is_relative_to(ROOT), link
            assert target.exists(), link
            assert not anchor or anchor in anchors_of(target), link


@every_page
def test_a_link_to_elsewhere_is_well_formed(page):
    for link in links_of(page):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme in {"https", "http"}, link
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), link
            assert not re.search(r"[\s,;]$", link), link


def test_every_picture_of_the_documentation_is_named_with_the_command_that_makes_it():
    rows = re.findall(r"^\| `([^`]+)` \| `[^`]+`", (IMAGES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == sorted(path.name for path in IMAGES.iterdir() if path.name != "README.md")
