"""What is built once and looked at by several tests."""

import tarfile

import pytest

from tests.packaging.building import ROOT, build


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The wheel and the source distribution of this folder."""
    return build(ROOT, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def unpacked(built, tmp_path_factory):
    """The folder in the source distribution."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built.sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root
