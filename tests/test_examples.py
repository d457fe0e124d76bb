"""Each example runs by itself, prints what it promises and leaves nothing behind; those of the core need no torch."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.absent import NO_TORCH

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent.parent / "examples"
RUN = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
CORE = {
    "quickstart": [
        r"class 0: 40 of 40 stored, 0 evicted, [\d,]+ bytes",
        r"class 9: \d+ of 40 stored, [1-9]\d* evicted, [\d,]+ bytes",
        r"opened again: \d+ exemplars of 10 classes",
        r"patches \(8, \d, 16, 16, 3\) of which are no padding \[\d, \d, \d, \d, \d, \d, \d, \d\]",
        r" +image +[\d,]+",
    ],
    "own_codec": [
        r"\{'id': 'lossless'\}: [\d,]+ bytes an exemplar, error 0.00% of the signal",
        r"\{'id': 'mu_law', 'mu': 255\}: 4,\d+ bytes an exemplar, error 1.\d\d% of the signal",
    ],
    "object_store": [
        r"on S3: 40 exemplars, [\d,]+ of 170,000 bytes",
        r"a second writer is refused: .* is open for writing by process \d+ on .*",
        r"a reader holds its snapshot, of classes \[0, 1, 2, 3\]",
        r"when it follows, each class has its share: \{0: \d+, 1: \d+, .*, 7: \d+\}",
        r"mirror: [1-9]\d* objects fetched, which are new",
        r"the copy draws the same batch: True",
    ],
}
WITH_TORCH = {
    "audio": [
        r"class 4: \d+% of the frames kept, [1-9]\d* evicted",
        r"audio: values \(32, \d+, 64\), \d+ to \d+ tokens each",
        r"class 0: loudest near 219 Hz",
        r"class 4: loudest near 562 Hz",
    ],
    "own_loop": [
        r"phase 1: right of the digits of each phase: [6-9]\d\.\d%, 9\d\.\d%; \d+ exemplars, .* of 60,000 bytes"
    ],
    "own_recipe": [
        r".*half_jpeg.*: \d\d\.\d.*",
        r".*thumbnail.*: \d\d\.\d.*",
        r"\{'name': 'thumbnail', .*'fill': 'thumbnail', .*",
        r"whole images again: \(1, 3, 64, 64\), in \d+ bytes",
    ],
    "own_scorer": [
        r"ink: \d+ bytes an exemplar; the patches kept of a 0:",
        r" +\.\.#\.\.##\.",
        r"centre: .*",
        r"random: .*",
    ],
    "two_ranks": [r"phase 1: shares of \[50, 50\], 0 in both; .*", r"phase 3: shares of \[150, 150\], 0 in both; .*"],
}
BESIDE_OTHERS = {"avalanche_replay"}  # tests/integrations/peers


def run_example(name, tmp_path, *, first=""):
    """The lines that an example prints, run in a folder that is empty and stays so."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    caches = {name: str(tmp_path / "cache") for name in ("EXMEM_CACHE", "TORCHINDUCTOR_CACHE_DIR")}
    told = {"TMPDIR": str(temporary), "COLUMNS": "100", "PYTHONDONTWRITEBYTECODE": "1", **caches}
    command = [sys.executable, *(["-c", f"{first}\n{RUN}"] if first else []), str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(
        command, cwd=temporary, env=os.environ | told, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert not [*temporary.iterdir()]
    return done.stdout.splitlines()


def assert_promised(lines, promised):
    for promise in promised:
        assert any(re.fullmatch(promise, line) for line in lines), f"{promise} is not in\n" + "\n".join(lines)


@pytest.mark.parametrize("name", sorted(CORE))
def test_an_example_of_the_core_prints_what_it_promises_where_there_is_no_torch(name, tmp_path):
    assert_promised(run_example(name, tmp_path, first=NO_TORCH), CORE[name])


@pytest.mark.torch
@pytest.mark.parametrize("name", sorted(WITH_TORCH))
def test_an_example_prints_what_it_promises(name, tmp_path):
    assert_promised(run_example(name, tmp_path), WITH_TORCH[name])


def test_the_quickstart_tells_where_every_byte_went(tmp_path):
    text = "\n".join(run_example("quickstart", tmp_path))
    used, table = re.search(r"([\d,]+) of 64,000 bytes:\n(.*)", text, re.DOTALL).groups()
    parts = re.findall(r"[\d,]+$", table, re.MULTILINE)
    assert len(parts) > 3
    assert sum(int(part.replace(",", "")) for part in parts) == int(used.replace(",", ""))


def test_the_codec_is_found_by_other_processes_through_the_entry_point_that_its_example_shows(tmp_path):
    source = (EXAMPLES / "own_codec.py").read_text(encoding="utf-8")
    group, entry = re.search(r'^# +\[project\.entry-points\."(.+)"\]\n# +(.+)$', source, re.MULTILINE).groups()
    shutil.copy(EXAMPLES / "own_codec.py", tmp_path)
    (tmp_path / "own-1.0.dist-info").mkdir()  # what pip makes of it
    (tmp_path / "own-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (tmp_path / "own-1.0.dist-info" / "entry_points.txt").write_text(f"[{group}]\n{entry.replace(chr(34), '')}\n")
    create = (
        "from exmem import *\nimport numpy as np\n"
        "schema = Schema({'sound': TokenSpec(positions=2, shape=(4,), dtype='float32', codec='mu_law')})\n"
        "with ExemplarMemory.create('memory', schema=schema, max_bytes='20kB') as memory:\n"
        "    memory.add_batch({'sound': np.full((1, 2, 4), 0.5, np.float32)}, [3])\n"
    )
    read = (
        "from exmem import ExemplarMemory\nmemory = ExemplarMemory.open('memory')\n"
        "print(memory.read(memory.slots).tokens['sound'].values.mean().round(2))"
    )
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    for code, out in ((create, ""), (read, "0.5\n")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, out), done.stderr


def test_every_example_is_tried_and_listed_by_what_its_first_line_says():
    files = {path.stem: path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py")}
    assert {*CORE, *WITH_TORCH} | BESIDE_OTHERS == set(files)
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(\w+)\.py`\]\((\w+)\.py\) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    assert [name for name, *_ in rows] == [link for _, link, *_ in rows]
    says = {name: re.match(r'"""(.+?)"""\n', text)[1].replace("|", r"\|") for name, text in files.items()}
    assert {name: what for name, _, what, _ in rows} == says
    assert {name for name, *_, needs in rows if "torch" not in needs} == set(CORE), "the others bring it"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_hides_no_package(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 85
    assert path.stem not in sys.stdlib_module_names
