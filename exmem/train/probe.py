"""A frozen probe: what recipes are worth at a budget, before anything is trained.

One pass of the trunk over a sample; then each recipe makes exemplars of it, a memory of each budget says which of them
fit, and a classifier fitted on nothing but these is tested on examples that were held out. Nothing is tuned.
"""

import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from exmem.backbones import Backbone, Hidden
from exmem.errors import BudgetError, BudgetTooSmallError, ExemplarTooLargeError
from exmem.memory import EncodedExemplars, ExemplarMemory
from exmem.recipes import BoundRecipe, Recipe
from exmem.registry import Part
from exmem.replay import Pipeline
from exmem.tokens import Exemplar, Schema
from exmem.tokens.tensors import TensorBatch
from exmem.train.data import ImageText
from exmem.train.hidden import Advance, HiddenOf, KeptHidden, embedded, features_of, scored, tokens_of
from exmem.train.learner import Learner
from exmem.train.methods import HEADS, Head, Labelled
from exmem.train.storing import rank_examples

__all__ = ["Measured", "Probe", "sample_rows"]

_ROWS = 64  # of a replay step, whose time is told
_FOLDS = 3
_HELD_OUT = 0.25  # of the sample, for testing
_ROOM = 2**40  # bytes, for the memory that holds the whole sample


class Measured(NamedTuple):
    """What a recipe is worth at a budget.

    `exemplars` is how many fit (of as many classes as the data has), `exemplar_bytes` what each takes, `accuracies`
    those of each fold, 0..1, and `step_ms` how long a replay step of 64 takes from the memory to features. Where not
    one exemplar fits there are no accuracies.
    """

    recipe: Recipe
    max_bytes: int
    exemplars: int
    exemplar_bytes: float
    accuracies: tuple[float, ...]
    step_ms: float

    @property
    def accuracy(self) -> float:
        """Mean of the folds, 0 where nothing fits."""
        return float(np.mean(self.accuracies)) if self.accuracies else 0.0


class _Stored(NamedTuple):
    """The sample as a memory gives it back."""

    schema: Schema
    encoded: EncodedExemplars
    features: NDArray[np.float32]
    step_ms: float


class Probe:
    """A frozen backbone, a sample of labelled examples, and what the trunk makes of it.

    Adapters that change nothing are put into the backbone. `rows` (N,) rise; `classes` are those that a memory shares
    its bytes among, those of the sample when left out; `advance` is told how many examples have passed the trunk.
    """

    def __init__(
        self,
        backbone: Backbone,
        data: ImageText,
        rows: NDArray[np.int64],
        *,
        classes: int | None = None,
        seed: int = 0,
        advance: Advance,
    ) -> None:
        self._data, self._rows, self._seed = data, rows, seed
        self._labels = data.labels[rows]
        self._share = len(np.unique(self._labels)) / classes if classes else 1.0
        self._learner = Learner(backbone, rank=1, alpha=1)
        self._backbone, self._tokens = backbone, tokens_of(backbone, data)
        self._states = embedded(backbone, self._tokens, rows, advance)
        self._hidden = self._of_rows(self._states)
        self._features = features_of(self._learner, self._hidden, rows).numpy()
        ranks = rank_examples(self._features, self._labels, selection=Part("herding"), seed=[seed], values=None)
        self._priorities = -ranks.astype(np.float64)

    def measure(self, recipe: Recipe, budgets: Sequence[int], advance: Advance) -> list[Measured]:
        """Measure a recipe at each budget in bytes; `advance` is told how many exemplars were made.

        SchemaError if the backbone cannot make or replay such exemplars.
        """
        bound = BoundRecipe(recipe, self._backbone, seed=self._seed)
        scores, tested = None, self._features
        if recipe.level == "hidden":
            scores = scored(bound.masking, self._tokens, self._hidden, self._rows, lambda _: None)
            pruned = self._of_rows(bound.pruned(self._states, scores))
            tested = features_of(self._learner, pruned, self._rows).numpy()
        stored = self._stored(bound, self._made(bound, scores, advance))
        return [self._at(recipe, stored, tested, budget) for budget in budgets]

    def _of_rows(self, hidden: Hidden) -> HiddenOf:
        return KeptHidden(hidden, self._backbone.pixel_mean.device, self._rows)

    def _made(self, bound: BoundRecipe, scores: NDArray[np.float32] | None, advance: Advance) -> list[Exemplar]:
        made: list[Exemplar] = []
        for start in range(0, len(self._rows), _ROWS):
            part = slice(start, start + _ROWS)
            rows = self._rows[part]
            made += bound.make(
                self._data.images(rows, self._backbone.image_sides),
                [self._data.texts[row] for row in rows.tolist()],
                self._labels[part],
                self._priorities[part],
                hidden=self._hidden(rows),
                scores=None if scores is None else scores[part],
                features=self._features[part],
            )
            advance(len(rows))
        return made

    def _stored(self, bound: BoundRecipe, exemplars: list[Exemplar]) -> _Stored:
        """Put the whole sample into a memory and take it out again."""
        pipeline, parts, seconds = Pipeline(bound.restore), [], []
        with (
            tempfile.TemporaryDirectory() as place,
            bound.create_memory(place, max_bytes=_ROOM, samples=exemplars, durable=False) as memory,
        ):
            encoded = memory.encode(exemplars)
            slots = memory.add(encoded).slots
            memory.commit()
            pipeline.follow(memory)
            for start in range(0, len(slots), _ROWS):
                began = time.perf_counter()
                batch = pipeline(TensorBatch.from_numpy(memory.read(slots[start : start + _ROWS])))
                parts.append(self._features_of(batch))
                seconds.append((time.perf_counter() - began) * _ROWS / len(parts[-1]))
            schema = memory.schema
        return _Stored(schema, encoded, np.concatenate(parts), 1000 * float(np.median(seconds)))

    @torch.inference_mode()
    def _features_of(self, batch: TensorBatch) -> NDArray[np.float32]:
        if "features" in batch.tokens:
            return batch.tokens["features"].values[:, 0].numpy()
        features: NDArray[np.float32] = self._learner.features(self._backbone.embed(batch)).cpu().numpy()
        return features

    def _at(self, recipe: Recipe, stored: _Stored, tested: NDArray[np.float32], budget: int) -> Measured:
        nothing = Measured(recipe, budget, 0, float(np.mean(stored.encoded.sizes)), (), stored.step_ms)
        with tempfile.TemporaryDirectory() as place:
            try:
                with ExemplarMemory.create(place, schema=stored.schema, max_bytes=budget, durable=False) as memory:
                    fixed = memory.used_bytes
                    memory.resize(fixed + round((budget - fixed) * self._share))
                    plan = memory.plan_add(stored.encoded)
                    folds = [self._fold(memory, stored, tested, number) for number in range(_FOLDS)]
            except (BudgetTooSmallError, ExemplarTooLargeError, BudgetError):
                return nothing
        held = len(plan.admitted)
        if not held or None in folds:
            return nothing
        each = float(np.mean(stored.encoded.sizes[plan.admitted]))
        fit = round(held / self._share) if held < len(self._rows) else int((budget - fixed) / each)
        return nothing._replace(
            exemplars=fit, exemplar_bytes=each, accuracies=tuple(fold for fold in folds if fold is not None)
        )

    def _fold(self, memory: ExemplarMemory, stored: _Stored, tested: NDArray[np.float32], number: int) -> float | None:
        """Fit on what fits of a part of the sample, and test on the rest; None where nothing fits."""
        draws = np.random.default_rng([self._seed, number]).random(len(self._rows))
        held_out = np.zeros(len(self._rows), np.bool_)
        for label in np.unique(self._labels):
            rows = np.flatnonzero(self._labels == label)
            held_out[rows[np.argsort(draws[rows])[: max(1, round(_HELD_OUT * len(rows)))]]] = True
        candidates = np.flatnonzero(~held_out)
        admitted = candidates[memory.plan_add(stored.encoded.take(candidates)).admitted]
        if not len(admitted):
            return None
        head: Head = HEADS.make("logistic")
        none = Labelled(stored.features[:0], self._labels[:0])
        head.fit(none, Labelled(stored.features[admitted], self._labels[admitted]))
        return float((head.predict(tested[held_out]) == self._labels[held_out]).mean())


def sample_rows(labels: NDArray[np.int64], *, most: int, seed: int) -> NDArray[np.int64]:
    """Choose at most so many rows, as many of each class as there are and can be, 2 at least; rising."""
    rng = np.random.default_rng(seed)
    groups = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    each = max(2, most // max(1, len(groups)))
    return np.sort(np.concatenate([group[:each] for group in groups]))
