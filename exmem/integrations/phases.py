"""One phase of anybody's training: old exemplars beside its batches, and its examples into the memory at its end."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import distributed
from torch.utils.data import DataLoader

from exmem.errors import SchemaError
from exmem.integrations.collating import ReplayCollate, RowForm
from exmem.integrations.memory_rows import MemoryRows
from exmem.memory import EncodedExemplars, ExemplarMemory
from exmem.recipes import BoundRecipe, PlainImages, Recipe, Restorer
from exmem.replay import SAMPLERS
from exmem.tokens import Exemplar
from exmem.tokens.checks import choice, shown, whole_number

__all__ = ["PhaseReplay"]

_NOTE = "phases"  # among the memory's notes: phase -> the first slot that was free when it was stored
_FIRST_RANKS = 32  # of each class, that are made before it is asked whether they fit
Make = Callable[[list[Any], NDArray[np.float64]], list[Exemplar]]  # raw rows, priorities


class PhaseReplay:
    """Replays exemplars of a memory beside the batches of a phase, and stores examples of the phase.

    What is stored are raw examples. What is replayed goes through `transform`, as the loader's own examples did, and
    then through the loader's own collation, in its worker processes where it has any: a batch grows by `replay` rows.

    Parameters
    ----------
    memory : ExemplarMemory
        The memory, of pixels, texts or both, open for writing; empty before the first phase.
    examples : sequence of rows
        The phase's raw examples: dicts, or tuples of image and label. Images are PIL images, tensors (3, H, W), or
        arrays (H, W, 3), uint8; they are scaled and cut to the size of the memory's. Texts are str.
    phase : int
        Its number, from 0: what was stored of a phase is noted in the memory, and is not stored again.
    make : BoundRecipe or callable, optional
        Makes exemplars: of a list of rows and their priorities, shape (B,), float64. The recipe that the memory records
        when left out; that takes images and a recipe that needs no backbone.
    transform : callable, optional
        What makes an example of `loader.dataset` of a raw one; none when left out.
    replay : int
        Rows a batch; fewer where the memory holds fewer.
    columns : mapping, optional
        What `image`, `label` and `text` are called in a raw example, where it is not that (of tuples: 0 and 1).
    **options : object
        `batched` (bool): whether `transform` takes and gives a dict of lists, as `Dataset.with_transform` has it.
        `order`: which examples come first, and stay when others go; `random` within their class, or as they are
        `given`. `sampler` (balanced or uniform) and `seed` of the draws.

    Raises
    ------
    SchemaError
        If an option is unknown or out of range, the examples lack a column, or the memory holds neither pixels nor
        texts.
    """

    def __init__(
        self,
        memory: ExemplarMemory,
        examples: Any,
        *,
        phase: int,
        make: BoundRecipe | Make | None = None,
        transform: Callable[[Any], Any] | None = None,
        replay: int = 16,
        columns: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._memory, self._examples, self._phase = memory, examples, whole_number(phase, "phase")
        self._transform, self._replay = transform, whole_number(replay, "replay", least=1)
        known: dict[str, Any] = {"batched": False, "order": "random", "sampler": "balanced", "seed": 0}
        if unknown := sorted(set(options) - set(known)):
            raise SchemaError(f"PhaseReplay has no option {unknown}; it has {sorted(known)}")
        self._options = {**known, **options}
        choice(self._options["order"], "order", ("given", "random"))
        SAMPLERS[self._options["sampler"]]
        if not len(examples):
            raise SchemaError(f"expected the raw examples of phase {phase}, got none; leave a phase without any out")
        fields = _fields(memory)
        self._make = _recorded(memory) if make is None else make
        tokenizer = getattr(self._make.backbone, "tokenizer", None) if isinstance(self._make, BoundRecipe) else None
        self._form = RowForm(examples[0], fields=fields, columns=columns, tokenizer=tokenizer)
        self._collate: ReplayCollate | None = None

    def into(self, loader: "DataLoader[Any]", *, share: tuple[int, int] = (0, 1)) -> Self:
        """Let a loader replay what is committed now; nothing, where that is nothing.

        Parameters
        ----------
        loader : DataLoader
            Of this phase. Its next iteration replays.
        share : tuple of int
            (rank, ranks) of processes that train together.

        Returns
        -------
        PhaseReplay
            This one.

        Raises
        ------
        SchemaError
            If it makes no batches, or its workers run already.
        """
        if getattr(loader, "batch_sampler", None) is None:
            raise SchemaError(f"expected a DataLoader that makes batches, got {shown(loader)}; give it a batch_size")
        if getattr(loader, "_iterator", None) is not None:
            raise SchemaError(
                "the workers of this loader run already and would replay nothing; call into() before the first "
                "iteration, or make a loader for each phase"
            )
        self.out_of(loader)
        rows = MemoryRows(self._memory, fields=self._form.stored)
        if len(rows):
            self._collate = ReplayCollate(
                loader.collate_fn,
                rows,
                self._form,
                transform=self._transform,
                replay=self._replay,
                share=share,
                options=self._options,
            )
            loader.collate_fn = self._collate
        return self

    @staticmethod
    def out_of(loader: "DataLoader[Any]") -> None:
        """Let a loader replay no more.

        Parameters
        ----------
        loader : DataLoader
            Any loader; one that replays nothing stays as it is.
        """
        if isinstance(loader.collate_fn, ReplayCollate):
            loader.collate_fn = loader.collate_fn.inner

    def begin(self, batches: int) -> None:
        """Say that an iteration of the loader begins after so many batches; else torch's seed says what workers draw.

        Parameters
        ----------
        batches : int
            Batches that were taken before, over all epochs.
        """
        if self._collate is not None:
            self._collate.begin(batches)

    def add(self, *, rank: int = 0) -> NDArray[np.int64]:
        """Store examples of the phase, as many as fit, and commit; nothing where it was stored before.

        Parameters
        ----------
        rank : int
            Of processes that train together, rank 0 stores; the others wait for it.

        Returns
        -------
        ndarray, shape (N,), int64
            Slots of the exemplars stored.

        Raises
        ------
        InvalidExemplarError
            If an example does not fit the memory; nothing was changed.
        """
        slots = self._stored() if rank == 0 else np.zeros(0, np.int64)
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()
        return slots

    def _stored(self) -> NDArray[np.int64]:
        memory, notes = self._memory, dict(self._memory.attrs.get(_NOTE, {}))
        memory.commit()  # what the caller staged is no part of the phase
        committed = {phase: slot for phase, slot in notes.items() if slot < memory.next_slot}
        if str(self._phase) in committed:
            return np.zeros(0, np.int64)
        chosen = self._chosen()
        if not len(chosen):
            return np.zeros(0, np.int64)
        notes = {**committed, str(self._phase): memory.next_slot}  # it holds once slots after that one are given
        memory.annotate(attrs={**memory.attrs, _NOTE: notes})
        try:
            slots = memory.add(chosen).slots
            memory.commit()
        except BaseException:
            memory.discard()
            memory.annotate(attrs={**memory.attrs, _NOTE: committed})  # slots that others give it would make it true
            raise
        return slots[slots >= 0]

    def _chosen(self) -> EncodedExemplars:
        """Make the examples that the memory would keep, best of each class first, and no more than about twice them."""
        labels = self._form.labels(self._examples)
        ranks = np.empty(len(labels), np.int64)
        for label in np.unique(labels):
            of_class = np.flatnonzero(labels == label)
            if self._options["order"] == "random":
                rng = np.random.default_rng([self._options["seed"], self._phase, abs(int(label))])
                of_class = rng.permutation(of_class)
            ranks[of_class] = np.arange(len(of_class))
        order = np.lexsort((labels, ranks))
        count = _FIRST_RANKS * int(np.sum(ranks == 0))
        plan, candidates = None, self._memory.encode([])
        while plan is None or (len(plan.admitted) == len(candidates) < len(order)):
            coming = order[len(candidates) : count]
            made = self._exemplars([self._examples[int(row)] for row in coming], -ranks[coming].astype(np.float64))
            candidates = candidates.joined(self._memory.encode(made))
            plan, count = self._memory.plan_add(candidates), 2 * count
        return candidates.take(plan.admitted)

    def _exemplars(self, rows: list[Any], priorities: NDArray[np.float64]) -> list[Exemplar]:
        if not isinstance(self._make, BoundRecipe):
            return list(self._make(rows, priorities))
        frame = self._make.restore.frame
        images = self._form.images(rows, None if frame is None else frame.size)
        return self._make.make(images, self._form.texts(rows), [self._form.label(row) for row in rows], priorities)


def _fields(memory: ExemplarMemory) -> tuple[str, ...]:
    """Return what a raw example is made of again."""
    restorer, has_text = Restorer.of(memory), "text" in memory.schema.modalities
    has_pixels = restorer.grid is not None
    if restorer.recipe.level not in {"pixels", "none"} or not (has_pixels or has_text):
        raise SchemaError(
            f"{memory.location}: expected a memory of pixels or texts, which become raw examples again, got "
            f"{sorted(memory.schema.modalities)}; make it with a recipe such as 'jpeg' or 'text'"
        )
    return (*(["image"] if has_pixels else []), "label", *(["text", "text_valid"] if has_text else []))


def _recorded(memory: ExemplarMemory) -> BoundRecipe:
    """Bind the recipe of a memory to plain images."""
    document, restorer = memory.schema.recipe, Restorer.of(memory)
    if document is None or restorer.frame is None or "text" in memory.schema.modalities:
        raise SchemaError(
            f"{memory.location}: nothing there says how an exemplar is made of an image alone; give make=, the "
            f"BoundRecipe that made the memory, or a function of rows and priorities (its recipe: {shown(document)})"
        )
    return BoundRecipe(
        Recipe.from_json(document["recipe"]), PlainImages(size=restorer.frame.size, patch=restorer.frame.patch)
    )
