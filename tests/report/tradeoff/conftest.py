"""Configurations of tiny models and data, and what runs them here; the cache of hidden tokens is their own."""

import functools
import json
from pathlib import Path

import pytest

from exmem.report.tradeoff import Design, Setup, Tradeoff
from exmem.report.tradeoff.work import run_job
from tests.tiny import SIDE, write_imagefolder, write_models


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """The cache of hidden tokens of all tests here, those of worker processes too."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXMEM_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """What most tests begin with: data, recipes, budgets and options of a tiny backbone."""
    vision, text = write_models(tmp_path_factory.mktemp("models"))
    return {
        "data": {"own": str(write_imagefolder(tmp_path_factory.mktemp("data") / "own"))},
        "recipes": ["half_jpeg", "features"],
        "budgets": ["20kB"],
        "base": {
            "data": {"first_classes": 2, "increments": [1]},
            "backbone": {"vision": str(vision), "text": str(text), "image_size": SIDE, "max_text": 8},
            "tuner": {"blocks": 1},
            "loop": {"epochs": 1, "batch": 8, "replay_batch": 8},
        },
    }


@pytest.fixture
def sweep(base, tmp_path):
    """A trade-off of the base with other sections."""

    def make(out=None, *, tell=lambda _: None, **sections):
        return Tradeoff(Design.of({**base, **sections}, tmp_path), out or tmp_path / "out", tell=tell)

    return make


@pytest.fixture
def config_file(base, tmp_path):
    """A file of the base with other sections."""

    def write(**sections):
        file = tmp_path / "config.json"
        file.write_text(json.dumps({**base, **sections}))
        return file

    return write


class Here:
    """Runs jobs in this process; remembers the cells of each."""

    def __init__(self, out: Path, *, most: int | None = None) -> None:
        self.setup, self.most = Setup(out, Path(), {}, threads=1), most
        self.cells = []

    def run(self, jobs, tell):
        for job in jobs[: self.most]:
            self.cells += job.cells
            yield job, run_job(job, self.setup, functools.partial(tell, job.title))
