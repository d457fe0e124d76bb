"""The reference trainer: phase after phase, train, store exemplars, measure; a killed run goes on where it was."""

import os
import shutil
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from exmem.backbones import Backbone
from exmem.errors import SchemaError
from exmem.memory import ExemplarMemory
from exmem.train.config import TrainConfig
from exmem.train.data import ImageText
from exmem.train.features import CachedStreams, LiveStreams, Streams, data_batch, data_key, embed_rows, load_or_embed
from exmem.train.folder import RunFolder
from exmem.train.forms import stored_form
from exmem.train.learner import ClassMeans, Learner
from exmem.train.making import make_random_masks, make_recipe
from exmem.train.metrics import accuracies
from exmem.train.progress import RunProgress
from exmem.train.replaying import Exemplars
from exmem.train.scenario import Scenario
from exmem.train.storing import Candidates, rank_examples, store_phase
from exmem.train.training import NewExamples, train_phase

__all__ = ["Trainer", "folder_bytes", "learning_units"]

_ROWS = 128
_STEP_PASSES = 4  # of the tuned part: forward, backward (twice a forward pass), and the teacher's forward


def learning_units(config: TrainConfig, backbone: Backbone, examples: int) -> float:
    """Estimate what a run computes after the frozen features of its data are there.

    Parameters
    ----------
    config : TrainConfig
        The run.
    backbone : Backbone
        Its backbone.
    examples : int
        Training examples of all phases.

    Returns
    -------
    float
        Pictures through the whole backbone, at most.
    """
    recipe = make_recipe(config, backbone)
    steps = config.epochs * _step_units(config, backbone)
    if recipe is None:
        return examples * steps
    forms = bool(config.new_stored_form) + (config.selection_form == "stored") + config.test_stored_form
    stored = (recipe.passes + 1) * (1 + forms)  # 1: embedding what is stored
    return examples * (steps * (1 + config.replay_batch / config.batch) + stored)


def _step_units(config: TrainConfig, backbone: Backbone) -> float:
    frozen = backbone.num_frozen_blocks
    tuned = 1 - frozen / (frozen + len(backbone.trainable_blocks()))
    return _STEP_PASSES * tuned + (0 if config.cache_features else 1 - tuned)


def folder_bytes(path: Path) -> int:
    """Count the bytes of all files below a folder, as the file system has them.

    Parameters
    ----------
    path : Path
        The folder.

    Returns
    -------
    int
        Sum of the file sizes; 0 when there is no folder.
    """
    return sum(Path(folder, name).lstat().st_size for folder, _, names in os.walk(path) for name in names)


class Trainer:
    """One run in one folder.

    Parameters
    ----------
    folder : RunFolder
        Where the run keeps everything.
    config : TrainConfig
        What decides the numbers.
    backbone : Backbone
        A fresh backbone; adapters are injected into it.
    train, test : ImageText
        Data of the same classes.
    features : Path, optional
        Folder of the frozen features, which several runs may share; the run's own when left out.

    Raises
    ------
    SchemaError
        If several processes were launched: the memory has one writer, and only one process is supported yet.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: TrainConfig,
        backbone: Backbone,
        *,
        train: ImageText,
        test: ImageText,
        features: Path | None = None,
    ) -> None:
        self.folder, self.config, self.train, self.test = folder, config, train, test
        self.scenario = Scenario.split(
            len(train.class_names), first=config.first_classes, increments=config.increments, seed=config.class_seed
        )
        self._accelerator = Accelerator()
        if self._accelerator.num_processes > 1:
            raise SchemaError("the trainer runs in one process; launch it without several processes")
        if config.modalities != "both":
            backbone.restrict(config.modalities)
        self._keys = {"train": data_key(backbone, train), "test": data_key(backbone, test)}
        self.backbone = backbone.to(self._accelerator.device)
        self.recipe = make_recipe(config, self.backbone, lambda *batch: self.learner.true_logits(*batch))
        torch.manual_seed(config.seed)
        self.learner = Learner(self.backbone, rank=config.lora_rank, alpha=config.lora_alpha)
        self._shared = features
        self._learnt = -1  # phase that the learner is at

    def run(self, console: Console) -> list[dict[str, Any]]:
        """Run, or go on, to the end.

        Parameters
        ----------
        console : Console
            Where progress is shown.

        Returns
        -------
        list of dict
            What was measured, one entry per phase; also in `metrics.jsonl`.
        """
        with self.folder.locked():
            self.folder.claim(self.config, {"key": self._keys, "classes": list(self.train.class_names)})
            done = self.folder.metrics()
            if len(done) < len(self.scenario):
                self._go_on(console, len(done))
            shutil.rmtree(self.folder.features, ignore_errors=True)
            return self.folder.metrics()

    def _go_on(self, console: Console, done: int) -> None:
        units = learning_units(self.config, self.backbone, len(self.train))
        embed = 0
        if self.config.cache_features:
            parts = {"train": self.train, "test": self.test}
            embed = sum(len(data) for split, data in parts.items() if not self._feature_file(split).exists())
        phases = [len(self.scenario.rows(self.train.labels, phase)) for phase in range(len(self.scenario))]
        plan = units * np.cumsum([0, *phases]) / len(self.train)
        with RunProgress(console, name=self.config.recipe, total=embed + units, done=float(plan[done])) as progress:
            self._progress = progress
            self._streams = {"train": self._frozen("train", self.train), "test": self._frozen("test", self.test)}
            self._exemplars = self._open_memory(done)
            for phase in range(done, len(self.scenario)):
                entry = self._phase(phase)
                progress.reach(embed + float(plan[phase + 1]))
                progress.line(
                    f"{self.config.recipe}, phase {phase + 1} of {len(phases)}: linear {entry['linear']['all']:.1%}, "
                    f"nearest mean {entry['ncm']['all']:.1%}, {entry['exemplars']} exemplars, {entry['seconds']:.0f} s",
                    last=phase + 1 == len(phases),
                )

    def _frozen(self, split: str, data: ImageText) -> Streams:
        tokens = data_batch(self.backbone, data)
        if not self.config.cache_features:
            return LiveStreams(self.backbone, tokens)
        self._progress.stage(f"features of {split}")
        rows, file = np.arange(len(data)), self._feature_file(split)
        stream = load_or_embed(file, lambda: embed_rows(self.backbone, tokens, rows, self._progress.advance))
        return CachedStreams(stream, self._accelerator.device)

    def _feature_file(self, split: str) -> Path:
        return (self._shared or self.folder.features) / f"{self._keys[split]}.safetensors"

    def _open_memory(self, done: int) -> Exemplars | None:
        if self.recipe is None:
            return None
        if not (self.folder.memory / "zarr.json").exists():
            schema, config = self.recipe.schema(), self.config
            unit: Literal["bytes", "counts"] = "counts" if config.quota == "counts" else "bytes"
            ExemplarMemory.create(self.folder.memory, schema=schema, max_bytes=config.max_bytes, quota=unit).close()
        folders = {"memory": self.folder.memory, "features": self.folder.features}
        exemplars = Exemplars(self.config, self.backbone, self.recipe, **folders)
        for phase in range(done):
            noted = self.folder.note(phase, "slots")
            exemplars.restore(phase, np.array(noted["slots"] if noted else [], np.int64))
        return exemplars

    def _phase(self, phase: int) -> dict[str, Any]:
        began = time.monotonic()
        checkpoint = self.folder.checkpoint(phase)
        if checkpoint is None:
            if phase and self._learnt != phase - 1:
                self.learner.load(self.scenario.seen(phase - 1), self.folder.checkpoint(phase - 1) or {})
            self._train(phase)
            self.folder.save_checkpoint(phase, self.learner.tuned())
        else:
            self.learner.load(self.scenario.seen(phase), checkpoint)
        self._learnt = phase
        rows = self.scenario.rows(self.train.labels, phase)
        features = self._features(self._streams["train"], rows)
        means = self._store(phase, rows, features) if self._exemplars else self._learnt_means(phase, rows, features)
        entry = self._measure(phase, means)
        entry["seconds"] = round(time.monotonic() - began, 1)
        self.folder.add_metrics(entry)
        return entry

    def _train(self, phase: int) -> None:
        rows, teacher = self.scenario.rows(self.train.labels, phase), self.learner.tuned() if phase else {}
        self.learner.grow(self.scenario.phases[phase])
        new = NewExamples(rows, self.train.labels, self._streams["train"], self._stored_form(rows))
        cost, where = _step_units(self.config, self.backbone), f"phase {phase + 1}/{len(self.scenario)}"

        def report(what: str, examples: int) -> None:
            self._progress.stage(f"{where}, {what}")
            self._progress.advance(cost * examples)

        train_phase(
            self.learner,
            self.config,
            new,
            phase=phase,
            teacher=teacher,
            held=self._exemplars if self._exemplars and len(self._exemplars.slots) else None,
            backward=self._accelerator.backward,
            report=report,
        )

    def _stored_form(self, rows: NDArray[np.int64]) -> Streams | None:
        """Return new examples as they would be stored; the scorer sees the model as it is before the phase."""
        config = self.config
        if not config.new_stored_form:
            return None
        recipe = make_random_masks(config, self.backbone) if config.new_masks == "random" else self.recipe
        assert recipe is not None  # the configuration refuses `none` here
        tokens = stored_form(self.backbone, self.train, recipe, fill=config.fill)
        self._progress.stage("new examples as they would be stored")
        made = embed_rows(self.backbone, tokens, rows, self._progress.advance)
        return CachedStreams(made, self._accelerator.device, rows)

    def _store(self, phase: int, rows: NDArray[np.int64], features: Tensor) -> ClassMeans:
        assert self.recipe is not None
        assert self._exemplars is not None
        self._progress.stage(f"phase {phase + 1}/{len(self.scenario)}, storing exemplars")
        advance, labels = self._progress.advance, self.train.labels[rows]
        if self.config.selection_form == "stored":
            tokens = stored_form(self.backbone, self.train, self.recipe, fill=self.config.fill)
            features = self._features(lambda chunk: self.backbone.embed(tokens(chunk)), rows)
        ranks = rank_examples(
            features.numpy(),
            labels,
            selection=self.config.selection,
            seed=[self.config.seed, phase],
            values=self.learner.difficulty(features, torch.from_numpy(labels)).get(self.config.selection),
        )
        size = self.backbone.picture_size
        candidates = Candidates(self.recipe, self.train, rows, ranks, picture_size=size, advance=advance)
        with ExemplarMemory.open(self.folder.memory, mode="r+") as memory:
            if self.config.quota == "frequency":
                seen, counts = np.unique(labels, return_counts=True)
                memory.weigh(dict(zip(seen.tolist(), counts.tolist(), strict=True)))
            store_phase(self.folder, phase, candidates, memory)
            first = (self.folder.note(phase, "plan") or {})["first_slot"]
            self.folder.save_note(phase, "slots", {"slots": memory.slots[memory.slots >= first].tolist()})
        self._exemplars.update(phase, first, self._progress.advance)
        slots, held = self._exemplars.slots, torch.from_numpy(self._exemplars.labels)
        return ClassMeans.of(self._features(self._exemplars.streams, slots), held)

    def _learnt_means(self, phase: int, rows: NDArray[np.int64], features: Tensor) -> ClassMeans:
        """Class means without a memory: each stays as it was when its class was learnt."""
        means = ClassMeans.of(features, torch.from_numpy(self.train.labels[rows]))
        file = self.folder.path / "state" / "means.safetensors"
        if phase:
            known = load_file(file)
            older = torch.isin(known["classes"], torch.tensor(self.scenario.seen(phase - 1)))
            means = ClassMeans(known["classes"][older].tolist(), known["means"][older]).merged(means)
        self.folder.save_tensors(file, {"classes": torch.tensor(means.classes), "means": means.means})
        return means

    def _measure(self, phase: int, means: ClassMeans) -> dict[str, Any]:
        self._progress.stage(f"phase {phase + 1}/{len(self.scenario)}, measuring")
        seen = self.scenario.seen(phase)
        rows = np.flatnonzero(np.isin(self.test.labels, seen))
        found = self._accuracies(self._features(self._streams["test"], rows), rows, phase, means)
        if self.recipe is not None and self.config.test_stored_form:
            tokens = stored_form(self.backbone, self.test, self.recipe, fill=self.config.fill)
            stored = self._features(lambda chunk: self.backbone.embed(tokens(chunk)), rows)
            as_stored = self._accuracies(stored, rows, phase, means)
            found |= {f"{name}_stored": accuracy for name, accuracy in as_stored.items()}
        held = folder_bytes(self.folder.memory) if self._exemplars else 0
        return {
            "phase": phase,
            "classes": list(self.scenario.phases[phase]),
            **found,
            "exemplars": len(self._exemplars.slots) if self._exemplars else 0,
            "disk_bytes": held,
            "mean_bytes": 0 if self._exemplars else means.means.numel() * means.means.element_size(),
            "classes_without_exemplars": sorted(set(seen) - set(means.classes)),
        }

    def _accuracies(
        self, features: Tensor, rows: NDArray[np.int64], phase: int, means: ClassMeans
    ) -> dict[str, dict[str, Any]]:
        labels, logits = self.test.labels[rows], self.learner.logits(features)
        linear = torch.tensor(self.learner.classes)[logits.argmax(-1)].numpy()
        return {
            "linear": accuracies(linear, labels, self.scenario, phase),
            "ncm": accuracies(means.predict(features).numpy(), labels, self.scenario, phase),
        }

    def _features(self, streams: Streams, rows: NDArray[np.int64]) -> Tensor:
        parts = [torch.zeros(0, self.backbone.feature_dim)]
        with torch.inference_mode():
            chunks = (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
            parts += [self.learner.features(streams(chunk)).cpu() for chunk in chunks]
        return torch.cat(parts).clone()
