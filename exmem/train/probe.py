"""A frozen probe: what recipes are worth at a budget, before anything is trained.

One pass of the trunk over a sample; then each recipe makes exemplars of it, a memory of each budget says which of them
fit, and a classifier fitted on nothing but these is tested on examples that were held out. Nothing is tuned.
"""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from exmem.backbones import Backbone, Hidden
from exmem.errors import BudgetError
from exmem.memory import EncodedExemplars, ExemplarMemory
from exmem.recipes import BoundRecipe, Recipe
from exmem.registry import Part
from exmem.replay import Pipeline
from exmem.tokens import Exemplar, Schema, TokenBatch
from exmem.tokens.tensors import TensorBatch
from exmem.train.cache import kept_or_computed
from exmem.train.codecs import trained_codec
from exmem.train.data import ImageText
from exmem.train.hidden import Advance, KeptHidden, backbone_key, embedded, features_of, scored, tokens_of
from exmem.train.learner import Learner
from exmem.train.methods import Labelled
from exmem.train.methods.logistic import Logistic
from exmem.train.parts import folder_bytes
from exmem.train.storing import rank_examples

__all__ = ["USUAL", "Measured", "Policy", "Probe", "chosen_rows", "sample_rows"]

_ROWS = 64  # of a replay step, whose time is told
_FEWEST_FOLDS, _MOST_FOLDS, _TESTED = 3, 10, 750  # folds until so many examples are tested on: chance counts less then
_HELD_OUT = 0.25  # of the sample, for testing
_ROOM = 2**40  # bytes, for the memory that holds the whole sample


class Measured(NamedTuple):
    """What a recipe is worth at a budget.

    `exemplars` is how many fit (of as many classes as the data has), each of `exemplar_bytes`; `accuracies` are those
    of the folds, none where nothing fits, and `certainty` the mean probability given to the true class; `step_ms` is a
    replay step of 64, from the memory to features. Of the `sample`, `held` were held, in `disk_bytes`.
    """

    recipe: Recipe
    max_bytes: int
    exemplars: int
    exemplar_bytes: float
    accuracies: tuple[float, ...]
    step_ms: float
    held: int = 0
    disk_bytes: int = 0
    sample: int = 0
    certainty: float = 0.0

    @property
    def accuracy(self) -> float:
        """Mean of the folds, 0 where nothing fits."""
        return float(np.mean(self.accuracies)) if self.accuracies else 0.0


class Policy(NamedTuple):
    """Which examples of a class come first, and how classes share a memory: by the weights, where there are any.

    `classes` is how many they will be, those of the sample when left out.
    """

    selection: Part = Part("herding")
    quota: Literal["bytes", "counts"] = "bytes"
    weights: Mapping[int, float] = MappingProxyType({})
    classes: int | None = None


USUAL = Policy()


class _Stored(NamedTuple):
    """The sample as a memory gives it back."""

    schema: Schema
    encoded: EncodedExemplars
    features: NDArray[np.float32]
    step_ms: float


class _Fold(NamedTuple):
    """Which examples of the sample may be stored, and which of those that are tested on count."""

    candidates: NDArray[np.int64]
    tested: NDArray[np.int64]


class _Held(NamedTuple):
    """Which rows a memory of a budget took, the bytes that these take, those that are left, and all on the disk."""

    rows: NDArray[np.int64]
    used_bytes: int
    free_bytes: int
    disk_bytes: int


class _Seen:
    """Examples, decoded once, and what the trunk makes of them, where that is not known."""

    def __init__(self, learner: Learner, data: ImageText, advance: Advance, states: Hidden | None = None) -> None:
        backbone = learner.backbone
        self._backbone, self.rows = backbone, np.arange(len(data))
        self.texts, self.labels = data.texts, data.labels
        self.images = np.empty((len(data), *backbone.image_sides, 3), np.uint8)
        parts = []
        for start in range(0, len(data), _ROWS):
            rows = self.rows[start : start + _ROWS]
            self.images[rows] = data.images(rows, backbone.image_sides)
            if states is None:
                parts.append(backbone.embed(self.tokens(rows)).to("cpu").to(torch.float16))
            advance(len(rows))
        self.states = Hidden.cat(parts) if states is None else states
        self.hidden = KeptHidden(self.states, backbone.pixel_mean.device)
        self.features = features_of(learner, self.hidden, self.rows).numpy()

    def tokens(self, rows: NDArray[np.int64]) -> TensorBatch:
        """Return all tokens of some rows, with their classes."""
        batch = self._backbone.tokens(self.images[rows], [self.texts[row] for row in rows.tolist()])
        return TensorBatch.from_numpy(TokenBatch(batch.tokens, self.labels[rows]))


class Probe:
    """A frozen backbone, a sample of labelled examples, and what the trunk makes of it.

    `rows` of the data are the sample; its images lie decoded in RAM. What is not stored of it is tested on, in three to
    ten folds, or all of `test`. `policy` says which exemplars a memory takes. `shares_trunk`: the cache of all runs
    holds what the trunk makes of all of the data. `advance` is told how many examples have passed it. Adapters that
    change nothing are put into the backbone.
    """

    def __init__(
        self,
        backbone: Backbone,
        data: ImageText,
        rows: NDArray[np.int64],
        *,
        test: ImageText | None = None,
        policy: Policy = USUAL,
        seed: int = 0,
        shares_trunk: bool = False,
        advance: Advance,
    ) -> None:
        key = backbone_key(backbone) if shares_trunk else None
        self._backbone, self._seed = backbone.to(Accelerator().device), seed
        self._learner = Learner(self._backbone, rank=1, alpha=1)
        self._sample = sample = self._seen(data, rows, key, advance)
        self._test = sample if test is None else self._seen(test, np.arange(len(test)), key, advance)
        self._folds = _folds(sample.labels, seed) if test is None else [_Fold(sample.rows, self._test.rows)]
        self._share = len(np.unique(sample.labels)) / policy.classes if policy.classes else 1.0
        self._policy = policy
        ranks = rank_examples(sample.features, sample.labels, selection=policy.selection, seed=[seed], values=None)
        self._priorities = -ranks.astype(np.float64)
        self._scores: dict[Part, list[NDArray[np.float32]]] = {}

    def _seen(self, data: ImageText, rows: NDArray[np.int64], key: str | None, advance: Advance) -> _Seen:
        """Look at rows of the data; by the key of the backbone, what its trunk makes of all rows is shared."""
        if key is None:
            return _Seen(self._learner, data.subset(rows), advance)
        tokens, every = tokens_of(self._backbone, data), np.arange(len(data))
        name = f"{data.key()}-{key}"
        known = Hidden.of(kept_or_computed(name, lambda: embedded(self._backbone, tokens, every).tensors()))
        return _Seen(self._learner, data.subset(rows), advance, known.select(torch.from_numpy(rows)))

    def measure(self, recipe: Recipe, budgets: Sequence[int], advance: Advance) -> list[Measured]:
        """Measure a recipe at each budget in bytes; `advance` is told how many exemplars were made.

        SchemaError if the backbone cannot make or replay such exemplars, CodecError if the sample is too small to train
        the codec on.
        """
        bound = BoundRecipe(recipe, self._backbone, seed=self._seed)
        scores, tested = None, self._test.features
        if recipe.level == "hidden":  # tested with as many tokens as are replayed
            scores, of_tested = self._scored(bound)
            pruned = KeptHidden(bound.pruned(self._test.states, of_tested), self._backbone.pixel_mean.device)
            tested = features_of(self._learner, pruned, self._test.rows).numpy()
        stored = self._stored(bound, self._made(bound, scores, advance))
        known: dict[tuple[int, bytes], tuple[float, float]] = {}  # what is held at one budget may be held at another
        return [self._at(recipe, stored, tested, budget, known) for budget in budgets]

    def _scored(self, bound: BoundRecipe) -> list[NDArray[np.float32]]:
        """Score the patches of the sample and of what is tested on, once for all recipes of the same scorer."""
        scorer = bound.recipe.scorer
        if scorer not in self._scores:
            self._scores[scorer] = [
                scored(bound.masking, seen.tokens, seen.hidden, seen.rows, lambda _: None)
                for seen in (self._sample, self._test)
            ]
        return self._scores[scorer]

    def _made(self, bound: BoundRecipe, scores: NDArray[np.float32] | None, advance: Advance) -> list[Exemplar]:
        sample, made = self._sample, list[Exemplar]()
        for start in range(0, len(sample.rows), _ROWS):
            part = slice(start, start + _ROWS)
            made += bound.make(
                sample.images[part],
                sample.texts[part],
                sample.labels[part],
                self._priorities[part],
                hidden=sample.hidden(sample.rows[part]),
                scores=None if scores is None else scores[part],
                features=sample.features[part],
            )
            advance(len(sample.rows[part]))
        return made

    def _stored(self, bound: BoundRecipe, exemplars: list[Exemplar]) -> _Stored:
        """Put the whole sample into a memory and take it out again."""
        pipeline, parts, seconds = Pipeline(bound.restore), [], []
        with (
            tempfile.TemporaryDirectory() as place,
            bound.create_memory(
                place, max_bytes=_ROOM, samples=exemplars, codec=trained_codec(bound, exemplars), durable=False
            ) as memory,
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

    def _at(
        self,
        recipe: Recipe,
        stored: _Stored,
        tested: NDArray[np.float32],
        budget: int,
        known: dict[tuple[int, bytes], tuple[float, float]],
    ) -> Measured:
        """Measure what a memory of a budget holds of the sample, and of the candidates of each fold.

        `known` are tests by fold and by the rows that were held; new ones are added.
        """
        sizes = stored.encoded.sizes
        nothing = Measured(recipe, budget, 0, float(sizes.mean()), (), stored.step_ms)
        try:
            whole = self._held(stored, budget, self._sample.rows)
            by_fold = [
                whole.rows
                if len(fold.candidates) == len(self._sample.rows)
                else self._held(stored, budget, fold.candidates).rows
                for fold in self._folds
            ]
        except BudgetError:  # the tables alone, or the largest exemplar, are more
            return nothing
        if not len(whole.rows):
            return nothing
        exemplars = held = len(whole.rows)
        each = whole.used_bytes / held
        if exemplars == len(sizes):  # more would fit than the sample has
            exemplars += int(whole.free_bytes / each)
        tests = []
        for number, (rows, fold) in enumerate(zip(by_fold, self._folds, strict=True)):
            key = number, rows.tobytes()
            if key not in known:
                known[key] = self._tested(stored, rows, tested, fold.tested)
            tests.append(known[key])
        return Measured(
            recipe,
            budget,
            round(exemplars / self._share),
            each,
            tuple(accuracy for accuracy, _ in tests),
            stored.step_ms,
            held,
            whole.disk_bytes,
            len(sizes),
            float(np.mean([certainty for _, certainty in tests])),
        )

    def _held(self, stored: _Stored, budget: int, rows: NDArray[np.int64]) -> _Held:
        """Return what a memory takes of the rows offered.

        Beside what an empty memory needs, it has the share of the sample's classes in the budget.
        """
        with tempfile.TemporaryDirectory() as place:
            with ExemplarMemory.create(
                place, schema=stored.schema, max_bytes=budget, quota=self._policy.quota, durable=False
            ) as memory:
                if self._policy.weights:
                    memory.weigh(self._policy.weights)
                fixed = memory.used_bytes
                memory.resize(fixed + round((budget - fixed) * self._share))
                slots = memory.add(stored.encoded.take(rows)).slots
                memory.commit()
                used, free = memory.used_bytes - fixed, memory.free_bytes
            return _Held(rows[slots >= 0], used, free, folder_bytes(Path(place)))

    def _tested(
        self, stored: _Stored, rows: NDArray[np.int64], tested: NDArray[np.float32], among: NDArray[np.int64]
    ) -> tuple[float, float]:
        """Fit a head on rows of the sample as they are stored; return accuracy and certainty among those tested on."""
        if not len(rows):
            return 0.0, 0.0
        head, labels = Logistic(), self._test.labels[among]
        head.fit(Labelled(stored.features[rows], self._sample.labels[rows]))
        given = head.probabilities(tested[among])[labels[:, None] == np.array(head.classes)]
        return float((head.predict(tested[among]) == labels).mean()), float(given.sum() / len(labels))


def _folds(labels: NDArray[np.int64], seed: int) -> list[_Fold]:
    """Hold a quarter of each class out, one example at least, several times anew."""
    number_of_folds = min(_MOST_FOLDS, max(_FEWEST_FOLDS, math.ceil(_TESTED / (_HELD_OUT * len(labels)))))
    folds = []
    for number in range(number_of_folds):
        draws = np.random.default_rng([seed, number]).random(len(labels))
        held_out = np.zeros(len(labels), np.bool_)
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            held_out[rows[np.argsort(draws[rows])[: max(1, round(_HELD_OUT * len(rows)))]]] = True
        folds.append(_Fold(np.flatnonzero(~held_out), np.flatnonzero(held_out)))
    return folds


def sample_rows(labels: NDArray[np.int64], *, most: int, seed: int) -> NDArray[np.int64]:
    """Choose at most so many rows, as many of each class as there are and can be, 2 at least; rising."""
    groups = _shuffled(labels, seed)
    each = max(2, most // max(1, len(groups)))
    return np.sort(np.concatenate([group[:each] for group in groups]))


def chosen_rows(labels: NDArray[np.int64], *, share: float, seed: int) -> NDArray[np.int64]:
    """Choose the rows that a seed may take exemplars from: a share of each class, 2 at least; rising."""
    groups = _shuffled(labels, seed)
    return np.sort(np.concatenate([group[: max(2, round(share * len(group)))] for group in groups]))


def _shuffled(labels: NDArray[np.int64], seed: int) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
