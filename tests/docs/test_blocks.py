"""Every block of the documentation runs, and prints what the page says, or bears the reason why not."""

import itertools
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import README, README_NOT_RUN, RUN, SHOWN, blocks_of, name_of, pages

# The kinds of reasons; what comes behind a colon is said to the reader alone.
REASONS = {"takes minutes", "needs a cluster", "needs an S3 account", "needs the network"}
READ = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}
every_page = pytest.mark.parametrize("page", pages(), ids=name_of)
every_page_that_runs = pytest.mark.parametrize(
    "page", [page for page in pages() if any(block.runs for block in blocks_of(page))], ids=name_of
)


def run(page: Path, folder: Path) -> list[str]:
    """What each block prints that is run; they find `exmem` on the path, and ask no hub."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    blocks = [(block.language, block.line, block.code) for block in blocks_of(page) if block.runs]
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "run_blocks.py", page],
        input=json.dumps(blocks),
        cwd=folder,
        env=os.environ | {"PATH": path, "COLUMNS": "100", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def plain(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


@every_page_that_runs
def test_the_blocks_of_a_page_run_and_print_what_it_says(page, tmp_path):
    blocks = blocks_of(page)
    printed = dict(zip([block.line for block in blocks if block.runs], run(page, tmp_path), strict=True))
    for block, after in itertools.pairwise(blocks):
        if after.is_output:
            assert plain(printed[block.line]) == plain(after.code), f"{name_of(page)}:{after.line}"


@every_page
def test_a_block_is_of_a_language_that_is_run_read_or_shown(page):
    ticks = [line for line in page.read_text(encoding="utf-8").splitlines() if line.strip().startswith("```")]
    assert len(ticks) == 2 * len(blocks_of(page))  # each fence is closed
    assert {block.language for block in blocks_of(page)} <= {*RUN, *SHOWN}
    for block in blocks_of(page):
        READ.get(block.language, str)(block.code)  # raises where it cannot be read


@every_page
def test_what_is_shown_as_output_is_text_that_follows_a_block_that_runs(page):
    blocks = blocks_of(page)
    for before, block in zip([None, *blocks], blocks, strict=False):
        if block.is_output:
            assert block.language == "text"
            assert before is not None
            assert before.runs, f"{name_of(page)}:{block.line}"


def test_blocks_are_left_out_for_few_reasons():
    left_out = [block.not_run for page in pages() for block in blocks_of(page) if block.not_run is not None]
    assert {reason.partition(":")[0] for reason in left_out} == REASONS


def test_every_block_of_the_readme_that_is_left_out_is_there():
    assert set(README_NOT_RUN) <= {block.code.partition("\n")[0] for block in blocks_of(README)}


def test_some_blocks_of_the_readme_run():
    assert any(block.runs for block in blocks_of(README))
