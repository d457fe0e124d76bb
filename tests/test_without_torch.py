"""What is not marked `torch` is collected where torch and its company are not installed."""

import subprocess
import sys

SCRIPT = """
import sys
import pytest

class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "peft", "datasets", "accelerate", "matplotlib"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent)
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-m", "not torch"]))
"""


def test_what_is_not_marked_torch_can_be_collected_without_it(request):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=request.config.rootpath, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"what needs torch is listed in conftest.py:\n{done.stdout}"
    assert "tests/store/test_crash.py" in done.stdout
    assert "exmem/tokens/spec.py" in done.stdout, "doctests are part of it"
    assert "tests/backbones" not in done.stdout
