"""The reference trainer: phase after phase, train, store exemplars, measure; a killed run goes on where it was."""

import time
import warnings
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from exmem.backbones import Backbone, Hidden
from exmem.errors import DataError, DataWarning
from exmem.memory import ExemplarMemory
from exmem.tokens import Exemplar
from exmem.train.config import TrainConfig
from exmem.train.data import ImageText
from exmem.train.exemplars import Exemplars, keeps_hidden
from exmem.train.folder import RunFolder
from exmem.train.hidden import (
    Advance,
    HiddenOf,
    KeptHidden,
    Known,
    LiveHidden,
    backbone_key,
    embedded,
    kept_or_computed,
    scored_and_embedded,
    stored_form,
    text_key,
    tokens_of,
)
from exmem.train.learner import ClassMeans, Learner
from exmem.train.metrics import accuracies
from exmem.train.parts import bind_random_masks, bind_recipe, check_budget, create_memory, folder_bytes
from exmem.train.phase import NewExamples, train_phase
from exmem.train.progress import RunProgress
from exmem.train.scenario import Scenario
from exmem.train.storing import rank_examples, store_phase

__all__ = ["Trainer"]

_ROWS = 128


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

    Raises
    ------
    SchemaError
        If the configuration does not fit the data or the backbone.
    BudgetTooSmallError
        If not even an empty memory of the recipe fits the budget.
    """

    def __init__(
        self, folder: RunFolder, config: TrainConfig, backbone: Backbone, *, train: ImageText, test: ImageText
    ) -> None:
        self.folder, self.config, self.train, self.test = folder, config, train, test
        self.scenario = Scenario.of(config.data, len(train.class_names))
        key = backbone_key(backbone)
        self._keys = {"train": f"{train.key()}-{key}", "test": f"{test.key()}-{key}"}
        self._accelerator = Accelerator()
        self.backbone = backbone.to(self._accelerator.device)
        torch.manual_seed(config.seed)
        self.learner = Learner(self.backbone, rank=config.tuner.rank, alpha=config.tuner.alpha)
        self.bound = bind_recipe(config, self.learner, num_classes=len(train.class_names))
        if self.bound is not None:
            keeps_hidden(config, self.backbone)  # refused before anything is computed
            check_budget(config, self.bound)
        masked_at_random = config.loop.stored_form > 0 and config.loop.stored_masks == "random"
        self._random_masks = bind_random_masks(config, self.backbone) if masked_at_random else None
        self._exemplars: Exemplars | None = None
        self._known = Known()
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
            if self.folder.claim(self.config, {**self._keys, "classes": list(self.train.class_names)}):
                console.print(f"{self.folder.path}: no phase was finished; begun anew with other settings")
            done = self.folder.metrics()
            if len(done) < len(self.scenario):
                self._go_on(console, len(done))
            return self.folder.metrics()

    def _go_on(self, console: Console, done: int) -> None:
        sizes = [len(self.scenario.rows(self.train.labels, phase)) for phase in range(len(self.scenario))]
        epochs, name = self.config.loop.epochs, self.config.recipe.name
        with RunProgress(console, name=name, total=epochs * sum(sizes), done=epochs * sum(sizes[:done])) as progress:
            self._progress = progress
            self._hidden = {"train": self._trunk("train", self.train), "test": self._trunk("test", self.test)}
            self._open_memory(done)
            for phase in range(done, len(self.scenario)):
                entry = self._phase(phase)
                progress.line(
                    f"{name}, phase {phase + 1} of {len(sizes)}: linear {entry['linear']['all']:.1%}, "
                    f"nearest mean {entry['ncm']['all']:.1%}, {entry['exemplars']} exemplars, {entry['seconds']:.0f} s"
                )

    def _trunk(self, split: str, data: ImageText) -> HiddenOf:
        """Return hidden tokens of a split; where scores never change, the same pass finds those of what is stored."""
        tokens, rows = tokens_of(self.backbone, data), np.arange(len(data))
        if not self.config.loop.keep_hidden:
            return LiveHidden(self.backbone, tokens)
        advance = self._progress.stage(f"hidden tokens of {split}", len(data))
        masking = self.bound.masking if self.bound is not None else None
        if split == "train" and masking is not None and masking.is_fixed:
            name = f"{self._keys[split]}-{text_key(str(self.config.recipe.scorer))}"
            tensors = kept_or_computed(name, lambda: scored_and_embedded(masking, tokens, rows, advance))
            self._known = Known(scores=tensors.pop("scores").numpy())
            return KeptHidden(Hidden.of(tensors), self._accelerator.device)
        tensors = kept_or_computed(self._keys[split], lambda: embedded(self.backbone, tokens, rows, advance).tensors())
        hidden = KeptHidden(Hidden.of(tensors), self._accelerator.device)
        if split == "train" and masking is not None and masking.scorer is not None:
            self._known = Known(hidden=hidden)
        return hidden

    def _open_memory(self, done: int) -> None:
        if self.bound is None:
            return
        if not (self.folder.memory / "zarr.json").exists():
            if done:
                raise DataError(
                    f"{self.folder.memory}: the memory of this run is gone, and {done} phases are finished with it; "
                    "put it back, or use a new run folder"
                )
            create_memory(self.config, self.bound, self.folder.memory)
        self._exemplars = Exemplars(self.config, self.bound, self.folder)
        for phase in range(done):
            self._exemplars.update(phase, self._slots(phase))
        expected = self.folder.metrics()[-1]["exemplars"] if done else 0
        if len(self._exemplars.slots) < expected and self.folder.note(done, "stored") is None:
            warnings.warn(
                f"{self.folder.memory}: phase {done} ended with {expected} exemplars, {len(self._exemplars.slots)} are "
                "left; the run goes on with these, to other numbers",
                DataWarning,
                stacklevel=2,
            )

    def _slots(self, phase: int) -> NDArray[np.int64]:
        noted = self.folder.note(phase, "stored")
        slots = np.array((noted or {}).get("slots") or [], np.int64)
        return slots[slots >= 0]

    def _phase(self, phase: int) -> dict[str, Any]:
        began = time.monotonic()
        checkpoint = self.folder.checkpoint(phase)
        if checkpoint is None:
            if phase and self._learnt != phase - 1:
                before = self.folder.checkpoint(phase - 1)
                if before is None:
                    raise DataError(
                        f"{self.folder.path}: the checkpoint of phase {phase} is gone; use a new run folder"
                    )
                self.learner.load(self.scenario.seen(phase - 1), before)
            self._train(phase)
            self.folder.save_checkpoint(phase, self.learner.tuned())
        else:
            self.learner.load(self.scenario.seen(phase), checkpoint)
        self._learnt = phase
        rows = self.scenario.rows(self.train.labels, phase)
        features = self._features(self._hidden["train"], rows)
        means = self._learnt_means(phase, rows, features) if self.bound is None else self._store(phase, rows, features)
        entry = self._measure(phase, means)
        entry["seconds"] = round(time.monotonic() - began, 1)
        self.folder.add_metrics(entry)
        return entry

    def _train(self, phase: int) -> None:
        rows, teacher = self.scenario.rows(self.train.labels, phase), self.learner.tuned() if phase else {}
        self.learner.grow(self.scenario.phases[phase])
        new = NewExamples(rows, self.train.labels, self._hidden["train"], self._stored_form(rows))
        stage = self._stage(phase, "learning", len(rows) * self.config.loop.epochs)

        def report(count: int) -> None:
            stage(count)
            self._progress.learnt(count)

        train_phase(
            self.learner,
            self.config,
            new,
            phase=phase,
            teacher=teacher,
            held=self._exemplars if self._exemplars is not None and len(self._exemplars.slots) else None,
            backward=self._accelerator.backward,
            report=report,
        )

    def _stage(self, phase: int, what: str, total: int) -> Advance:
        return self._progress.stage(f"phase {phase + 1}/{len(self.scenario)}, {what}", total)

    def _stored_form(self, rows: NDArray[np.int64]) -> HiddenOf | None:
        """Return new examples as they would be stored; the scorer sees the model as it is before the phase."""
        if not self.config.loop.stored_form:
            return None
        bound = self.bound if self._random_masks is None else self._random_masks
        assert bound is not None  # the configuration refuses an empty recipe here
        advance = self._progress.stage("new examples as they would be stored", len(rows))
        known = self._known if bound is self.bound else Known()
        made = embedded(self.backbone, stored_form(bound, self.train, known), rows, advance)
        return KeptHidden(made, self._accelerator.device, rows)

    def _store(self, phase: int, rows: NDArray[np.int64], features: Tensor) -> ClassMeans:
        assert self.bound is not None
        assert self._exemplars is not None
        config, labels = self.config, self.train.labels[rows]
        if config.ranked_form == "stored":
            tokens = stored_form(self.bound, self.train, self._known)
            features = self._features(LiveHidden(self.backbone, tokens), rows)
        ranks = rank_examples(
            features.numpy(),
            labels,
            selection=config.selection,
            seed=[config.seed, phase],
            values=self.learner.difficulty(features, torch.from_numpy(labels)).get(config.selection.name),
        )
        with ExemplarMemory.open(self.folder.memory, mode="r+") as memory:
            if config.quota == "frequency":
                seen, counts = np.unique(labels, return_counts=True)
                memory.weigh(dict(zip(seen.tolist(), counts.tolist(), strict=True)))
            advance = self._stage(phase, "making exemplars", len(rows))

            def make(chosen: NDArray[np.int64], priorities: NDArray[np.float64]) -> list[Exemplar]:
                return self._made(chosen, priorities, advance)

            stored = store_phase(self.folder, phase, memory, make, rows=rows, ranks=ranks, labels=labels)
        self._exemplars.update(phase, stored.slots, self._stage(phase, "exemplars as they are seen", len(stored.slots)))
        slots, held = self._exemplars.slots, torch.from_numpy(self._exemplars.labels)
        return ClassMeans.of(self._features(self._exemplars.hidden, slots), held)

    def _made(self, rows: NDArray[np.int64], priorities: NDArray[np.float64], advance: Advance) -> list[Exemplar]:
        """Make exemplars of rows of the data; the trunk is not run again for their scores."""
        assert self.bound is not None
        made: list[Exemplar] = []
        for start in range(0, len(rows), _ROWS):
            chosen = rows[start : start + _ROWS]
            texts, labels = [self.train.texts[row] for row in chosen.tolist()], self.train.labels[chosen]
            images = self.train.images(chosen, self.backbone.image_sides)
            made += self.bound.make(
                images,
                texts,
                labels,
                priorities[start : start + _ROWS],
                extras=self._extras(chosen),
                **self._known.of(chosen),
            )
            advance(len(chosen))
        return made

    def _extras(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Return features (N, D) and logits (N, C) of rows, as the recipe asks; NaN for classes that are not learnt."""
        wanted = self.config.recipe.extras
        if not wanted:
            return {}
        features = self._features(self._hidden["train"], rows)
        logits = np.full((len(rows), len(self.train.class_names)), np.nan, np.float32)
        logits[:, list(self.learner.classes)] = self.learner.logits(features).detach().numpy()
        return {
            name: values for name, values in {"features": features.numpy(), "logits": logits}.items() if name in wanted
        }

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
        seen = self.scenario.seen(phase)
        rows = np.flatnonzero(np.isin(self.test.labels, seen))
        self._stage(phase, "measuring", len(rows))
        measured = self._accuracies(self._features(self._hidden["test"], rows), rows, phase, means)
        if self.bound is not None and self.config.loop.test_stored_form:
            stored = self._features(LiveHidden(self.backbone, stored_form(self.bound, self.test)), rows)
            as_stored = self._accuracies(stored, rows, phase, means)
            measured |= {f"{name}_stored": accuracy for name, accuracy in as_stored.items()}
        return {
            "phase": phase,
            "classes": list(self.scenario.phases[phase]),
            **measured,
            "exemplars": len(self._exemplars.slots) if self._exemplars is not None else 0,
            "disk_bytes": folder_bytes(self.folder.memory) if self._exemplars is not None else 0,
            "mean_bytes": 0 if self._exemplars is not None else means.means.numel() * means.means.element_size(),
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

    def _features(self, hidden_of: HiddenOf, rows: NDArray[np.int64]) -> Tensor:
        parts = [torch.zeros(0, self.backbone.feature_dim)]
        with torch.inference_mode():
            chunks = (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
            parts += [self.learner.features(hidden_of(chunk)).cpu() for chunk in chunks]
        return torch.cat(parts).clone()
