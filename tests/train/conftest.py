"""Data and backbones of the trainer's tests, and a run that has ended; the cache of hidden tokens is their own."""

import functools

import pytest
from rich.console import Console

from exmem.train.data import load_data
from tests.tiny import config_of, load_joint, start, write_imagefolder, write_models


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """The cache of hidden tokens of all tests here."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exmem.train.cache.cache_dir", lambda: folder)
        yield folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory):
    return write_imagefolder(tmp_path_factory.mktemp("data") / "own")


@pytest.fixture(scope="session")
def data(data_folder):
    return load_data(data_folder)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def backbone(models):
    """What loads a fresh backbone: a trainer puts adapters into it."""
    return functools.partial(load_joint, models)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory, backbone, data):
    """What runs to the end, once for each of its options; tests only read its folder."""
    runs = {}

    def run(recipe=None, **options):
        config = config_of(recipe, **options)
        if config not in runs:
            trainer = start(tmp_path_factory.mktemp("whole") / "run", backbone, data, recipe, **options)
            runs[config] = trainer, trainer.run(Console(quiet=True))
        return runs[config]

    return run
