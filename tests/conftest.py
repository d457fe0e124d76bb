"""Options and profiles of the tests, and the tiny models that several of them load."""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("long", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", default="30", help="how often a writing process is killed")
    parser.addoption("--readers", default="2", help="processes that read beside a writer")
    parser.addoption("--seconds", default="2", help="how long they read")
    parser.addoption("--exhaustive", action="store_true", help="fail at every operation, not only at some")
    parser.addoption("--proof", action="store_true", help="also the long proofs: minutes each")
    parser.addoption("--sequences", default="80", help="random sequences of operations on a memory")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--proof"):
        long = {"test_exhaustive.py", "test_proof.py"}
        config.hook.pytest_deselected(items=[item for item in items if item.path.name in long])
        items[:] = [item for item in items if item.path.name not in long]


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """The tiny models of each family of backbones, written once."""
    from exmem.backbones import BACKBONES  # most tests need no torch
    from tests.backbones.models import write

    folder = tmp_path_factory.mktemp("models")
    return {kind: write(kind, folder / kind) for kind in sorted(BACKBONES)}
