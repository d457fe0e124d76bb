"""The documentation runs."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_code_of_the_readme_runs(tmp_path):
    assert len(BLOCKS) > 1
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert "torch.Size([1, 22, 16, 16, 3])" in done.stdout
