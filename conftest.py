"""Options, marks and profiles of tests, doctests and benchmarks alike; `tests/README.md` explains."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # The cores are taken by the workers; threads of BLAS and torch, which count them on import, would only get in line.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib.util
import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent
ADAPTERS = {
    "avalanche": ("bench/buffers/avalanche.py", "exmem/integrations/avalanche"),
    "lightning": ("exmem/integrations/lightning.py",),
    "torchrl": ("bench/buffers/torchrl.py", "exmem/integrations/torchrl"),
}
NEEDS_TORCH = (
    "bench",
    "exmem/backbones",
    "exmem/cli/advise.py",
    "exmem/cli/demo",
    "exmem/cli/train.py",
    "exmem/integrations",
    "exmem/masking/scorers",
    "exmem/recipes",
    "exmem/replay",
    "exmem/report",
    "exmem/tokens/tensors.py",
    "exmem/train",
    "tests/backbones",
    "tests/cli/captioners.py",
    "tests/cli/test_advise_command.py",
    "tests/cli/test_data_forms.py",
    "tests/cli/test_json.py",
    "tests/cli/test_caption_command.py",
    "tests/cli/test_predict_command.py",
    "tests/cli/test_stickers.py",
    "tests/cli/test_tradeoff_command.py",
    "tests/cli/test_train_command.py",
    "tests/cli/test_view_commands.py",
    "tests/integrations",
    "tests/machines",
    "tests/masking/scorers",
    "tests/packaging/small_data.py",
    "tests/recipes",
    "tests/replay",
    "tests/report",
    "tests/docs",
    "tests/test_docstrings.py",
    "tests/test_public_api.py",
    "tests/tiny.py",
    "tests/tokens/test_tensors.py",
    "tests/train",
)

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=20, derandomize=True, **COMMON)
settings.register_profile("full", max_examples=40, derandomize=True, **COMMON)
settings.register_profile("long", max_examples=2000, **COMMON)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="every case of every test, not a stated part of them")
    parser.addoption("--kills", type=int, help="how often a writing process is killed (10; with --full 30)")
    parser.addoption("--sequences", type=int, help="random sequences of operations on a memory (16; with --full 80)")
    parser.addoption("--readers", type=int, default=2, help="processes that read beside a writer")
    parser.addoption("--seconds", type=float, default=2, help="how long they read")
    parser.addoption("--exhaustive", action="store_true", help="fail at every operation, not only at some")
    parser.addoption("--proof", action="store_true", help="also the long proofs: minutes each")
    parser.addoption("--install", action="store_true", help="also what is installed from a package index")


def pytest_configure(config: pytest.Config) -> None:
    full = config.getoption("--full")
    for name, usual, most in (("kills", 10, 30), ("sequences", 16, 80)):
        if getattr(config.option, name) is None:
            setattr(config.option, name, most if full else usual)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "full" if full else "default"))


def needs_torch(path: Path) -> bool:
    """Whether a file or folder is, or lies below, what needs torch."""
    return any(path.is_relative_to(ROOT / name) for name in NEEDS_TORCH)


def lacks_its_library(path: Path) -> bool:
    """Say whether a file belongs to an adapter whose library is not installed."""
    return any(
        importlib.util.find_spec(library) is None and any(path.is_relative_to(ROOT / name) for name in names)
        for library, names in ADAPTERS.items()
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # Importing these to deselect their tests would take what is not there.
    without_torch = "not torch" in config.option.markexpr and needs_torch(collection_path)
    return True if without_torch or lacks_its_library(collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if needs_torch(item.path):
            item.add_marker("torch")
    dropped = [item for item in items if not _wanted(item, config)]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in set(dropped)]


def _wanted(item: pytest.Item, config: pytest.Config) -> bool:
    asked_for = [name for name in ("proof", "install") if item.get_closest_marker(name) is not None]
    if asked_for:
        return all(config.getoption(f"--{name}") for name in asked_for)
    part = item.get_closest_marker("one_in")
    if part is None or config.getoption("--full") or f"::{item.name}" in "".join(config.args):  # named one by one
        return True
    return _diagonal(item) % part.args[0] == 0


def _diagonal(item: pytest.Function) -> int:
    """Number the cases of a cross so that one in n of them is n diagonals apart, and begins elsewhere for each test.

    Of two parameters crossed, each value of one thus meets one in n of the other, and what one test of a file leaves
    out another one may try.
    """
    indices = dict(item.callspec.indices)
    for mark in item.iter_markers("parametrize"):
        names = mark.args[0] if isinstance(mark.args[0], list | tuple) else mark.args[0].split(",")
        for name in names[1:]:  # names of one list go together
            indices.pop(name.strip())
    return sum(indices.values()) + zlib.crc32(item.originalname.encode())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say plainly which tests had no browser; `-q` shows no more than a letter of each."""
    skipped = [str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])]
    reasons = Counter(reason.partition("browser: ")[2] for reason in skipped if "browser: " in reason)
    for reason, count in reasons.items():
        terminalreporter.write_line(f"LEFT OUT: {count} tests of the page in a browser; {reason}")


@pytest.fixture(scope="session")
def in_full(request: pytest.FixtureRequest) -> bool:
    """Whether `--full` was given; a test may do less of the same otherwise."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def one_in(request: pytest.FixtureRequest, in_full: bool) -> Callable[[int, Iterable], Iterator]:
    """A function that takes one in n of some things, first ones that differ from case to case; with `--full` all."""

    def take(n: int, things: Iterable) -> Iterator:
        start = zlib.crc32(request.node.name.encode()) % n
        return iter(things) if in_full else itertools.islice(things, start, None, n)

    return take
