"""Type checkers, at their strictest, see the installed package as a user's code does."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.packaging.building import ROOT
from tests.packaging.environments import Environment

pytestmark = [pytest.mark.install, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def python(built, tmp_path_factory):
    """A Python that has the wheel, and all else from the one that runs this."""
    folder = tmp_path_factory.mktemp("types") / "environment"
    environment = Environment(folder, on=[Path(sysconfig.get_path("purelib"))])
    words = ["install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", built.wheel]
    environment.run("-m", "pip", *words, cwd=folder)
    return environment.python


@pytest.fixture
def user(tmp_path):
    """A folder with a user's package, far from these sources."""
    shutil.copytree(ROOT / "tests" / "packaging" / "sample", tmp_path / "sample")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"include": ["sample"], "typeCheckingMode": "strict"}))
    return tmp_path


def told_by(module, *words, cwd):
    done = subprocess.run([sys.executable, "-m", module, *words], cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_mypy_finds_nothing_wrong_in_code_that_uses_all_of_it(python, user):
    code, told = told_by("mypy", "--strict", "--python-executable", python, "--package", "sample", cwd=user)
    assert code == 0, told


def test_pyright_finds_nothing_unknown_in_code_that_uses_all_of_it(python, user):
    code, told = told_by("pyright", "--pythonpath", python, cwd=user)
    assert code == 0, told


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_type_checker_notices_what_is_wrong(checker, python, user):
    (user / "sample" / "wrong.py").write_text("import exmem\n\nexmem.TokenSet(positions=1.5, shape='x')\n")
    words = {
        "mypy": ["--strict", "--python-executable", python, "--package", "sample"],
        "pyright": ["--pythonpath", python],
    }
    code, told = told_by(checker, *words[checker], cwd=user)
    assert code == 1
    assert "wrong.py" in told
