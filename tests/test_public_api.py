"""What is public is listed and light; files stay short."""

import ast
import importlib
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import exmem
from exmem import errors

ROOT = Path(exmem.__file__).parent
MODULES = sorted(name for _, name, _ in pkgutil.walk_packages([str(ROOT)], "exmem.") if not name.endswith("__main__"))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_lists_what_is_public(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith("exmem.integrations.") or str(error.name).startswith("exmem"):
            raise
        pytest.skip(f"an adapter to {error.name}, which is not here")
    listed = list(module.__all__)
    assert len(listed) == len(set(listed))
    assert all(hasattr(module, attribute) for attribute in listed)


def test_the_top_level_lists_exactly_what_it_imports():
    assert exmem.__all__ == sorted(exmem.__all__)
    imported = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse((ROOT / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("exmem")
        for alias in node.names
    }
    assert imported == set(exmem.__all__)
    assert set(dir(exmem)) >= imported
    assert not hasattr(exmem, "nonsense")


def test_every_error_is_under_one_root_and_survives_pickling():
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, UserWarning if name.endswith("Warning") else errors.ExmemError)
        copy = pickle.loads(pickle.dumps(kind("what happened")))
        assert (type(copy), str(copy)) == (kind, "what happened")


def test_importing_exmem_imports_nothing_heavy():
    script = (
        "import sys, exmem; print([m for m in ('torch', 'transformers', 'zarr', 'datasets', 'matplotlib', 'peft',"
        " 'lightning') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_reading_and_writing_a_local_memory_needs_no_zarr_and_no_torch(tmp_path):
    script = (
        "import sys, numpy as np; from exmem import *;"
        "schema = Schema({'x': TokenSpec(positions=3, shape=(2000,), dtype='float32')});"
        f"memory = ExemplarMemory.create({str(tmp_path)!r}, schema=schema, max_bytes='1MB');"
        "memory.add([Exemplar({'x': TokenSet([1], np.zeros((1, 2000), 'float32'))}, label=0)]);"
        "memory.commit(); memory.read([0]); memory.close();"
        "print('zarr' in sys.modules, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False False"


def test_no_finaliser_can_swallow_an_interrupt():
    """What an interrupt raises in a `__del__` is printed and forgotten."""
    assert [path for path in Path(exmem.__file__).parent.rglob("*.py") if "def __del__" in path.read_text()] == []


def test_no_file_is_longer_than_400_lines():
    long = {str(path): n for path in ROOT.rglob("*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert not long
