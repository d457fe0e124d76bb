"""The tiny models that several tests load."""

import pytest


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """The tiny models of each family of backbones, written once by each process that runs tests."""
    from exmem.backbones import BACKBONES  # most tests need no torch
    from tests.backbones.models import write

    folder = tmp_path_factory.mktemp("models")
    return {kind: write(kind, folder / kind) for kind in sorted(BACKBONES)}
