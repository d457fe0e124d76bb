"""Lightning: a callback that replays exemplars beside the batches of a phase, and stores the phase at its end."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader
from typing_extensions import override

from exmem.integrations.phases import PhaseReplay
from exmem.memory import ExemplarMemory

__all__ = ["ReplayCallback"]


class ReplayCallback(Callback):  # type: ignore[misc] # there need be no Lightning where types are checked
    """Replays exemplars beside the batches of one phase, and stores examples of the phase when `fit` ends.

    A `fit` that is interrupted stores nothing, and a phase that was stored is not stored again. Validation replays
    nothing. Of several processes, rank 0 stores.

    Parameters
    ----------
    memory : ExemplarMemory
        The memory, open for writing; empty before the first phase.
    examples : sequence of rows
        The phase's raw examples; see `PhaseReplay`.
    loader : DataLoader
        The one that `fit` is given: Lightning takes batches of it before a callback could reach it.
    phase : int
        Its number, from 0.
    **options : object
        More options of `PhaseReplay`: make, transform, replay, columns, ...
    """

    def __init__(
        self, memory: ExemplarMemory, examples: Any, loader: "DataLoader[Any]", *, phase: int, **options: Any
    ) -> None:
        self.replay, self._loader = PhaseReplay(memory, examples, phase=phase, **options), loader

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.replay.into(self._loader, share=(trainer.global_rank, trainer.world_size))

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.replay.out_of(self._loader)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.fast_dev_run:
            self.replay.add(rank=trainer.global_rank)
