"""The wheel with the oldest dependencies that it allows, and on other Pythons with the newest."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.packaging.building import ROOT, build
from tests.packaging.environments import Environment, lower_bounds, pinned

pytestmark = [pytest.mark.install, pytest.mark.slow, pytest.mark.timeout(3600)]

SAMPLE = ["tests/tokens", "tests/codecs", "tests/selection", "tests/test_registry.py", "tests/test_api_record.py"]
SAMPLE += [f"tests/memory/test_{part}.py" for part in ("export", "memory", "reservoir", "sampling")]
SAMPLE += [f"tests/store/test_{part}.py" for part in ("format", "hostile", "writer")]
SAMPLE += [f"tests/cli/test_{part}.py" for part in ("cli", "data_command", "output")]


@pytest.fixture
def run_tests(tests_alone, in_full):
    """Run what needs no torch of the tests, or a sample of it, with what an environment has installed."""

    def run(environment):
        parts = ["tests"] if in_full else SAMPLE
        environment.run("-m", "pytest", "-m", "not torch and not kills", *parts, cwd=tests_alone)

    return run


def interpreter(version):
    """Find a Python of a version on the path or in pyenv, where there is one."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    for place in [shutil.which(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python")]:
        if place is None:
            continue
        ask = [place, "-c", "import sys, ensurepip; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return place
    return pytest.skip(f"there is no Python {version} here")


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_oldest_dependencies_that_are_allowed_are_enough(built, run_tests, tmp_path):
    environment = Environment(tmp_path / "environment")
    environment.install(f"{built.wheel}[test]", constraints=lower_bounds())
    run_tests(environment)


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_another_python_with_the_newest_dependencies_is_enough(built, run_tests, version, tmp_path):
    environment = Environment(tmp_path / "environment", python=interpreter(version))
    environment.install(str(built.wheel))
    environment.run(ROOT / "tests" / "packaging" / "embed.py", "core", cwd=tmp_path)
    environment.install(f"{built.wheel}[test]")
    run_tests(environment)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_python_that_is_promised_builds_the_same_wheel(built, unpacked, version, tmp_path):
    environment = Environment(tmp_path / "environment", python=interpreter(version))
    environment.install(pinned("build"), pinned("hatchling"))
    wheel, _ = build(unpacked, tmp_path / "out", python=environment.python)
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(built.wheel) as other:
        assert {name: one.read(name) for name in one.namelist()} == {
            name: other.read(name) for name in other.namelist()
        }
