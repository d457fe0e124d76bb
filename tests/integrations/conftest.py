"""Memories of small images, for loops that are not exmem's."""

import pytest

from exmem.integrations.phases import PhaseReplay
from tests.integrations.learners import BOUND, raw_examples


@pytest.fixture
def memory(tmp_path):
    with BOUND.create_memory(tmp_path / "memory", max_bytes="100kB", durable=False) as memory:
        yield memory


@pytest.fixture
def after_one(memory):
    """A memory that holds the first phase."""
    PhaseReplay(memory, raw_examples([0, 1]), phase=0).add()
    return memory
