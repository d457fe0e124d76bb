"""What is not marked `torch` is collected where torch and its company are not installed."""

import subprocess
import sys

from tests.absent import NO_TORCH

SCRIPT = f"""{NO_TORCH}
import pytest

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
