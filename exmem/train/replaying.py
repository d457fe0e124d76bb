"""Exemplars as streams: what a learner replays."""

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from exmem.backbones import Backbone, Hidden
from exmem.errors import SchemaError
from exmem.recipes import Recipe
from exmem.replay import SAMPLERS, ReplayDataset, replay_loader
from exmem.tokens.tensors import TensorBatch
from exmem.train.config import TrainConfig
from exmem.train.features import Advance, embed_rows, load_or_embed, load_stream
from exmem.train.forms import Replayed
from exmem.train.making import ON_STREAMS, make_augmentation

__all__ = ["Exemplars"]


class Exemplars:
    """The exemplars of a memory, by slot, as streams of a backbone.

    Parameters
    ----------
    config : TrainConfig
        Fill, sampler, augmentations and whether streams are kept.
    backbone : Backbone
        The backbone.
    recipe : Recipe
        How exemplars were made.
    memory : Path
        Folder of the memory.
    features : Path
        Folder where streams are kept.

    Raises
    ------
    SchemaError
        If texts are to be exchanged in streams that hold image and text no longer apart.
    """

    def __init__(
        self, config: TrainConfig, backbone: Backbone, recipe: Recipe, *, memory: Path, features: Path
    ) -> None:
        self._cached = config.cache_features and ON_STREAMS.issuperset(config.augmentations)
        if "text_exchange" in config.augmentations and self._cached and not backbone.text_is_separate:
            raise SchemaError("text_exchange needs cache_features=False with frozen blocks that mix image and text")
        self._config, self._backbone = config, backbone
        self._augmentation = make_augmentation(config, backbone, [*recipe.schema().modalities])
        self._replayed = Replayed(backbone, recipe, fill=config.fill, augmentation=self._augmentation)
        self._path, self._features = memory, features
        self._streams: dict[int, Hidden] = {}  # phase -> streams of what it added
        self._place_of: dict[int, tuple[int, int]] = {}
        self._dataset = ReplayDataset(memory)
        self._replayed.know(self._dataset.batches)

    @property
    def slots(self) -> NDArray[np.int64]:
        """Slots held."""
        return self._dataset.memory.slots

    @property
    def labels(self) -> NDArray[np.int64]:
        """Their classes."""
        return self._dataset.memory.labels

    def update(self, phase: int, first_slot: int, advance: Advance | None = None) -> None:
        """See what was committed, and embed what is new.

        Parameters
        ----------
        phase : int
            Phase that was stored.
        first_slot : int
            Its first slot: older ones were embedded in earlier phases, so that a continued run embeds the same batches.
        advance : callable, optional
            Told how many exemplars were embedded.
        """
        self._dataset.memory.refresh()
        self._replayed.know(self._dataset.batches)
        new = self.slots[self.slots >= first_slot]
        if not self._cached:
            return
        held = set(self.slots.tolist())
        self._place_of = {slot: place for slot, place in self._place_of.items() if slot in held}
        used = {earlier for earlier, _ in self._place_of.values()}
        self._streams = {earlier: stream for earlier, stream in self._streams.items() if earlier in used}
        if len(new):
            self._take(
                phase,
                new,
                load_or_embed(self._file(phase), lambda: embed_rows(self._backbone, self._tokens, new, advance)),
            )

    def restore(self, phase: int, slots: NDArray[np.int64]) -> None:
        """Take the streams of an earlier phase from where they were kept.

        Parameters
        ----------
        phase : int
            The phase.
        slots : ndarray, shape (M,), int64
            Slots that it added, evicted ones too.
        """
        if not self._cached:
            return
        held, file = self.slots, self._file(phase)
        if not file.exists():  # it was deleted: computed again, without what was evicted since
            slots = slots[np.isin(slots, held)]
        if np.isin(slots, held).any():
            stream = load_stream(file) if file.exists() else embed_rows(self._backbone, self._tokens, slots)
            self._take(phase, slots, stream)

    def streams(self, slots: NDArray[np.int64]) -> Hidden:
        """Return streams by slot.

        Parameters
        ----------
        slots : ndarray, shape (B,), int64
            Slots.

        Returns
        -------
        Hidden
            Their streams, float32, on the backbone's device.
        """
        if not self._cached:
            return self._backbone.embed(self._tokens(slots))
        places = [self._place_of[slot] for slot in slots.tolist()]
        parts = sorted({part for part, _ in places})
        rows = {part: [row for of, row in places if of == part] for part in parts}
        found = Hidden.cat([self._streams[part].select(torch.tensor(rows[part])) for part in parts])
        grouped = sorted(range(len(places)), key=lambda index: places[index][0])
        order = torch.empty(len(places), dtype=torch.int64)
        order[torch.tensor(grouped)] = torch.arange(len(places))
        return found.select(order).to(self._backbone.pixel_mean.device).to(torch.float32)

    def draw(self, number: int, *, seed: int, epoch: int) -> Iterator[tuple[Hidden, torch.Tensor]]:
        """Draw batches of exemplars.

        Parameters
        ----------
        number : int
            Batches.
        seed : int
            Seed.
        epoch : int
            Pass; other passes draw others.

        Yields
        ------
        stream : Hidden
            A batch.
        labels : Tensor, shape (B,), int64
            Classes.
        """
        config, size = self._config, self._config.replay_batch
        generator = torch.Generator().manual_seed(int(np.random.default_rng([seed, epoch, 1]).integers(2**62)))
        if not self._cached:
            loader = replay_loader(
                self._path,
                batch=size,
                sampler=config.sampler,
                length=number * size,
                num_workers=config.num_workers,
                seed=seed,
            )
            loader.set_epoch(epoch)
            for batch in loader:
                yield self._backbone.embed(self._replayed(batch, generator)), batch.labels
            return
        sampler = SAMPLERS[config.sampler](self.slots, self.labels, length=number * size, seed=seed)
        sampler.set_epoch(epoch)
        slots = np.fromiter(sampler, np.int64)
        label_of = dict(zip(self.slots.tolist(), self.labels.tolist(), strict=True))
        for start in range(0, len(slots), size):
            chosen = slots[start : start + size]
            labels = torch.tensor([label_of[slot] for slot in chosen.tolist()])
            yield self._augmented(self.streams(chosen), labels, generator), labels

    def _file(self, phase: int) -> Path:
        return self._features / f"exemplars-{phase}.safetensors"

    def _take(self, phase: int, slots: NDArray[np.int64], stream: Hidden) -> None:
        held = set(self.slots.tolist())
        self._streams[phase] = stream
        self._place_of.update({slot: (phase, row) for row, slot in enumerate(slots.tolist()) if slot in held})

    def _tokens(self, slots: NDArray[np.int64]) -> TensorBatch:
        return self._replayed(self._dataset.__getitems__(slots.tolist()))

    def _augmented(self, stream: Hidden, labels: torch.Tensor, generator: torch.Generator) -> Hidden:
        augmentation = functools.partial(self._augmentation, generator=generator)
        return stream.augmented(augmentation, labels)
