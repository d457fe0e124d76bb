"""What a page offers by an entry point is found by its name, in a process that ran no code of the page."""

import os
import re
import subprocess
import sys
import tomllib

import pytest

from tests.docs.pages import ROOT, blocks_of

# Page -> an expression that is true where its part can be had by name.
USED = {
    "own_scorer": "exmem.recipes.Recipe.of('masked').refined(scorer='ink:paper=255').scorer.kwargs == {'paper': 255}",
    "own_codec": "exmem.codecs.get_codec({'id': 'grey', 'bits': 8}, shape=(8, 8, 3), dtype='uint8').token_bytes == 192",
    "own_recipe": "str(exmem.recipes.Recipe.of('checkers').keep) == 'checkered'",
    "own_method": "exmem.train.config.TrainConfig.from_json({'recipe': 'none', 'tuner': {'phases': 'none'}, "
    "'method': {'head': 'gaussian:smoothing=0.05', 'distill_weight': 0}}).keeps_sums",
}


def installed(page, folder):
    """Write what `pip install` of the page's package leaves: the module, and the entry points."""
    blocks = blocks_of(ROOT / "docs" / "howto" / f"{page}.md")
    (package,) = [tomllib.loads(block.code)["project"] for block in blocks if block.language == "toml"]
    groups = package["entry-points"]
    places = [place.split(":") for group in groups.values() for place in group.values()]
    for module, name in places:
        defined = re.compile(rf"^(def|class) {name}\b|^{name} = ", re.MULTILINE)
        code = next(block.code for block in blocks if block.language == "python" and defined.search(block.code))
        (folder / f"{module}.py").write_text(code)
    about = folder / f"{package['name'].replace('-', '_')}-{package['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package['name']}\nVersion: {package['version']}\n")
    lines = [
        line for group in groups for line in (f"[{group}]", *(f"{n} = {place}" for n, place in groups[group].items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines))


@pytest.mark.parametrize("page", USED)
def test_a_part_is_found_by_its_entry_point(page, tmp_path):
    installed(page, tmp_path)
    modules = "exmem.codecs, exmem.recipes, exmem.train.config"
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", f"import {modules}; assert {USED[page]}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", USED)
def test_without_the_package_there_is_no_such_part(page, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", f"import exmem.codecs, exmem.recipes, exmem.train.config; assert {USED[page]}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "unknown" in done.stderr
