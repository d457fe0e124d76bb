"""What is released is the same whoever builds it, and whole."""

import configparser
import datetime
import email
import os
import shutil
import tarfile
import tomllib
import zipfile
from importlib.metadata import EntryPoint
from pathlib import PurePosixPath

import pytest

import exmem
from tests.packaging.building import EPOCH, ROOT, build

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LITTER = {"__pycache__", ".git", ".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", "dist", "runs"}


def files_of(folder):
    """Names of the files of a folder of sources, without what running it leaves there."""
    names = (path.relative_to(ROOT).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in names if not LITTER & set(PurePosixPath(name).parts)}


def names_in(sdist):
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2]: archive.getmember(name) for name in archive.getnames()}


def test_another_folder_time_and_umask_give_the_same_bytes(built, unpacked, tmp_path):
    elsewhere = shutil.copytree(unpacked, tmp_path / "elsewhere")
    (elsewhere / "PKG-INFO").unlink()  # the build made it
    for number, path in enumerate(sorted(elsewhere.rglob("*"))):
        path.chmod(path.stat().st_mode & 0o700)
        os.utime(path, (EPOCH + number, EPOCH + 3600 * number))
    again = build(elsewhere, tmp_path / "again", umask=0o077)
    assert again.sdist.read_bytes() == built.sdist.read_bytes(), "the sources in it are not all that it is built of"
    assert again.wheel.read_bytes() == built.wheel.read_bytes()


def test_all_files_in_them_have_the_time_that_was_asked_for(built):
    then = datetime.datetime.fromtimestamp(EPOCH, datetime.UTC)
    with zipfile.ZipFile(built.wheel) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {then.timetuple()[:6]}
    assert {member.mtime for member in names_in(built.sdist).values()} == {EPOCH}


def test_the_wheel_holds_the_package_and_what_describes_it_and_no_more(built):
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
    described = {name for name in names if name.startswith(f"exmem-{exmem.__version__}.dist-info/")}
    assert names - described == files_of(ROOT / "exmem")
    assert {"exmem/py.typed", "exmem/store/FORMAT.md", "exmem/store/PLACES.md"} < names
    assert any(name.startswith("exmem/train/configurations/") for name in names)
    about = ["METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"]
    assert sorted(name.partition("/")[2] for name in described) == about


def test_the_sources_hold_what_building_and_testing_need_and_neither_caches_nor_results(built):
    names = names_in(built.sdist)
    for folder in ("exmem", "tests", "examples"):
        assert files_of(ROOT / folder) <= set(names), folder
    assert {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "conftest.py", "requirements-dev.txt"} <= set(names)
    assert [name for name in names if LITTER & set(PurePosixPath(name).parts)] == []
    assert [name for name in names if name.startswith("bench/results/") and not name.endswith(".md")] == []
    assert built.sdist.stat().st_size < 2_000_000


def test_the_metadata_say_what_the_project_says(built):
    with zipfile.ZipFile(built.wheel) as archive:
        metadata = email.message_from_string(archive.read(f"exmem-{exmem.__version__}.dist-info/METADATA").decode())
    assert (metadata["Name"], metadata["Version"]) == ("exmem", exmem.__version__)
    assert (metadata["Requires-Python"], metadata["License-Expression"]) == (">=3.11", "Apache-2.0")
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    assert metadata.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_entry_point_leads_to_the_codec_or_command_of_its_name(built):
    parser = configparser.ConfigParser(delimiters="=")
    parser.optionxform = str
    with zipfile.ZipFile(built.wheel) as archive:
        parser.read_string(archive.read(f"exmem-{exmem.__version__}.dist-info/entry_points.txt").decode())
    found = {group: dict(parser[group]) for group in parser.sections()}
    assert found == {"console_scripts": PROJECT["scripts"], **PROJECT["entry-points"]}
    for group, entries in found.items():
        for name, value in entries.items():
            part = EntryPoint(name, value, group).load()
            assert callable(part)
            assert group != "numcodecs.codecs" or part.codec_id == name
