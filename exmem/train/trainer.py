"""The reference trainer: phase after phase, train, store exemplars, measure; a killed run goes on where it was."""

import functools
import time
import warnings
from collections.abc import Mapping
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
from exmem.recipes.training import check_enough
from exmem.tokens import Exemplar
from exmem.train.cache import kept_or_computed
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
    features_of,
    kept_and_scored,
    scored,
    stored_form,
    tokens_of,
)
from exmem.train.learner import ClassMeans, Learner
from exmem.train.measuring import measured_after
from exmem.train.methods import HEADS, Head, Labelled
from exmem.train.methods.fitting import fit_head
from exmem.train.parts import (
    bind_random_masks,
    bind_recipe,
    charge,
    charged_bytes,
    check_budget,
    create_memory,
    folder_bytes,
    tell_cut_texts,
)
from exmem.train.phase import NewExamples, train_phase
from exmem.train.progress import RunProgress
from exmem.train.scenario import Scenario, learnt_classes
from exmem.train.scenario_names import scenario_document
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
        If not even an empty memory of the recipe fits the budget, or what the head keeps does not.
    """

    def __init__(
        self, folder: RunFolder, config: TrainConfig, backbone: Backbone, *, train: ImageText, test: ImageText
    ) -> None:
        self.folder, self.config, self.train, self.test = folder, config, train, test
        self.scenario = Scenario.of(config.data, train.class_names)
        key = backbone_key(backbone)
        self._keys = {"train": f"{train.key()}-{key}", "test": f"{test.key()}-{key}"}
        self._accelerator = Accelerator()
        self.backbone = backbone.to(self._accelerator.device)
        torch.manual_seed(config.seed)
        self._charges = charged_bytes(config, self.backbone, len(train.class_names))
        self.learner = Learner(self.backbone, config.make_tuner())
        self.bound = bind_recipe(config, self.learner, num_classes=len(train.class_names))
        if self.bound is not None:
            keeps_hidden(config, self.backbone)  # refused before anything is computed
            check_enough(self.bound, len(self.scenario.rows(train.labels, 0)))
        check_budget(config, self.bound, self._charges)
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
            names = self.train.class_names
            scenario = scenario_document(self.scenario.named(names), self.config.data.scenario)
            if self.folder.claim(self.config, {**self._keys, "classes": list(names)}, scenario):
                console.print(f"{self.folder.path}: no phase was finished; begun anew with other settings")
            console.print(self.learner.described(), highlight=False)
            tell_cut_texts(console, self.backbone, [*self.train.texts, *self.test.texts])
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
                    f"{name}, phase {phase + 1} of {len(sizes)}: {entry['head']['all']:.1%} by the head, "
                    f"nearest mean {entry['ncm']['all']:.1%}, {entry['exemplars']} exemplars, {entry['seconds']:.0f} s"
                )

    def _trunk(self, split: str, data: ImageText) -> HiddenOf:
        """Return hidden tokens of a split; where scores never change, the same pass finds those of what is stored.

        Where the learner sees kept tokens only, these are chosen by the backbone as it is before any tuning.
        """
        tokens, rows, pruned = tokens_of(self.backbone, data), np.arange(len(data)), self.config.prunes
        if not self.config.loop.keep_hidden:
            return LiveHidden(self.backbone, tokens)
        advance = self._progress.stage(f"hidden tokens of {split}", len(data))
        masking, scores = self.bound.masking if self.bound is not None else None, None
        if masking is not None and masking.is_fixed and (pruned or split == "train"):
            scorer = str(self.config.recipe.scorer)
            states, scores = kept_and_scored(self._keys[split], masking, tokens, rows, advance, scorer=scorer)
        else:
            compute = functools.partial(embedded, self.backbone, tokens, rows, advance)
            states = Hidden.of(kept_or_computed(self._keys[split], lambda: compute().tensors()))
        hidden = KeptHidden(states, self._accelerator.device)
        if pruned:
            assert self.bound is not None  # the configuration refuses a recipe that keeps all tokens
            if scores is None:
                advance = self._progress.stage(f"scores of {split}", len(data))
                scores = scored(self.bound.masking, tokens, hidden, rows, advance)
            hidden = KeptHidden(self.bound.pruned(states, scores), self._accelerator.device)
        if split == "train" and masking is not None:
            of_hidden = self.config.recipe.level == "hidden" or (masking.scorer is not None and scores is None)
            self._known = Known(hidden if of_hidden else None, scores)
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
            if self.bound.is_trained or self.config.recipe.level == "features":
                return  # it is made with the first exemplars, by the backbone that they are of
            create_memory(self.config, self.bound, self.folder.memory)
        self._exemplars = Exemplars(self.config, self.bound, self.folder)
        self._exemplars.follow(done)
        expected = self.folder.metrics()[-1]["exemplars"] if done else 0
        if len(self._exemplars.slots) < expected and self.folder.note(done, "stored") is None:
            warnings.warn(
                f"{self.folder.memory}: phase {done} ended with {expected} exemplars, {len(self._exemplars.slots)} are "
                "left; the run goes on with these, to other numbers",
                DataWarning,
                stacklevel=2,
            )

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
                self.learner.load(learnt_classes(self.config, self.scenario, phase - 1), before)
            if self.config.tunes(phase):
                self._train(phase)
            else:
                self._progress.learnt(self.config.loop.epochs * len(self.scenario.rows(self.train.labels, phase)))
            self.folder.save_checkpoint(phase, self.learner.tuned())
        else:
            self.learner.load(learnt_classes(self.config, self.scenario, phase), checkpoint)
        self._learnt = phase
        rows = self.scenario.rows(self.train.labels, phase)
        features, tested = features_of(self.learner, self._hidden["train"], rows), self._tested(phase)
        means = self._learnt_means(phase, rows, features) if self.bound is None else self._store(phase, rows, features)
        head = self._fit_head(phase, Labelled(features.numpy(), self.train.labels[rows]))
        entry = self._measure(phase, means, head, tested)
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
        config, labels = self.config, self.train.labels[rows]
        ranked = features
        if config.ranked_form == "stored":
            tokens = stored_form(self.bound, self.train, self._known)
            ranked = features_of(self.learner, LiveHidden(self.backbone, tokens), rows)
        by_difficulty = config.selection.name in {"loss", "entropy"}
        hardness = self.learner.difficulty(ranked, torch.from_numpy(labels)) if by_difficulty else {}
        ranks = rank_examples(
            ranked.numpy(),
            labels,
            selection=config.selection,
            seed=[config.seed, phase],
            values=hardness.get(config.selection.name),
        )
        if self._exemplars is None:
            advance = self._stage(phase, "exemplars to train the codec", len(rows))
            samples = self._made(rows, np.zeros(len(rows)), features, advance)
            create_memory(config, self.bound, self.folder.memory, samples)
            self._exemplars = Exemplars(config, self.bound, self.folder)
        with ExemplarMemory.open(self.folder.memory, mode="r+") as memory:
            self.bound.check(memory)
            charge(memory, self._charges)
            if config.quota == "frequency":
                seen, counts = np.unique(labels, return_counts=True)
                memory.weigh(dict(zip(seen.tolist(), counts.tolist(), strict=True)))
            advance = self._stage(phase, "making exemplars", len(rows))

            def make(chosen: NDArray[np.int64], priorities: NDArray[np.float64]) -> list[Exemplar]:
                return self._made(chosen, priorities, features[np.searchsorted(rows, chosen)], advance)

            stored = store_phase(self.folder, phase, memory, make, rows=rows, ranks=ranks, labels=labels)
        self._exemplars.update(phase, stored.slots, self._stage(phase, "exemplars as they are seen", len(stored.slots)))
        slots, held = self._exemplars.slots, torch.from_numpy(self._exemplars.labels)
        return ClassMeans.of(self._exemplars.features(self.learner, slots), held)

    def _made(
        self, rows: NDArray[np.int64], priorities: NDArray[np.float64], features: Tensor, advance: Advance
    ) -> list[Exemplar]:
        """Make exemplars of rows of the data with these features; no block is run again that was run for them."""
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
                extras=self._extras(features[start : start + _ROWS]),
                features=features[start : start + _ROWS].numpy() if self.config.recipe.level == "features" else None,
                **self._known.of(chosen),
            )
            advance(len(chosen))
        return made

    def _extras(self, features: Tensor) -> dict[str, NDArray[np.float32]]:
        """Return features (N, D) and logits (N, C), as the recipe asks; NaN for classes that are not learnt."""
        extras = {"features": features.numpy()}
        if "logits" in self.config.recipe.extras:
            logits = np.full((len(features), len(self.train.class_names)), np.nan, np.float32)
            logits[:, list(self.learner.classes)] = self.learner.logits(features).detach().numpy()
            extras["logits"] = logits
        return {name: extras[name] for name in self.config.recipe.extras}

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

    def _tested(self, phase: int) -> dict[str, Labelled]:
        """Return the test examples of the classes seen: by "" as they are, by "_stored" as they would be stored."""
        rows = np.flatnonzero(np.isin(self.test.labels, self.scenario.seen(phase)))
        self._stage(phase, "measuring", len(rows))
        seen: dict[str, HiddenOf] = {"": self._hidden["test"]}
        if self.bound is not None and self.config.loop.test_stored_form:
            seen["_stored"] = LiveHidden(self.backbone, stored_form(self.bound, self.test))
        labels = self.test.labels[rows]
        return {
            name: Labelled(features_of(self.learner, hidden_of, rows).numpy(), labels)
            for name, hidden_of in seen.items()
        }

    def _fit_head(self, phase: int, new: Labelled) -> Head | None:
        """Fit the head to the exemplars that are held now, all as they are stored, or add up all new examples.

        Where nothing is stored, new examples are all that there is. None for the linear head, which was trained.
        """
        part = self.config.method.head
        if part.name == "linear":
            return None
        self._stage(phase, f"fitting the head ({part.name})", len(new.labels))
        if self._exemplars is None or not len(self._exemplars.slots) or HEADS[part.name].keeps_sums:
            return fit_head(self.folder, phase, part, new)
        return fit_head(self.folder, phase, part, self._exemplars.labelled(self.learner))

    def _measure(
        self, phase: int, means: ClassMeans, head: Head | None, tested: Mapping[str, Labelled]
    ) -> dict[str, Any]:
        seen = self.scenario.seen(phase)
        measured = measured_after(self.learner, means, head, tested, self.scenario, phase)
        return {
            "phase": phase,
            "classes": list(self.scenario.phases[phase]),
            **measured,
            "exemplars": len(self._exemplars.slots) if self._exemplars is not None else 0,
            "disk_bytes": folder_bytes(self.folder.memory) if self._exemplars is not None else 0,
            "mean_bytes": 0 if self._exemplars is not None else means.means.numel() * means.means.element_size(),
            **{f"{name}_bytes": nbytes for name, nbytes in self._charges.items()},
            "classes_without_exemplars": sorted(set(seen) - set(means.classes)),
        }
