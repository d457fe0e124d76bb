"""A pytest plugin that puts ExmemStorage in the place of TorchRL's storages, for TorchRL's own tests."""

from typing import Any

from tests.integrations.peers.torchrl_extension import has_trees  # before TorchRL

# isort: split
import pytest
import torchrl.data
import torchrl.data.replay_buffers
import torchrl.data.replay_buffers.storages
from torchrl.data.replay_buffers.samplers import prioritized

from exmem.integrations.torchrl import ExmemStorage


class Substitute(ExmemStorage):
    """An ExmemStorage with the arguments of a LazyTensorStorage or a LazyMemmapStorage; a test of others is skipped."""

    def __init__(
        self, max_size: int, *, device: Any = "cpu", ndim: int = 1, scratch_dir: Any = None, **options: Any
    ) -> None:
        if ndim != 1:
            pytest.skip("an ExmemStorage has one dimension")
        if any(options.values()):
            pytest.skip(f"an ExmemStorage has no {sorted(options)}")
        super().__init__(max_size, device=device)

    @property
    def _storage(self) -> Any:  # tests look into it
        return self.get(slice(None)) if self.initialized else None


def _skip(*args: Any, **options: Any) -> None:
    pytest.skip("TorchRL's compiled part, with the trees of priorities, is of another torch")


if not has_trees():
    prioritized.PrioritizedSampler.__init__ = _skip

for module in (torchrl.data, torchrl.data.replay_buffers, torchrl.data.replay_buffers.storages):
    for name in ("LazyTensorStorage", "LazyMemmapStorage"):
        setattr(module, name, Substitute)
