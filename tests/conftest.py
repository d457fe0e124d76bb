"""The tiny models that several tests load, and what keeps one test's parts from the next."""

import sys

import pytest

from exmem.registry import Registry


@pytest.fixture(autouse=True)
def _no_part_outlives_its_test():
    """What a test adds to a registry goes with it: others ask for every name."""
    add, added = Registry.add, []

    def noted(registry, name, part):
        add(registry, name, part)
        added.append((registry, name))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "add", noted)
        yield
    for registry, name in added:
        registry._parts.pop(name, None)
        registry._options.pop(name, None)
    if added and "exmem.report.tradeoff.own" in sys.modules:
        sys.modules["exmem.report.tradeoff.own"]._added.clear()


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """The tiny models of each family of backbones, written once by each process that runs tests."""
    from exmem.backbones import BACKBONES  # most tests need no torch
    from tests.backbones.models import write

    folder = tmp_path_factory.mktemp("models")
    return {kind: write(kind, folder / kind) for kind in sorted(BACKBONES)}
