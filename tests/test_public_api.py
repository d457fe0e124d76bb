"""What is public is listed, documented and light; files stay short."""

import ast
import importlib
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import exmem
from exmem import errors

ROOT = Path(exmem.__file__).parent
MODULES = sorted(name for _, name, _ in pkgutil.walk_packages([str(ROOT)], "exmem.") if not name.endswith("__main__"))


def public_callables():
    for name in MODULES:
        module = importlib.import_module(name)
        for attribute in getattr(module, "__all__", []):
            found = getattr(module, attribute)
            if getattr(found, "__module__", None) != name:
                continue
            if inspect.isclass(found):
                yield f"{name}.{attribute}", found
                for method_name, method in vars(found).items():
                    if inspect.isfunction(method) and not method_name.startswith("_"):
                        yield f"{name}.{attribute}.{method_name}", method
            elif inspect.isfunction(found):
                yield f"{name}.{attribute}", found


@pytest.mark.parametrize("name", MODULES)
def test_every_module_lists_what_is_public(name):
    module = importlib.import_module(name)
    listed = list(module.__all__)
    assert len(listed) == len(set(listed))
    assert all(hasattr(module, attribute) for attribute in listed)


def test_the_top_level_lists_exactly_what_it_imports():
    assert exmem.__all__ == sorted(exmem.__all__)
    imported = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse((ROOT / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == set(exmem.__all__)


def documented_parameters(text: str) -> list[str]:
    section = re.search(r"\n\s*Parameters\n\s*-+\n(.*?)(?=\n\s*(?:\w[\w ]*)\n\s*-{3,}\n|\Z)", text, re.DOTALL)
    if section is None:
        return []
    indent = min(len(line) - len(line.lstrip()) for line in section[1].splitlines() if line.strip())
    heads = [
        line.strip() for line in section[1].splitlines() if line.strip() and len(line) - len(line.lstrip()) == indent
    ]
    return [name.strip().lstrip("*") for head in heads for name in head.split(" : ")[0].split(",")]


def test_every_public_docstring_documents_exactly_the_parameters_of_its_signature():
    wrong, checked = [], 0
    for name, found in public_callables():
        text = inspect.getdoc(found) or ""
        documented = documented_parameters("\n" + text)
        if not documented:
            continue
        parameters = inspect.signature(found).parameters
        actual = [p for p in parameters if p not in {"self", "cls"}]
        checked += 1
        if documented != actual:
            wrong.append(f"{name}: documented {documented}, signature {actual}")
    assert checked > 60
    assert not wrong, "\n".join(wrong)


def test_every_error_is_under_one_root_and_survives_pickling():
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, UserWarning if name.endswith("Warning") else errors.ExmemError)
        copy = pickle.loads(pickle.dumps(kind("what happened")))
        assert (type(copy), str(copy)) == (kind, "what happened")


def test_importing_exmem_imports_nothing_heavy():
    script = (
        "import sys, exmem; print([m for m in ('torch', 'transformers', 'zarr', 'datasets', 'matplotlib', 'peft')"
        " if m in sys.modules])"
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


def test_no_file_is_longer_than_400_lines():
    long = {str(path): n for path in ROOT.rglob("*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert not long
