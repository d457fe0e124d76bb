"""Training of one phase: new examples beside replayed exemplars."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exmem.train.config import TrainConfig
from exmem.train.features import Streams
from exmem.train.learner import Learner
from exmem.train.replaying import Exemplars

__all__ = ["NewExamples", "train_phase"]


class NewExamples(NamedTuple):
    """The examples that a phase brings.

    Parameters
    ----------
    rows : ndarray, shape (N,), int64
        Their rows in the data.
    labels : ndarray, int64
        Class of each row of the data.
    whole : callable
        Their streams as they are.
    stored : callable, optional
        Their streams as they would be stored; needed when `new_stored_form` is above 0.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    whole: Streams
    stored: Streams | None


def train_phase(
    learner: Learner,
    config: TrainConfig,
    new: NewExamples,
    *,
    phase: int,
    teacher: Mapping[str, Tensor],
    held: Exemplars | None,
    backward: Callable[[Tensor], Any],
    report: Callable[[str, int], None],
) -> None:
    """Train on the examples of a phase and on as many replayed exemplars.

    Parameters
    ----------
    learner : Learner
        What is trained; it already has outputs for the new classes.
    config : TrainConfig
        The run.
    new : NewExamples
        Examples of the phase.
    phase : int
        Phase from 0; with the seed it decides all randomness.
    teacher : mapping of str to Tensor
        The learner before the phase; empty in the first.
    held : Exemplars or None
        What is replayed; None when there is nothing.
    backward : callable
        Runs the backward pass of a loss.
    report : callable
        Told after each step what is being done and how many examples it took.
    """
    steps = -(-len(new.rows) // config.batch)
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps * config.epochs)
    share = 0.5 if held else 1.0  # of new examples in the loss
    for epoch in range(config.epochs):
        order = np.random.default_rng([config.seed, phase, epoch]).permutation(new.rows)
        changed = np.random.default_rng([config.seed, phase, epoch, 1]).random(len(order)) < config.new_stored_form
        replayed = held.draw(steps, seed=config.seed, epoch=phase * config.epochs + epoch) if held else None
        for start in range(0, len(order), config.batch):
            chosen, as_stored = order[start : start + config.batch], changed[start : start + config.batch]
            parts = []
            for streams, rows in ((new.whole, chosen[~as_stored]), (new.stored, chosen[as_stored])):
                if streams is not None and len(rows):
                    parts.append((streams(rows), torch.from_numpy(new.labels[rows]), share * len(rows) / len(chosen)))
            if replayed is not None:
                parts.append((*next(replayed), 1 - share))
            optimizer.zero_grad()
            for stream, labels, portion in parts:  # apart: dropped tokens then save work, not become padding
                loss = learner.loss(
                    stream, labels, teacher=teacher, weight=config.distill_weight, temperature=config.temperature
                )
                backward(loss * portion)
            optimizer.step()
            schedule.step()
            report(f"epoch {epoch + 1}/{config.epochs}", sum(len(labels) for _, labels, _ in parts))
