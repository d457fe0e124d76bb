"""The probe: a classifier trained on nothing but the exemplars that fit the budget, tested on clean pictures.

The backbone stays frozen, so the table says what a memory is worth by itself. Image features are those of the vision
model; for both modalities the mean token of the text encoder stands beside them.
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exmem.train.features import data_batch
from exmem.train.forms import Replayed, stored_form
from exmem.train.making import make_recipe
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import layer_norm

from bench.report.rows import Row
from exmem import ExemplarMemory
from exmem.backbones import Backbone, Hidden
from exmem.masking import ScoreMaps, border_share
from exmem.recipes import Masked, Masking
from exmem.tokens.tensors import TensorBatch, TokenTensors
from exmem.train.config import TrainConfig
from exmem.train.data import ImageText
from exmem.train.storing import Candidates, plan_best, rank_examples

BUDGETS = (250_000, 750_000)
SEEDS = (0, 1, 2)
_DRAW = 0.75  # of the training pictures that a seed may choose from
_ROWS = 64


class Remembered(Masking):
    """A masking that scores each picture once; the frozen backbone would say the same again."""

    def __init__(self, masking: Masking, known: dict[Any, ScoreMaps]) -> None:
        super().__init__(
            masking.backbone,
            scorer=self._look_up,
            keep_rule=masking.keep_rule,
            text_rule=masking.text_rule,
            codec=masking.codec,
        )
        self._scorer, self._known = masking.scorer, known
        self.kept: list[float] = []
        self.at_border: list[float] = []

    def __call__(self, images: Any, texts: Any, labels: Any) -> Masked:
        masked = super().__call__(images, texts, labels)
        self.kept += masked.keep["image"].mean(1).tolist()
        self.at_border += border_share(masked.keep["image"], self.backbone.grid).kept.tolist()
        return masked

    def _look_up(self, model: Any, batch: TensorBatch) -> ScoreMaps:
        keys = [
            (batch.tokens["image"].values[row].numpy().tobytes(), batch.tokens["text"].values[row].numpy().tobytes())
            for row in range(len(batch))
        ]
        missing = [row for row, key in enumerate(keys) if hash(key) not in self._known]
        if missing:
            rows = torch.tensor(missing)
            part = TensorBatch({name: own.select(rows) for name, own in batch.tokens.items()}, batch.labels[rows])
            found = self._scorer(model, part)
            for index, row in enumerate(missing):
                self._known[hash(keys[row])] = _row(found, index)
        return _stacked([self._known[hash(key)] for key in keys])


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
    """The data, the frozen backbone, and features of clean pictures.

    Parameters
    ----------
    backbone : Backbone
        A joint backbone, not tuned.
    train, test : ImageText
        The data.
    """

    def __init__(self, backbone: Backbone, train: ImageText, test: ImageText) -> None:
        self.backbone, self.train, self.test = backbone, train, test
        self.full = self._features(data_batch(backbone, train), np.arange(len(train)))
        self.clean = self._features(data_batch(backbone, test), np.arange(len(test)))
        self.known: dict[str, dict[Any, ScoreMaps]] = {}

    def run(self, row: Row) -> list[dict[str, Any]]:
        """Fill a memory at each budget with each seed, and train on what is in it."""
        config = row.config()
        recipe = make_recipe(config, self.backbone)
        masking = getattr(recipe, "masking", None)
        if masking is not None:
            scorer = str((config.scorer, config.score_layers))
            recipe.masking = masking = Remembered(masking, self.known.setdefault(scorer, {}))
        stored_test = None
        if row.stored_test:
            form = stored_form(self.backbone, self.test, recipe, fill=config.fill)
            stored_test = self._features(form, np.arange(len(self.test)))
        embedded: dict[int, NDArray[np.float32]] = {}  # features of exemplars by row of the data
        found = []
        for seed in SEEDS:
            rows, ranks = self._ranked(config, recipe, seed)
            for budget in BUDGETS:
                entry = self._cell(config, recipe, rows, ranks, budget, embedded, stored_test)
                found.append({"key": row.key, "seed": seed, "budget": budget} | entry)
        kept = (
            {}
            if masking is None
            else {"kept_ratio": float(np.mean(masking.kept)), "border_share": float(np.nanmean(masking.at_border))}
        )
        return [entry | kept for entry in found]

    def _ranked(self, config: TrainConfig, recipe: Any, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
        if config.selection_form == "stored":
            features = self._features(stored_form(self.backbone, self.train, recipe, fill=config.fill), rows)
        values = None
        if config.selection in {"loss", "entropy"}:  # of a classifier that saw all of these pictures
            p = _fit(features, labels[rows]).predict_proba(features)
            true = p[np.arange(len(rows)), labels[rows]]
            values = -np.log(true) if config.selection == "loss" else -(p * np.log(np.maximum(p, 1e-12))).sum(1)
        return rows, rank_examples(features, labels[rows], selection=config.selection, seed=[seed], values=values)

    def _cell(
        self,
        config: TrainConfig,
        recipe: Any,
        rows: NDArray[np.int64],
        ranks: NDArray[np.int64],
        budget: int,
        embedded: dict[int, NDArray[np.float32]],
        stored_test: NDArray[np.float32] | None,
    ) -> dict[str, Any]:
        size = self.backbone.picture_size
        candidates = Candidates(recipe, self.train, rows, ranks, picture_size=size, advance=lambda number: None)
        unit: Any = "counts" if config.quota == "counts" else "bytes"
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "memory"
            with ExemplarMemory.create(
                place, schema=recipe.schema(), max_bytes=budget, quota=unit, durable=False
            ) as memory:
                plan = plan_best(candidates, memory)
                exemplars = candidates.best(max(plan.admitted, default=-1) + 1)
                slots = memory.add([exemplars[index] for index in plan.admitted]).slots
                memory.commit()
                used = memory.used_bytes
                of_slot = dict(zip(slots.tolist(), candidates.rows[plan.admitted].tolist(), strict=True))
                self._embed(config, recipe, memory, of_slot, embedded)
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

    def _embed(
        self,
        config: TrainConfig,
        recipe: Any,
        memory: ExemplarMemory,
        of_slot: dict[int, int],
        embedded: dict[int, NDArray[np.float32]],
    ) -> None:
        replayed = Replayed(self.backbone, recipe, fill=config.fill)
        every = memory.slots
        if replayed.needs_class_means:
            embedded.clear()  # the mean colours of classes depend on what else is stored
        replayed.know(lambda: [TensorBatch.from_numpy(memory.read(every))])
        new = np.array([slot for slot in every.tolist() if of_slot[slot] not in embedded], np.int64)
        for start in range(0, len(new), _ROWS):
            slots = new[start : start + _ROWS]
            stream = self.backbone.embed(replayed(TensorBatch.from_numpy(memory.read(slots))))
            for slot, feature in zip(slots.tolist(), self._of_stream(stream), strict=True):
                embedded[of_slot[slot]] = feature

    def _features(self, tokens: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        parts = (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
        return np.concatenate([self._of_stream(self.backbone.embed(tokens(part))) for part in parts])

    def _of_stream(self, stream: Hidden) -> NDArray[np.float32]:
        alone = dataclasses.replace(
            stream,
            text=TokenTensors(stream.text.values[:, :0], stream.text.positions[:, :0], stream.text.valid[:, :0]),
        )
        with torch.inference_mode():
            image = self.backbone.encode(alone)[:, : 2 * self.backbone.width]
            weights = stream.text.valid[..., None].float()
            text = (stream.text.values * weights).sum(1) / weights.sum(1).clamp(min=1)
        parts = [layer_norm(part, part.shape[-1:]) for part in (image, text)]
        return torch.cat(parts, 1).numpy()


def _fit(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Any:
    return LogisticRegression(C=0.02, max_iter=300).fit(features, labels)
