"""The reference trainer: phase after phase, train, store exemplars, measure; a killed run goes on where it was."""

import contextlib
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from exmem.backbones import Backbone
from exmem.backbones.blocks import running_blocks
from exmem.errors import DataError, DataWarning
from exmem.memory import ExemplarMemory
from exmem.recipes.training import check_enough
from exmem.tokens import Exemplar
from exmem.train.batches import images_of
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
    stored_form,
)
from exmem.train.learner import ClassMeans
from exmem.train.measuring import learnt_means, measured_after, tracked
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
    make_learner,
    tell_cut_texts,
)
from exmem.train.phase import NewExamples, train_phase
from exmem.train.progress import RunProgress
from exmem.train.ranks import Ranks
from exmem.train.reading import flat
from exmem.train.scenario import Scenario, learnt_classes
from exmem.train.scenario_names import scenario_document
from exmem.train.storing import complete_logits, rank_examples, store_phase
from exmem.train.trunk import Trunk

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
    ranks : Ranks, optional
        The processes of the run, of which this is one: each computes a share of every step, the first one writes.
        Those that `accelerate launch` or `torchrun` started when left out, or else this one alone.

    Raises
    ------
    SchemaError
        If the configuration does not fit the data or the backbone.
    BudgetTooSmallError
        If not even an empty memory of the recipe fits the budget, or what the head keeps does not.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: TrainConfig,
        backbone: Backbone,
        *,
        train: ImageText,
        test: ImageText,
        ranks: Ranks | None = None,
    ) -> None:
        self.folder, self.config, self.train, self.test = folder, config, train, test
        self.scenario = Scenario.of(config.data, train.class_names)
        key = backbone_key(backbone)
        self._keys = {"train": f"{train.key()}-{key}", "test": f"{test.key()}-{key}"}
        self.ranks = ranks = Ranks.joined() if ranks is None else ranks
        self.backbone = backbone.to(ranks.device)
        torch.manual_seed(config.seed)
        self._charges = charged_bytes(config, self.backbone, len(train.class_names))
        self.learner = make_learner(config, self.backbone)
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
        names = self.train.class_names
        data = {**self._keys, "classes": list(names)}
        scenario = scenario_document(self.scenario.named(names), self.config.data.scenario)
        with contextlib.ExitStack() as held:
            self.ranks.first(lambda: held.enter_context(self.folder.locked()))
            if self.ranks.first(lambda: self.folder.claim(self.config, data, scenario)):
                console.print(f"{self.folder.path}: no phase was finished; begun anew with other settings")
            console.print(self.learner.described(tuned=self.config.tuned_phases != "none"), highlight=False)
            tell_cut_texts(console, self.backbone, [*self.train.texts, *self.test.texts])
            self.ranks.begin_tracking({name: str(value) for name, value in flat(self.config.to_json())})
            done = self.folder.metrics()
            if len(done) < len(self.scenario):
                self._go_on(console, len(done))
            self.ranks.end_tracking()
            return self.folder.metrics()

    def _go_on(self, console: Console, done: int) -> None:
        sizes = [len(self._rows(phase)) for phase in range(len(self.scenario))]
        epochs, name = self.config.loop.epochs, self.config.recipe.name
        with RunProgress(console, name=name, total=epochs * sum(sizes), done=epochs * sum(sizes[:done])) as progress:
            self._progress = progress
            with running_blocks(dtype=self.config.loop.dtype):
                trunk = Trunk(self.config, self.backbone, self.bound, self.ranks, progress)
                trained, self._known = trunk.train(self.train, self._keys["train"])
                self._hidden = {"train": trained, "test": trunk.test(self.test, self._keys["test"])}
                self.ranks.first(lambda: self._make_memory(done))
                self._open_memory(done)
            for phase in range(done, len(self.scenario)):
                entry = self._phase(phase)
                self.ranks.track(tracked(entry), step=phase)
                progress.line(
                    f"{name}, phase {phase + 1} of {len(sizes)}: {entry['head']['all']:.1%} by the head, "
                    f"nearest mean {entry['ncm']['all']:.1%}, {entry['exemplars']} exemplars, {entry['seconds']:.0f} s"
                )

    def _rows(self, phase: int) -> NDArray[np.int64]:
        """Return the examples that a phase learns from."""
        if not self.config.loop.joint:
            return self.scenario.rows(self.train.labels, phase)
        return np.flatnonzero(np.isin(self.train.labels, self.scenario.seen(phase)))

    def _make_memory(self, done: int) -> None:
        if self.bound is None or (self.folder.memory / "zarr.json").exists():
            return
        if done:
            raise DataError(
                f"{self.folder.memory}: the memory of this run is gone, and {done} phases are finished with it; "
                "put it back, or use a new run folder"
            )
        if not (self.bound.is_trained or self.config.recipe.level == "features"):
            create_memory(self.config, self.bound, self.folder.memory)

    def _open_memory(self, done: int) -> None:
        """Read the memory, if it is there yet: one of a trained codec is made with the first exemplars."""
        if self.bound is None or not (self.folder.memory / "zarr.json").exists():
            return
        self._exemplars = Exemplars(self.config, self.bound, self.folder, self.ranks)
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
        rows = self._rows(phase)
        with running_blocks(dtype=self.config.loop.dtype):
            losses = self._learn(phase)
            features, tested = self._features(self._hidden["train"], rows), self._tested(phase)
            held = None if self.bound is None else self._store(phase, rows, features)
        new = Labelled(features.numpy(), self.train.labels[rows])

        def finish() -> dict[str, Any]:
            entry = self._measure(phase, new, held, tested)
            entry |= {"losses": losses, "seconds": round(time.monotonic() - began, 1)}
            self.folder.add_metrics(entry)
            return entry

        return self.ranks.first(finish)

    def _learn(self, phase: int) -> list[float]:
        """Train a phase, or take what was learnt in it from its checkpoint; return the mean loss of each epoch."""
        checkpoint = self.ranks.first(lambda: self.folder.checkpoint(phase))
        if checkpoint is not None:
            self.learner.load(learnt_classes(self.config, self.scenario, phase), checkpoint)
        else:
            if phase and self._learnt != phase - 1:
                before = self.ranks.first(lambda: self.folder.checkpoint(phase - 1))
                if before is None:
                    raise DataError(
                        f"{self.folder.path}: the checkpoint of phase {phase} is gone; use a new run folder"
                    )
                self.learner.load(learnt_classes(self.config, self.scenario, phase - 1), before)
            losses = self._train(phase) if self.config.tunes(phase) else []
            if not losses:
                self._progress.learnt(self.config.loop.epochs * len(self._rows(phase)))
            self.ranks.first(lambda: self.folder.save_checkpoint(phase, self.learner.tuned(), losses))
        self._learnt = phase
        return self.folder.losses(phase)

    def _train(self, phase: int) -> list[float]:
        joint = self.config.loop.joint
        rows, teacher = self._rows(phase), self.learner.tuned() if phase and not joint else {}
        self.learner.grow(self.scenario.phases[phase])
        new = NewExamples(rows, self.train.labels, self._hidden["train"], self._stored_form(rows))
        stage = self._stage(phase, "learning", len(rows) * self.config.loop.epochs)

        def report(count: int) -> None:
            stage(count)
            self._progress.learnt(count)

        return train_phase(
            self.learner,
            self.config,
            new,
            phase=phase,
            teacher=teacher,
            held=self._exemplars if self._exemplars is not None and len(self._exemplars.slots) else None,
            ranks=self.ranks,
            report=report,
        )

    def _features(self, hidden_of: HiddenOf, rows: NDArray[np.int64]) -> Tensor:
        return features_of(self.learner, hidden_of, rows, ranks=self.ranks)

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
        made = embedded(self.backbone, stored_form(bound, self.train, known), rows, advance, ranks=self.ranks)
        return KeptHidden(made, self.ranks.device, rows)

    def _store(self, phase: int, rows: NDArray[np.int64], features: Tensor) -> Labelled:
        """Store the best of the examples of a phase; return what the learner makes of all that are held."""
        assert self.bound is not None
        ranked = features
        if self.config.ranked_form == "stored":
            ranked = self._features(LiveHidden(self.backbone, stored_form(self.bound, self.train, self._known)), rows)
        slots = self.ranks.first(lambda: self._write(phase, rows, features, ranked))
        if self._exemplars is None:
            self._exemplars = Exemplars(self.config, self.bound, self.folder, self.ranks)
        self._exemplars.update(phase, slots, self._stage(phase, "exemplars as they are seen", len(slots)))
        before, held = self._exemplars.slots, self._exemplars.labelled(self.learner)
        if not self.config.method.dark_update:
            return held
        known = torch.from_numpy(held.features)
        self.ranks.first(lambda: complete_logits(self.folder, self._extras(known)["logits"]))
        self._exemplars.update(phase, slots)
        left = np.isin(before, self._exemplars.slots)
        return Labelled(held.features[left], held.labels[left])

    def _write(self, phase: int, rows: NDArray[np.int64], features: Tensor, ranked: Tensor) -> NDArray[np.int64]:
        """Store the best of the examples of a phase, and return their slots."""
        assert self.bound is not None
        config, labels = self.config, self.train.labels[rows]
        by_difficulty = config.selection.name in {"loss", "entropy"}
        hardness = self.learner.difficulty(ranked, torch.from_numpy(labels)) if by_difficulty else {}
        ranks = rank_examples(
            ranked.numpy(),
            labels,
            selection=config.selection,
            seed=[config.seed, phase],
            values=hardness.get(config.selection.name),
        )
        if not (self.folder.memory / "zarr.json").exists():
            advance = self._stage(phase, "exemplars to train the codec", len(rows))
            samples = self._made(rows, np.zeros(len(rows)), features, advance)
            create_memory(config, self.bound, self.folder.memory, samples)
        with ExemplarMemory.open(self.folder.memory, mode="r+") as memory:
            self.bound.check(memory)
            charge(memory, self._charges)
            if config.quota == "frequency":
                seen, counts = np.unique(labels, return_counts=True)
                memory.weigh(dict(zip(seen.tolist(), counts.tolist(), strict=True)))
            advance = self._stage(phase, "making exemplars", len(rows))

            def make(chosen: NDArray[np.int64], priorities: NDArray[np.float64]) -> list[Exemplar]:
                return self._made(chosen, priorities, features[np.searchsorted(rows, chosen)], advance)

            return store_phase(self.folder, phase, memory, make, rows=rows, ranks=ranks, labels=labels).slots

    def _made(
        self, rows: NDArray[np.int64], priorities: NDArray[np.float64], features: Tensor, advance: Advance
    ) -> list[Exemplar]:
        """Make exemplars of rows of the data with these features; no block is run again that was run for them."""
        assert self.bound is not None
        made: list[Exemplar] = []
        for start in range(0, len(rows), _ROWS):
            chosen = rows[start : start + _ROWS]
            texts, labels = [self.train.texts[row] for row in chosen.tolist()], self.train.labels[chosen]
            images = images_of(self.backbone, self.train, chosen)
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

    def _tested(self, phase: int) -> dict[str, Labelled]:
        """Return the test examples of the classes seen: by "" as they are, by "_stored" as they would be stored."""
        rows = np.flatnonzero(np.isin(self.test.labels, self.scenario.seen(phase)))
        self._stage(phase, "measuring", len(rows))
        seen: dict[str, HiddenOf] = {"": self._hidden["test"]}
        if self.bound is not None and self.config.loop.test_stored_form:
            seen["_stored"] = LiveHidden(self.backbone, stored_form(self.bound, self.test))
        labels = self.test.labels[rows]
        return {name: Labelled(self._features(hidden_of, rows).numpy(), labels) for name, hidden_of in seen.items()}

    def _fit_head(self, phase: int, new: Labelled, held: Labelled | None) -> Head | None:
        """Fit the head to the exemplars that are held now, all as they are stored, or add up all new examples.

        Where nothing is stored, new examples are all that there is. None for a head that was trained.
        """
        part = self.config.method.head
        if self.config.method.trains_head:
            return None
        self._stage(phase, f"fitting the head ({part.name})", len(new.labels))
        refitted = held is not None and len(held.labels) and not HEADS[part.name].keeps_sums
        return fit_head(self.folder, phase, part, held if refitted and held is not None else new)

    def _measure(
        self, phase: int, new: Labelled, held: Labelled | None, tested: Mapping[str, Labelled]
    ) -> dict[str, Any]:
        """Measure by new examples, exemplars that are held, and test examples, all of them by their features."""
        seen = self.scenario.seen(phase)
        if held is None:
            before = () if self.config.loop.joint or not phase else self.scenario.seen(phase - 1)
            means = learnt_means(self.folder, new, before)
        else:
            means = ClassMeans.of(torch.from_numpy(held.features), torch.from_numpy(held.labels))
        head = self._fit_head(phase, new, held)
        measured = measured_after(self.learner, means, head, tested, self.scenario, phase)
        return {
            "phase": phase,
            "classes": list(self.scenario.phases[phase]),
            **measured,
            "exemplars": 0 if held is None else len(held.labels),
            "disk_bytes": 0 if held is None else folder_bytes(self.folder.memory),
            "mean_bytes": 0 if held is not None else means.means.numel() * means.means.element_size(),
            **{f"{name}_bytes": nbytes for name, nbytes in self._charges.items()},
            "classes_without_exemplars": sorted(set(seen) - set(means.classes)),
        }
