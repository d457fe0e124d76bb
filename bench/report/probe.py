"""The probe: a classifier trained on nothing but the exemplars that fit the budget, tested on clean images.

The backbone stays frozen, so the table says what a memory is worth by itself. Image features are those of the vision
model; for both modalities the mean token of the text encoder stands beside them.
"""

import dataclasses
import tempfile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import layer_norm

from bench.report.rows import Row
from exmem import Exemplar, ExemplarMemory
from exmem.backbones import Backbone, Hidden
from exmem.masking import ScoreMaps, border_share
from exmem.recipes import BoundRecipe, Masked, Masking
from exmem.replay import Pipeline
from exmem.tokens.tensors import TensorBatch, TokenTensors
from exmem.train.config import TrainConfig
from exmem.train.data import ImageText
from exmem.train.folder import RunFolder
from exmem.train.hidden import stored_form, tokens_of
from exmem.train.storing import Make, rank_examples, store_phase

BUDGETS = (250_000, 750_000)
SEEDS = (0, 1, 2)
_DRAW = 0.75  # of the training images that a seed may choose from
_ROWS = 64


class Remembered:
    """A masking that scores each image once; the frozen backbone would say the same again."""

    def __init__(self, masking: Masking, known: dict[Any, ScoreMaps]) -> None:
        self._masking = dataclasses.replace(masking, scorer=self._look_up)
        self._scorer, self._known = masking.scorer, known
        self.kept: list[float] = []
        self.at_border: list[float] = []

    def __call__(self, images: Any, texts: Any, labels: Any, **known: Any) -> Masked:
        masked = self._masking(images, texts, labels, **known)
        self.kept += masked.keep["image"].mean(1).tolist()
        self.at_border += border_share(masked.keep["image"], self._masking.backbone.grid).kept.tolist()
        return masked

    def _look_up(self, model: Any, batch: TensorBatch, *, hidden: Hidden | None = None) -> ScoreMaps:
        image, text = batch.tokens["image"].values, batch.tokens["text"].values
        keys = [hash((image[row].numpy().tobytes(), text[row].numpy().tobytes())) for row in range(len(batch))]
        missing = [row for row, key in enumerate(keys) if key not in self._known]
        if missing:
            rows = torch.tensor(missing)
            tokens = {name: values.select(rows) for name, values in batch.tokens.items()}
            maps = self._scorer(model, TensorBatch(tokens, batch.labels[rows]))
            for index, row in enumerate(missing):
                self._known[keys[row]] = _row(maps, index)
        return _stacked([self._known[key] for key in keys])


def _row(maps: ScoreMaps, index: int) -> ScoreMaps:
    one = slice(index, index + 1)
    return ScoreMaps(
        {name: own[one] for name, own in maps.scores.items()},
        {name: own[one] for name, own in maps.valid.items()},
        None if maps.text_to_image is None else maps.text_to_image[one],
        None if maps.image_to_text is None else maps.image_to_text[one],
    )


def _stacked(maps: list[ScoreMaps]) -> ScoreMaps:
    first = maps[0]

    def joined(name: str) -> Any:
        return None if getattr(first, name) is None else np.concatenate([getattr(one, name) for one in maps])

    return ScoreMaps(
        {name: np.concatenate([one.scores[name] for one in maps]) for name in first.scores},
        {name: np.concatenate([one.valid[name] for one in maps]) for name in first.valid},
        joined("text_to_image"),
        joined("image_to_text"),
    )


class Probe:
    """The data, the frozen backbone, and features of clean images.

    Parameters
    ----------
    backbone : Backbone
        A joint backbone, not tuned.
    train, test : ImageText
        The data.
    """

    def __init__(self, backbone: Backbone, train: ImageText, test: ImageText) -> None:
        self.backbone, self.train, self.test = backbone, train, test
        self.full = self._features(tokens_of(backbone, train), np.arange(len(train)))
        self.clean = self._features(tokens_of(backbone, test), np.arange(len(test)))
        self.known: dict[str, dict[Any, ScoreMaps]] = {}

    def run(self, row: Row) -> list[dict[str, Any]]:
        """Fill a memory at each budget with each seed, and train on what is in it."""
        config = row.config()
        bound, masking = BoundRecipe(config.recipe, self.backbone, seed=config.seed), None
        if bound.masking.scorer is not None:
            masking = Remembered(bound.masking, self.known.setdefault(str(config.recipe.scorer), {}))
            bound.masking = masking
        stored_test = None
        if row.stored_test:
            stored_test = self._features(stored_form(bound, self.test), np.arange(len(self.test)))
        embedded: dict[int, NDArray[np.float32]] = {}  # features of exemplars by row of the data
        entries = []
        for seed in SEEDS:
            rows, ranks = self._ranked(config, bound, seed)
            for budget in BUDGETS:
                entry = self._cell(config, bound, rows, ranks, budget, embedded, stored_test)
                entries.append({"key": row.key, "seed": seed, "budget": budget} | entry)
        kept = (
            {}
            if masking is None
            else {"kept_ratio": float(np.mean(masking.kept)), "border_share": float(np.nanmean(masking.at_border))}
        )
        return [entry | kept for entry in entries]

    def _ranked(
        self, config: TrainConfig, bound: BoundRecipe, seed: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        labels, rng = self.train.labels, np.random.default_rng(seed)
        rows = np.sort(
            np.concatenate(
                [
                    rng.permutation(np.flatnonzero(labels == label))[: round(_DRAW * (labels == label).sum())]
                    for label in np.unique(labels)
                ]
            )
        )
        features = self.full[rows]
        if config.ranked_form == "stored":
            features = self._features(stored_form(bound, self.train), rows)
        values, rule = None, config.selection.name
        if rule in {"loss", "entropy"}:  # of a classifier that saw all of these images
            p = _fit(features, labels[rows]).predict_proba(features)
            true = p[np.arange(len(rows)), labels[rows]]
            values = -np.log(true) if rule == "loss" else -(p * np.log(np.maximum(p, 1e-12))).sum(1)
        return rows, rank_examples(features, labels[rows], selection=config.selection, seed=[seed], values=values)

    def _cell(
        self,
        config: TrainConfig,
        bound: BoundRecipe,
        rows: NDArray[np.int64],
        ranks: NDArray[np.int64],
        budget: int,
        embedded: dict[int, NDArray[np.float32]],
        stored_test: NDArray[np.float32] | None,
    ) -> dict[str, Any]:
        unit: Any = "counts" if config.quota == "counts" else "bytes"
        labels = self.train.labels[rows]
        with tempfile.TemporaryDirectory() as place:
            folder = RunFolder(place)
            with bound.create_memory(folder.memory, max_bytes=budget, quota=unit, durable=False) as memory:
                stored = store_phase(folder, 0, memory, self._make(bound), rows=rows, ranks=ranks, labels=labels)
                used = memory.used_bytes
                of_slot = dict(zip(stored.slots.tolist(), stored.rows.tolist(), strict=True))
                self._embed(bound, memory, of_slot, embedded)
        held = sorted(of_slot.values())
        if not held:
            return {"exemplars": 0, "used_bytes": used, "image": float("nan"), "both": float("nan")}
        features, labels = np.stack([embedded[row] for row in held]), self.train.labels[held]
        result: dict[str, Any] = {"exemplars": len(held), "used_bytes": used, "classes": len(np.unique(labels))}
        half = self.backbone.width * 2
        for name, part in (("image", slice(0, half)), ("both", slice(None))):
            model = _fit(features[:, part], labels)
            result[name] = float((model.predict(self.clean[:, part]) == self.test.labels).mean())
            if stored_test is not None:
                result[f"{name}_stored"] = float((model.predict(stored_test[:, part]) == self.test.labels).mean())
        return result

    def _make(self, bound: BoundRecipe) -> Make:
        def make(rows: NDArray[np.int64], priorities: NDArray[np.float64]) -> list[Exemplar]:
            exemplars: list[Exemplar] = []
            for start in range(0, len(rows), _ROWS):
                chosen = rows[start : start + _ROWS]
                images = self.train.images(chosen, self.backbone.image_sides)
                texts = [self.train.texts[row] for row in chosen.tolist()]
                exemplars += bound.make(images, texts, self.train.labels[chosen], priorities[start : start + _ROWS])
            return exemplars

        return make

    def _embed(
        self,
        bound: BoundRecipe,
        memory: ExemplarMemory,
        of_slot: dict[int, int],
        embedded: dict[int, NDArray[np.float32]],
    ) -> None:
        pipeline, every = Pipeline(bound.restore), memory.slots
        if pipeline.needs_class_means:
            embedded.clear()  # the mean colours of classes depend on what else is stored
        pipeline.follow(memory)
        new = np.array([slot for slot in every.tolist() if of_slot[slot] not in embedded], np.int64)
        for start in range(0, len(new), _ROWS):
            slots = new[start : start + _ROWS]
            hidden = self.backbone.embed(pipeline(TensorBatch.from_numpy(memory.read(slots))))
            for slot, feature in zip(slots.tolist(), self._of_hidden(hidden), strict=True):
                embedded[of_slot[slot]] = feature

    def _features(self, tokens: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        parts = (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
        return np.concatenate([self._of_hidden(self.backbone.embed(tokens(part))) for part in parts])

    def _of_hidden(self, hidden: Hidden) -> NDArray[np.float32]:
        alone = dataclasses.replace(
            hidden,
            text=TokenTensors(hidden.text.values[:, :0], hidden.text.positions[:, :0], hidden.text.valid[:, :0]),
        )
        with torch.inference_mode():
            image = self.backbone.encode(alone)[:, : 2 * self.backbone.width]
            weights = hidden.text.valid[..., None].float()
            text = (hidden.text.values * weights).sum(1) / weights.sum(1).clamp(min=1)
        parts = [layer_norm(part, part.shape[-1:]) for part in (image, text)]
        return torch.cat(parts, 1).numpy()


def _fit(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Any:
    return LogisticRegression(C=0.02, max_iter=300).fit(features, labels)
