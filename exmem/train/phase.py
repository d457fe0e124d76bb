"""Training of one phase: new examples beside replayed exemplars."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from exmem.train.config import TrainConfig
from exmem.train.exemplars import Exemplars
from exmem.train.hidden import HiddenOf
from exmem.train.learner import Learner

__all__ = ["NewExamples", "train_phase"]


class NewExamples(NamedTuple):
    """The examples that a phase brings: rows (N,) of the data, the class of each row of the data, and hidden tokens.

    `stored` gives those of examples as they would be stored; it is needed when `stored_form` is above 0.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    whole: HiddenOf
    stored: HiddenOf | None


def train_phase(
    learner: Learner,
    config: TrainConfig,
    new: NewExamples,
    *,
    phase: int,
    teacher: Mapping[str, Tensor],
    held: Exemplars | None,
    backward: Callable[[Tensor], Any],
    report: Callable[[int], None],
) -> None:
    """Train on the examples of a phase and on as many replayed exemplars.

    The learner has outputs for the new classes already; the seed and the phase decide all randomness; the teacher is
    the learner before the phase, empty in the first; `report` is told how many new examples each step took.
    """
    loop, seed, method = config.loop, config.seed, config.method
    steps = -(-len(new.rows) // loop.batch)
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=loop.lr, weight_decay=loop.weight_decay)
    schedule = _schedule(optimizer, steps * loop.epochs, warmup=loop.warmup)
    share = 0.5 if held else 1.0  # of new examples in the loss
    for epoch in range(loop.epochs):
        order = np.random.default_rng([seed, phase, epoch]).permutation(new.rows)
        changed = np.random.default_rng([seed, phase, epoch, 1]).random(len(order)) < loop.stored_form
        replayed = held.draw(steps, number=phase * loop.epochs + epoch) if held else None
        for start in range(0, len(order), loop.batch):
            chosen, as_stored = order[start : start + loop.batch], changed[start : start + loop.batch]
            parts = []
            for hidden_of, rows in ((new.whole, chosen[~as_stored]), (new.stored, chosen[as_stored])):
                if hidden_of is not None and len(rows):
                    portion = share * len(rows) / len(chosen)
                    parts.append((hidden_of(rows), torch.from_numpy(new.labels[rows]), portion))
            optimizer.zero_grad()
            for hidden, labels, portion in parts:  # apart: dropped tokens then save work, not become padding
                backward(learner.loss(hidden, labels, method=method, teacher=teacher) * portion)
            if replayed is not None:
                hidden, labels, logits = next(replayed)
                stored = None if logits is None else logits[:, list(learner.classes)]
                loss = learner.loss(hidden, labels, method=method, teacher=teacher, replayed=True, stored=stored)
                backward(loss * (1 - share))
            if loop.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(trained, loop.clip_norm)
            optimizer.step()
            schedule.step()
            report(len(chosen))
    if method.aligned:
        learner.align()


def _schedule(optimizer: torch.optim.Optimizer, steps: int, *, warmup: float) -> LRScheduler:
    """Let the learning rate rise for a share of the steps, then fall to zero by a cosine."""
    rising = int(warmup * steps)
    falling = CosineAnnealingLR(optimizer, T_max=steps - rising)
    if not rising:
        return falling
    rise = LinearLR(optimizer, start_factor=1 / (rising + 1), total_iters=rising)
    return SequentialLR(optimizer, [rise, falling], milestones=[rising])
