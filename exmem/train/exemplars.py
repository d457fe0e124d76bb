"""What a learner replays: exemplars as hidden tokens."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from exmem.backbones import Backbone, Hidden
from exmem.errors import SchemaError
from exmem.memory import ExemplarMemory
from exmem.recipes import BoundRecipe
from exmem.replay import SAMPLERS, Pipeline, Sampler, replay_loader
from exmem.replay.augment import AUGMENTATIONS, Compose
from exmem.tokens.tensors import TensorBatch
from exmem.train.combinations import ON_HIDDEN
from exmem.train.config import TrainConfig
from exmem.train.folder import RunFolder
from exmem.train.hidden import Advance, embedded, features_of
from exmem.train.learner import Learner
from exmem.train.methods import Labelled
from exmem.train.ranks import ALONE, Ranks

__all__ = ["Exemplars", "Replayed", "keeps_hidden"]

_ROWS = 256
_NONE = np.zeros(0, np.int64)


def keeps_hidden(config: TrainConfig, backbone: Backbone) -> bool:
    """Say whether hidden tokens of exemplars are kept; SchemaError if texts are to be exchanged in those that mix."""
    names = {part.name for part in config.loop.augment}
    kept = config.loop.keep_hidden and names <= ON_HIDDEN
    if kept and "text_exchange" in names and not backbone.text_is_separate:
        raise SchemaError("text_exchange needs loop.keep_hidden=False with frozen blocks that mix image and text")
    return kept


@dataclasses.dataclass(frozen=True, eq=False)
class Replayed:
    """A batch of exemplars: hidden tokens, classes (B,), and stored logits (B, C) by class where they are replayed."""

    hidden: Hidden
    labels: Tensor
    logits: Tensor | None

    def select(self, rows: Tensor) -> "Replayed":
        """Return some rows."""
        logits = None if self.logits is None else self.logits[rows]
        return Replayed(self.hidden.select(rows), self.labels[rows], logits)


class Exemplars:
    """The exemplars of a run's memory, by slot.

    Their hidden tokens are kept, one file a phase, unless the configuration or an augmentation asks for pixels at each
    step. Where they are kept, payloads are not read again: what is damaged later is noticed only by `exmem check`.
    """

    def __init__(self, config: TrainConfig, bound: BoundRecipe, folder: RunFolder, ranks: Ranks = ALONE) -> None:
        backbone = bound.backbone
        assert isinstance(backbone, Backbone), "what trains has one"
        self._kept = keeps_hidden(config, backbone)
        self._config, self._backbone, self._folder, self._ranks = config, backbone, folder, ranks
        self._augment = _augmentation(config, bound)
        self._pipeline, self._level = Pipeline(bound.restore), bound.recipe.level
        self._hidden: dict[int, Hidden] = {}  # phase -> hidden tokens of what it added
        self._place_of: dict[int, tuple[int, int]] = {}  # slot -> phase, row
        self._logits: dict[int, Tensor] = {}  # by slot
        self._memory = ExemplarMemory.open(folder.memory)

    @property
    def _device(self) -> torch.device:
        return self._backbone.pixel_mean.device

    @property
    def slots(self) -> NDArray[np.int64]:
        """Slots that are held."""
        return self._memory.slots

    @property
    def labels(self) -> NDArray[np.int64]:
        """Their classes."""
        return self._memory.labels

    def update(self, phase: int, slots: NDArray[np.int64], advance: Advance | None = None) -> None:
        """Take in the exemplars that a phase added, and forget those that were evicted."""
        self._memory.refresh()
        self._pipeline.follow(self._memory)
        self._logits.clear()  # they may be changed in place
        if not self._kept or self._level == "features":
            return
        held = set(self.slots.tolist())
        self._place_of = {slot: place for slot, place in self._place_of.items() if slot in held}
        used = {earlier for earlier, _ in self._place_of.values()}
        self._hidden = {earlier: hidden for earlier, hidden in self._hidden.items() if earlier in used}
        self._take(phase, slots[np.isin(slots, self.slots)], advance)

    def follow(self, phases: int) -> None:
        """Take in what so many phases added, as the run's folder notes it."""
        for phase in range(phases):
            noted = self._folder.note(phase, "stored")
            slots = np.array((noted or {}).get("slots") or [], np.int64)
            self.update(phase, slots[slots >= 0])

    def _take(self, phase: int, slots: NDArray[np.int64], advance: Advance | None) -> None:
        """Embed exemplars of a phase, or take them from the file in which they were kept."""
        file = self._folder.hidden(phase)
        if not len(slots):
            return
        tensors = load_file(file) if file.exists() else {}
        known = tensors.pop("slots", torch.zeros(0, dtype=torch.int64)).tolist()
        if not self._ranks.every(set(slots.tolist()) <= set(known)):
            known = slots.tolist()
            hidden = embedded(self._backbone, self._tokens, slots, advance, ranks=self._ranks)
            tensors = {"slots": torch.tensor(known), **hidden.tensors()}
            self._ranks.first(lambda: self._folder.save_tensors(file, tensors))
        else:
            hidden = Hidden.of(tensors)
        self._hidden[phase] = hidden
        held = set(self.slots.tolist())
        self._place_of.update({slot: (phase, row) for row, slot in enumerate(known) if slot in held})

    def hidden(self, slots: NDArray[np.int64]) -> Hidden:
        """Return hidden tokens by slot, float32, on the backbone's device."""
        if not self._kept:
            return self._backbone.embed(self._tokens(slots))
        places = [self._place_of[slot] for slot in slots.tolist()]
        phases = sorted({phase for phase, _ in places})
        rows = {phase: [row for of, row in places if of == phase] for phase in phases}
        together = Hidden.cat([self._hidden[phase].select(torch.tensor(rows[phase])) for phase in phases])
        by_phase = sorted(range(len(places)), key=lambda index: places[index][0])  # stable: the order of `together`
        order = torch.empty(len(places), dtype=torch.int64)
        order[torch.tensor(by_phase)] = torch.arange(len(places))
        return together.select(order).to(self._device).to(torch.float32)

    def features(self, learner: Learner, slots: NDArray[np.int64]) -> Tensor:
        """Return what the classifiers see of exemplars, (N, D), by slot: stored ones as they are."""
        if self._level != "features":
            return features_of(learner, self.hidden, slots, ranks=self._ranks)
        parts = [self._tokens(slots[start : start + _ROWS]) for start in range(0, len(slots), _ROWS)]
        none = torch.zeros(0, self._backbone.feature_dim)
        return torch.cat([none, *(part.tokens["features"].values[:, 0] for part in parts)])

    def labelled(self, learner: Learner) -> Labelled:
        """Return features and classes of all that are held."""
        return Labelled(self.features(learner, self.slots).numpy(), self.labels)

    def _stored_logits(self, slots: NDArray[np.int64]) -> Tensor | None:
        """Return stored logits by slot, which are read once; None where the loss does not ask for them."""
        if not self._config.method.dark_weight:
            return None
        late = np.array([slot for slot in np.unique(slots).tolist() if slot not in self._logits], np.int64)
        for start in range(0, len(late), _ROWS):
            chosen = late[start : start + _ROWS]
            logits = torch.from_numpy(self._memory.read(chosen).extras["logits"])
            self._logits.update(zip(chosen.tolist(), logits, strict=True))
        return torch.stack([self._logits[slot] for slot in slots.tolist()]).to(self._device)

    def held_back(self, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
        """Choose a share of the exemplars of each class that has two or more, at least one of each: their slots."""
        labels, slots = self.labels, self.slots
        classes = [slots[labels == label] for label in np.unique(labels)]
        chosen = [rng.permutation(own)[: max(1, round(share * len(own)))] for own in classes if len(own) > 1]
        return np.sort(np.concatenate([np.zeros(0, np.int64), *chosen]))

    def draw(self, batches: int, *, number: int, but: NDArray[np.int64] = _NONE) -> Iterator[Replayed]:
        """Draw batches of as many as are replayed, times the candidates; the number of the pass decides which.

        Some slots may be left out where hidden tokens are kept.
        """
        loop, seed = self._config.loop, self._config.seed
        size = loop.replay_batch * loop.candidates
        if not self._kept:
            loader = replay_loader(
                self._folder.memory,
                batch=size,
                sampler=loop.sampler,
                length=batches * size,
                seed=seed,
                augment=self._augment,
                num_workers=loop.num_workers,
            )
            loader.set_epoch(number)
            for batch in loader:
                logits = batch.extras["logits"].to(self._device) if self._config.method.dark_weight else None
                yield Replayed(self._backbone.embed(batch), batch.labels, logits)
            return
        generator = torch.Generator().manual_seed(int(np.random.default_rng([seed, number, 1]).integers(2**62)))
        augment = functools.partial(self._augment, generator=generator)
        sampler: Sampler = SAMPLERS[loop.sampler]
        drawn = ~np.isin(self.slots, but)
        slots = sampler(self.slots[drawn], self.labels[drawn], length=batches * size, seed=seed, number=number)
        label_of = dict(zip(self.slots.tolist(), self.labels.tolist(), strict=True))
        for start in range(0, len(slots), size):
            chosen = slots[start : start + size]
            labels = torch.tensor([label_of[slot] for slot in chosen.tolist()])
            hidden = self.hidden(chosen)
            if loop.augment:
                hidden = hidden.augmented(augment, labels.to(hidden.prefix.device))
            yield Replayed(hidden, labels, self._stored_logits(chosen))

    def _tokens(self, slots: NDArray[np.int64]) -> TensorBatch:
        return self._pipeline(TensorBatch.from_numpy(self._memory.read(slots)))


def _augmentation(config: TrainConfig, bound: BoundRecipe) -> Compose:
    """Make the augmentations; a flip is told where the patches of each image modality stand."""
    frame = bound.restore.frame
    grids = {} if frame is None else {"image": frame.grid}
    if "thumbnail" in bound.schema.modalities:
        grids["thumbnail"] = (1, 1)
    given: dict[str, Any] = {"grids": grids}
    augmentations = []
    for part in config.loop.augment:
        needed = {name: value for name, value in given.items() if name in AUGMENTATIONS.options(part.name)}
        augmentations.append(AUGMENTATIONS.make(part.name, **{**needed, **part.kwargs}))
    return Compose(augmentations)
