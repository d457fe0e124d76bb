"""What a recipe is worth at a budget: the sample of a probe as it is stored, in memories of any size and policy."""

import functools
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from exmem.errors import BudgetError, BudgetTooSmallError, SchemaError
from exmem.memory import EncodedExemplars, ExemplarMemory
from exmem.recipes import BoundRecipe, Recipe
from exmem.registry import Part
from exmem.replay import Pipeline
from exmem.tokens import Exemplar, Schema
from exmem.tokens.tensors import TensorBatch
from exmem.train.codecs import trained_codec
from exmem.train.config import TrainConfig
from exmem.train.hidden import Advance, KeptHidden, features_of
from exmem.train.methods import HEADS, Head, Labelled
from exmem.train.methods.fitting import head_bytes
from exmem.train.methods.logistic import Logistic
from exmem.train.parts import folder_bytes
from exmem.train.samples import Fold
from exmem.train.storing import rank_examples

if TYPE_CHECKING:
    from exmem.train.probe import Probe, Seen

__all__ = ["ROOM", "USUAL", "Measured", "Policy", "StoredSample"]

_ROWS = 64  # of a replay step, whose time is told
ROOM = 2**40
"""Bytes of a memory that holds whatever it is offered."""
_SEED = 0  # of what recipes draw: the sample is stored once for all seeds

Rows = NDArray[np.int64]
Features = NDArray[np.float32]


class Measured(NamedTuple):
    """What a recipe is worth at a budget.

    `exemplars` is how many fit (of as many classes as the data has), each of `exemplar_bytes`; `accuracies` are those
    of the folds, none where nothing fits, `certainty` the mean probability given to the true class (0 where none),
    and `as_stored` accuracies on tests that went through a memory, too. `step_ms` is a replay step of 64, to features.
    Of the `sample`, `held` were held in a memory of `disk_bytes`, beside `head_bytes` that the head keeps.
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
    head_bytes: int = 0
    as_stored: tuple[float, ...] = ()

    @property
    def accuracy(self) -> float:
        """Mean of the folds, 0 where nothing fits."""
        return float(np.mean(self.accuracies)) if self.accuracies else 0.0


class Policy(NamedTuple):
    """Which examples of a class come first, how classes share a memory, and what classifies.

    `ranked_form` says whether examples are ranked by full features or those of what is stored. Classes share by the
    weights, where there are any; `classes` is how many they will be, those of the sample when left out.
    `tests_stored`: examples are tested as they would be stored, too.
    """

    selection: Part = Part("herding")
    quota: Literal["bytes", "counts"] = "bytes"
    ranked_form: Literal["full", "stored"] = "full"
    head: Part = Part("logistic")
    tests_stored: bool = False
    weights: Mapping[int, float] = MappingProxyType({})
    classes: int | None = None

    @classmethod
    def of(cls, config: TrainConfig, labels: Rows) -> "Policy":
        """Return that of a run, whose classes count as in labels where frequency shares the memory."""
        seen, counts = np.unique(labels, return_counts=True)
        weights = dict(zip(seen.tolist(), counts.tolist(), strict=True)) if config.quota == "frequency" else {}
        unit: Literal["bytes", "counts"] = "counts" if config.quota == "counts" else "bytes"
        return cls(
            config.selection, unit, config.ranked_form, config.method.head, config.loop.test_stored_form, weights
        )


USUAL = Policy()


class _Test(NamedTuple):
    """Accuracy and certainty on what a fold tests, and the accuracy on the same as it would be stored."""

    accuracy: float
    certainty: float
    as_stored: float | None


class _Held(NamedTuple):
    """Which rows a memory took, their bytes, those that are left, all on the disk, and those that the head keeps."""

    rows: Rows
    used_bytes: int
    free_bytes: int
    disk_bytes: int
    head_bytes: int


class StoredSample:
    """The sample of a probe as a recipe stores it, in whatever memory: measured at any budget, by any policy."""

    def __init__(self, probe: "Probe", recipe: Recipe, advance: Advance) -> None:
        self._probe, self.recipe, self._bound = probe, recipe, None
        self._tests: dict[tuple[Part, bool, bytes, bytes], _Test] = {}  # what is held at one budget may be at another
        if recipe.is_empty:
            return
        self._bound = bound = BoundRecipe(recipe, probe.backbone, seed=_SEED)
        exemplars = self._made(probe.sample, advance)
        schema = bound.schema_for(exemplars, codec=trained_codec(bound, exemplars))
        unnamed = {**(schema.recipe or {}), "recipe": recipe.refined(name="").to_json()}  # for a name takes bytes
        self._schema = Schema(schema.modalities, schema.extras, unnamed)
        with tempfile.TemporaryDirectory() as place, self._memory(place, ROOM) as memory:
            self._encoded = memory.encode(exemplars)

    @functools.cached_property
    def features(self) -> Features:
        """Features of the sample as a memory gives it back."""
        return self._read[0]

    @functools.cached_property
    def step_ms(self) -> float:
        """Time of a replay step."""
        return 1000 * float(np.median(self._read[1]))

    @functools.cached_property
    def _read(self) -> tuple[Features, list[float]]:
        return self._through(self._encoded)

    @functools.cached_property
    def _tested(self) -> Features:
        """Features of what is tested on; with hidden tokens it has as many as are replayed."""
        test = self._probe.test
        if self._bound is None or self.recipe.level != "hidden":
            return test.features
        pruned = self._bound.pruned(test.states, self._probe.scores(self._bound)[1])
        hidden = KeptHidden(pruned, self._probe.backbone.pixel_mean.device)
        return features_of(self._probe.learner, hidden, test.rows).numpy()

    @functools.cached_property
    def _tested_as_stored(self) -> Features:
        """Features of what is tested on, as a memory gives it back."""
        if self._probe.test is self._probe.sample:
            return self.features
        exemplars = self._made(self._probe.test, lambda _: None)
        with tempfile.TemporaryDirectory() as place, self._memory(place, ROOM) as memory:
            encoded = memory.encode(exemplars)
        return self._through(encoded)[0]

    def held(self, budget: int, *, rows: Rows | None = None, policy: Policy = USUAL, seed: int = 0) -> Rows:
        """Return those of the rows offered (all when left out) that a memory of a budget takes; none fit, none held."""
        offered = self._offered(rows)
        try:
            return self._taken(budget, offered, self._priorities(offered, policy, seed), policy).rows
        except BudgetError:  # the tables alone, or the largest exemplar, are more
            return offered[:0]

    def measure(self, budget: int, *, rows: Rows | None = None, policy: Policy = USUAL, seed: int = 0) -> Measured:
        """Measure what a memory of a budget in bytes holds of the rows offered (all when left out), and of each fold.

        `seed` draws where the selection draws. SchemaError if nothing is stored, and the head carries nothing either.
        """
        offered = self._offered(rows)
        head: Head = HEADS.make(policy.head.name, **policy.head.kwargs)
        if self._bound is None and not head.keeps_sums:
            raise SchemaError(
                f"recipe {self.recipe.name!r} stores nothing, and head {policy.head.name!r} carries nothing: a probe "
                "has nothing to fit it on; choose a head that keeps sums, such as nearest_mean"
            )
        folds = self._probe.folds or [Fold(offered, self._probe.test.rows)]
        priorities = self._priorities(offered, policy, seed)
        try:
            whole = self._taken(budget, offered, priorities, policy)
            by_fold = [
                whole.rows
                if len(fold.candidates) == len(offered)
                else self._taken(budget, fold.candidates, priorities, policy).rows
                for fold in folds
            ]
        except BudgetError:
            return self._nothing(budget)
        held = len(whole.rows)
        if not held and not head.keeps_sums:
            return self._nothing(budget)
        each = whole.used_bytes / held if held else float("nan")
        exemplars = held
        if held and held == len(offered):  # more would fit than the sample has
            exemplars += int(whole.free_bytes / each)
        tests = [
            self._test(policy, fold, fold.candidates if head.keeps_sums else rows_held)
            for fold, rows_held in zip(folds, by_fold, strict=True)
        ]
        return Measured(
            self.recipe,
            budget,
            round(exemplars / self._share(policy)),
            each,
            tuple(one.accuracy for one in tests),
            float("nan") if head.keeps_sums else self.step_ms,
            held,
            whole.disk_bytes,
            len(offered),
            float(np.mean([one.certainty for one in tests])),
            whole.head_bytes,
            tuple(one.as_stored for one in tests if one.as_stored is not None),
        )

    def _nothing(self, budget: int) -> Measured:
        each = float("nan") if self._bound is None else float(self._encoded.sizes.mean())
        return Measured(self.recipe, budget, 0, each, (), float("nan") if self._bound is None else self.step_ms)

    def _offered(self, rows: Rows | None) -> Rows:
        return self._probe.sample.rows if rows is None else rows

    def _share(self, policy: Policy) -> float:
        """Return the share of the classes to come that the sample has."""
        return len(np.unique(self._probe.sample.labels)) / policy.classes if policy.classes else 1.0

    def _priorities(self, offered: Rows, policy: Policy, seed: int) -> NDArray[np.float64]:
        """Return the priority of each row of the sample; those that are not offered have none."""
        sample, priorities = self._probe.sample, np.full(len(self._probe.sample.rows), np.nan)
        features = self.features if policy.ranked_form == "stored" and self._bound is not None else sample.features
        priorities[offered] = -rank_examples(
            features[offered], sample.labels[offered], selection=policy.selection, seed=[seed], values=None
        ).astype(np.float64)
        return priorities

    def _made(self, seen: "Seen", advance: Advance) -> list[Exemplar]:
        """Make exemplars of examples, all of the same priority."""
        bound, scores, made = self._bound, None, list[Exemplar]()
        assert bound is not None
        if self.recipe.level == "hidden":
            scores = self._probe.scores(bound)[0 if seen is self._probe.sample else 1]
        for start in range(0, len(seen.rows), _ROWS):
            part = slice(start, start + _ROWS)
            made += bound.make(
                seen.images[part],
                seen.texts[part],
                seen.labels[part],
                hidden=seen.hidden(seen.rows[part]),
                scores=None if scores is None else scores[part],
                features=seen.features[part],
            )
            advance(len(seen.rows[part]))
        return made

    def _memory(self, place: str, budget: int, quota: Literal["bytes", "counts"] = "bytes") -> ExemplarMemory:
        return ExemplarMemory.create(place, schema=self._schema, max_bytes=budget, quota=quota, durable=False)

    def _through(self, encoded: EncodedExemplars) -> tuple[Features, list[float]]:
        """Put exemplars into a memory and take them out again; return their features, and seconds of each step."""
        assert self._bound is not None
        pipeline, parts, seconds = Pipeline(self._bound.restore), [], []
        with tempfile.TemporaryDirectory() as place, self._memory(place, ROOM) as memory:
            slots = memory.add(encoded).slots
            memory.commit()
            pipeline.follow(memory)
            for start in range(0, len(slots), _ROWS):
                began = time.perf_counter()
                batch = pipeline(TensorBatch.from_numpy(memory.read(slots[start : start + _ROWS])))
                parts.append(self._features_of(batch))
                seconds.append((time.perf_counter() - began) * _ROWS / len(parts[-1]))
        return np.concatenate(parts), seconds

    @torch.inference_mode()
    def _features_of(self, batch: TensorBatch) -> Features:
        if "features" in batch.tokens:
            return batch.tokens["features"].values[:, 0].numpy()
        features: Features = self._probe.learner.features(self._probe.backbone.embed(batch)).cpu().numpy()
        return features

    def _taken(self, budget: int, rows: Rows, priorities: NDArray[np.float64], policy: Policy) -> _Held:
        """Return what a memory takes of the rows offered; BudgetError where not even an empty one fits.

        Beside what it needs empty and what the head keeps, it has the share of the sample's classes in the budget.
        """
        classes = policy.classes or len(np.unique(self._probe.sample.labels))
        kept = head_bytes(policy.head, width=self._probe.learner.backbone.feature_dim, classes=classes)
        if self._bound is None:
            if kept > budget:
                raise BudgetTooSmallError(f"the head keeps {kept:,} bytes, more than {budget:,}")
            return _Held(rows[:0], 0, budget - kept, 0, kept)
        with tempfile.TemporaryDirectory() as place:
            with self._memory(place, budget, policy.quota) as memory:
                if kept:
                    memory.charge("head", kept)
                if policy.weights:
                    memory.weigh(policy.weights)
                fixed = memory.used_bytes
                memory.resize(fixed + round((budget - fixed) * self._share(policy)))
                slots = memory.add(self._encoded.take(rows).ranked(priorities[rows])).slots
                memory.commit()
                used, free = memory.used_bytes - fixed, memory.free_bytes
            return _Held(rows[slots >= 0], used, free, folder_bytes(Path(place)), kept)

    def _test(self, policy: Policy, fold: Fold, rows: Rows) -> _Test:
        """Fit a head on rows of the sample, as they are stored or, where it keeps sums, as they are, and test it."""
        key = policy.head, policy.tests_stored, rows.tobytes(), fold.tested.tobytes()
        if key not in self._tests:
            self._tests[key] = self._tested_with(policy, fold, rows)
        return self._tests[key]

    def _tested_with(self, policy: Policy, fold: Fold, rows: Rows) -> _Test:
        if not len(rows):
            return _Test(0.0, 0.0, 0.0 if policy.tests_stored else None)
        head: Head = HEADS.make(policy.head.name, **policy.head.kwargs)
        labels, sample = self._probe.test.labels[fold.tested], self._probe.sample
        head.fit(Labelled((sample.features if head.keeps_sums else self.features)[rows], sample.labels[rows]))
        tested, certainty = self._tested[fold.tested], 0.0
        if isinstance(head, Logistic):
            given = head.probabilities(tested)[labels[:, None] == np.array(head.classes)]
            certainty = float(given.sum() / len(labels))
        as_stored = None
        if policy.tests_stored:
            as_stored = float((head.predict(self._tested_as_stored[fold.tested]) == labels).mean())
        return _Test(float((head.predict(tested) == labels).mean()), certainty, as_stored)
