"""The models of each family, written once."""

import pytest

from exmem.backbones import BACKBONES
from tests.backbones.models import write


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: write(kind, folder / kind) for kind in sorted(BACKBONES)}
