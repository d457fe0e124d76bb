"""What is built once and looked at by several tests."""

import shutil
import tarfile

import pytest

from tests.packaging.building import ROOT, build

collect_ignore = ["sample"]  # the code of a user, which is checked beside an installed exmem


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


@pytest.fixture(scope="session")
def tests_alone(unpacked, tmp_path_factory):
    """The released sources without the package, so that what is imported is what was installed."""
    folder = shutil.copytree(unpacked, tmp_path_factory.mktemp("sources") / "tests-alone")
    shutil.rmtree(folder / "exmem")
    return folder
