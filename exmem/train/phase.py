"""Training of one phase: new examples beside replayed exemplars."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from exmem.backbones.blocks import running_blocks
from exmem.train.config import TrainConfig
from exmem.train.exemplars import Exemplars, Replayed
from exmem.train.hidden import HiddenOf, features_of
from exmem.train.learner import Learner
from exmem.train.ranks import Ranks

__all__ = ["NewExamples", "train_phase"]


class NewExamples(NamedTuple):
    """The examples that a phase brings: rows (N,) of the data, the class of each row of the data, and hidden tokens.

    `stored` gives those of examples as they would be stored; it is needed when `stored_form` is above 0.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    whole: HiddenOf
    stored: HiddenOf | None


class _HeldBack(NamedTuple):
    """What a phase is not trained on, by which it is corrected: rows of the data, and slots."""

    rows: NDArray[np.int64]
    slots: NDArray[np.int64]

    @classmethod
    def of(cls, new: NewExamples, held: Exemplars, share: float, rng: np.random.Generator) -> "_HeldBack":
        """Choose a share of each class of exemplars, and as many examples of each new one, at most half of them."""
        slots = held.held_back(share, rng)
        classes = len(np.unique(held.labels[np.isin(held.slots, slots)]))
        most = round(len(slots) / max(1, classes))
        labels = new.labels[new.rows]
        groups = [new.rows[labels == label] for label in np.unique(labels)]
        rows = np.concatenate([rng.permutation(group)[: min(most, len(group) // 2)] for group in groups])
        return cls(np.sort(rows), slots if len(rows) else slots[:0])  # one side alone corrects nothing


def train_phase(
    learner: Learner,
    config: TrainConfig,
    new: NewExamples,
    *,
    phase: int,
    teacher: Mapping[str, Tensor],
    held: Exemplars | None,
    ranks: Ranks,
    report: Callable[[int], None],
) -> list[float]:
    """Train on the examples of a phase and on as many replayed exemplars; return the mean loss of each epoch.

    The learner has outputs for the new classes already; the seed and the phase decide all randomness; the teacher is
    the learner before the phase, empty in the first; `report` is told how many new examples each step took. Each
    process computes its share of a step, and all make the same step.
    """
    loop, seed, method = config.loop, config.seed, config.method
    back = _HeldBack(new.rows[:0], new.rows[:0])
    if method.corrected and held is not None:
        back = _HeldBack.of(new, held, method.corrected, np.random.default_rng([seed, phase, 0, 2]))
    learnt = new.rows[~np.isin(new.rows, back.rows)]
    steps = -(-len(learnt) // loop.batch)
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=loop.lr, weight_decay=loop.weight_decay)
    schedule = _schedule(optimizer, steps * loop.epochs, warmup=loop.warmup)
    mean = [parameter.detach().clone() for parameter in trained] if loop.ema else []
    losses = []
    for epoch in range(loop.epochs):
        order = np.random.default_rng([seed, phase, epoch]).permutation(learnt)
        changed = np.random.default_rng([seed, phase, epoch, 1]).random(len(order)) < loop.stored_form
        replayed = held.draw(steps, number=phase * loop.epochs + epoch, but=back.slots) if held else None
        total = torch.zeros((), device=ranks.device)
        for start in range(0, len(order), loop.batch):
            batch = slice(start, start + loop.batch)
            optimizer.zero_grad()
            loss = torch.zeros((), device=ranks.device)
            with running_blocks(dtype=loop.dtype, compiled=loop.compile):
                for part in _losses(learner, config, new, order[batch], changed[batch], replayed, teacher, ranks):
                    part.backward()  # type: ignore[no-untyped-call]
                    loss += part.detach()
            (loss,) = ranks.add_up(trained, loss)
            if loop.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(trained, loop.clip_norm)
            optimizer.step()
            schedule.step()
            _follow(mean, trained, 1 - loop.ema)
            total += loss * len(order[batch])
            report(len(order[batch]))
        losses.append(round(float(total) / len(order), 6))
    with torch.no_grad():
        for parameter, value in zip(trained, mean, strict=False):
            parameter.copy_(value)
    if method.aligned:
        learner.align()
    if held is not None and len(back.rows):
        labels = np.concatenate([new.labels[back.rows], held.labels[np.isin(held.slots, back.slots)]])
        parts = [features_of(learner, new.whole, back.rows, ranks=ranks), held.features(learner, back.slots)]
        learner.correct(torch.cat(parts), torch.from_numpy(labels))
    report(loop.epochs * len(back.rows))
    return losses


def _losses(
    learner: Learner,
    config: TrainConfig,
    new: NewExamples,
    rows: NDArray[np.int64],
    as_stored: NDArray[np.bool_],
    replayed: Iterator[Replayed] | None,
    teacher: Mapping[str, Tensor],
    ranks: Ranks,
) -> Iterator[Tensor]:
    """Compute what this process has of the loss of a step, part by part: they add up to it over all processes."""
    loop, method = config.loop, config.method
    share = 1.0 if replayed is None else 0.5  # of new examples in the loss
    # Whole and stored ones apart: dropped tokens then save work, not become padding.
    for hidden_of, chosen in ((new.whole, rows[~as_stored]), (new.stored, rows[as_stored])):
        for piece in ranks.pieces(chosen, loop.accumulation):
            assert hidden_of is not None  # without a stored form no example is shown in it
            loss = learner.loss(hidden_of(piece), torch.from_numpy(new.labels[piece]), method=method, teacher=teacher)
            yield loss * (share * len(piece) / len(rows))
    if replayed is None:
        return
    drawn = next(replayed)
    if loop.candidates > 1:
        drawn = _hardest(learner, drawn, loop.replay_batch, ranks)
    for piece in ranks.pieces(np.arange(len(drawn.labels)), loop.accumulation):
        part = drawn.select(torch.from_numpy(piece))
        stored = None if part.logits is None else part.logits[:, list(learner.classes)]
        loss = learner.loss(part.hidden, part.labels, method=method, teacher=teacher, replayed=True, stored=stored)
        yield loss * ((1 - share) * len(piece) / len(drawn.labels))


def _hardest(learner: Learner, drawn: Replayed, number: int, ranks: Ranks) -> Replayed:
    """Take those with the highest loss, ties in the order in which they were drawn."""

    def losses(rows: NDArray[np.int64]) -> Tensor:
        part = drawn.select(torch.from_numpy(rows))
        return learner.row_losses(part.hidden, part.labels).cpu()

    every = torch.cat(ranks.over(np.arange(len(drawn.labels)), -(-len(drawn.labels) // ranks.count), losses))
    return drawn.select(every.argsort(descending=True, stable=True)[:number])


@torch.no_grad()
def _follow(mean: list[Tensor], trained: list[nn.Parameter], weight: float) -> None:
    for value, parameter in zip(mean, trained, strict=False):
        value.lerp_(parameter, weight)


def _schedule(optimizer: torch.optim.Optimizer, steps: int, *, warmup: float) -> LRScheduler:
    """Let the learning rate rise for a share of the steps, then fall to zero by a cosine."""
    rising = int(warmup * steps)
    falling = CosineAnnealingLR(optimizer, T_max=steps - rising)
    if not rising:
        return falling
    rise = LinearLR(optimizer, start_factor=1 / (rising + 1), total_iters=rising)
    return SequentialLR(optimizer, [rise, falling], milestones=[rising])
