"""The site is built without a warning, from itself alone, and its reference is whole."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from exmem import errors
from exmem.cli.main import COMMANDS
from tests.docs.pages import ROOT
from tests.test_docstrings import PAGES

pytestmark = pytest.mark.slow


def build(config, folder):
    """Build a site as `make docs` does; with --quiet no warning would be seen, and none be an error."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", config, "--site-dir", folder]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def inventory(site):
    """The names that the reference has an entry for, as other sites link to them."""
    entries = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    return {entry.split()[0] for entry in entries}


NOWHERE = ["[a](none.md)", "[a](#none)", "![a](none.png)", "[a](../outside.md)", "[a](/index.md)"]


@pytest.mark.parametrize(("link", "ends"), [("[a](index.md#a)", False), *((link, True) for link in NOWHERE)])
def test_a_link_that_leads_nowhere_ends_the_build(link, ends, tmp_path):
    (tmp_path / "outside.md").touch()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# A\n\n{link}")
    settings = f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: docs\nhooks: []\nplugins: []\nnav: [index.md]\n"
    (tmp_path / "mkdocs.yml").write_text(settings)
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert (done.returncode != 0) == ends, done.stdout + done.stderr


def names_of(page):
    """The names that an entry of `PAGES` stands for, read from the source: an adapter's library may be absent."""
    module, _, name = page.partition(":")
    source = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
    listed = re.search(r"^__all__ = (\[.*?\])", source, re.DOTALL | re.MULTILINE)[1]
    return {f"{module}.{public}" for public in ([name] if name else ast.literal_eval(listed))}


@pytest.mark.parametrize("page", PAGES)
def test_every_name_of_the_reference_has_its_entry(page, inventory):
    names = names_of(page)
    assert names
    found = {name for name in names if name in inventory or f"{name}.{name.rpartition('.')[2]}" in inventory}
    assert found == names


def package(name):
    """Where a name is listed: a function in a module of its name is hidden by that, and shown by both."""
    return re.sub(r"\.(\w+)\.\1$", "", name)


def test_the_pages_of_the_reference_show_what_is_listed_where_docstrings_are_tested():
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").rglob("*.md"))
    shown = {package(name) for name in re.findall(r"^::: (\S+)", pages, re.MULTILINE)}
    assert shown == {package(page.replace(":", ".")) for page in PAGES}


def test_every_command_has_its_help_in_the_reference(site):
    page = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f'id="exmem-{name}"' not in page or f"usage: exmem {name}" not in page] == []
    assert "\x1b" not in page


def test_every_error_is_in_the_tree(site):
    page = (site / "reference" / "errors.html").read_text(encoding="utf-8")
    tree = re.search(r"ExmemError\n.*?</pre>", page, re.DOTALL)[0]
    kinds = [name for name in errors.__all__ if issubclass(getattr(errors, name), errors.ExmemError)]
    assert [name for name in kinds if name not in tree] == []


def test_the_site_takes_nothing_from_other_hosts(site):
    pages = list(site.rglob("*.html"))
    taken = r"<(?:script|img|iframe)[^>]*src=\"(https?:[^\"]*)|<link[^>]*href=\"(https?:[^\"]*)"
    assert pages
    assert [found for page in pages for found in re.findall(taken, page.read_text(encoding="utf-8"))] == []
