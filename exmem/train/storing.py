"""After a phase: rank the new examples, make exemplars of the best, and store them within the budget."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from exmem.memory import AddPlan, ExemplarMemory
from exmem.recipes import Recipe
from exmem.selection import SELECTIONS
from exmem.tokens import Exemplar
from exmem.train.data import ImageText
from exmem.train.folder import RunFolder

__all__ = ["Candidates", "plan_best", "rank_examples", "store_phase", "stored_rows"]

_BATCH = 64
_FIRST_RANKS = 32


def rank_examples(
    features: NDArray[np.floating] | None,
    labels: NDArray[np.int64],
    *,
    selection: str,
    seed: Sequence[int],
    values: NDArray[np.floating] | None = None,
) -> NDArray[np.int64]:
    """Rank examples within their class.

    Parameters
    ----------
    features : ndarray, shape (N, D), floating, optional
        Features; only for a selection that goes by them.
    labels : ndarray, shape (N,), int64
        Classes.
    selection : str
        How: a key of `exmem.selection.SELECTIONS`.
    seed : sequence of int
        Seed of a selection by chance.
    values : ndarray, shape (N,), floating, optional
        What was measured of each example, such as its loss; only for a selection that goes by it.

    Returns
    -------
    ndarray, shape (N,), int64
        Rank of each example in its class, 0 is best.
    """
    rule = SELECTIONS.make(selection)
    ranks = np.empty(len(labels), np.int64)
    rng = np.random.default_rng(list(seed))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        own_features = None if features is None else features[rows]
        own_values = None if values is None else values[rows]
        order = rule(len(rows), features=own_features, values=own_values, rng=rng)
        ranks[rows[order]] = np.arange(len(rows))
    return ranks


class Candidates:
    """Exemplars that are made when they are asked for, best ranks first.

    Parameters
    ----------
    recipe : Recipe
        How an exemplar is made.
    data : ImageText
        Training data.
    rows : ndarray, shape (N,), int64
        Examples of the phase.
    ranks : ndarray, shape (N,), int64
        Their ranks within their classes.
    picture_size : tuple of int
        Height and width of the pictures in pixels.
    advance : callable
        Told how many pictures went through the backbone.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: ImageText,
        rows: NDArray[np.int64],
        ranks: NDArray[np.int64],
        *,
        picture_size: tuple[int, int],
        advance: Callable[[int], None],
    ) -> None:
        self._recipe, self._data, self._size, self._advance = recipe, data, picture_size, advance
        order = np.lexsort((rows, data.labels[rows], ranks))
        self.rows, self.ranks = rows[order], ranks[order]
        self._made: list[Exemplar] = []

    def best(self, count: int) -> list[Exemplar]:
        """Return the exemplars of the first ranks of all classes.

        Parameters
        ----------
        count : int
            Exemplars, at most.

        Returns
        -------
        list of Exemplar
            As many as there are, at most `count`; made in batches that do not depend on `count`.
        """
        while len(self._made) < min(count, len(self.rows)):
            chosen = slice(len(self._made), len(self._made) + _BATCH)
            rows = self.rows[chosen]
            images = self._data.images(rows, self._size)
            texts = [self._data.texts[row] for row in rows.tolist()]
            priorities = -self.ranks[chosen].astype(np.float64)
            self._made += self._recipe.make(images, texts, self._data.labels[rows], priorities)
            self._advance(len(rows) * self._recipe.passes)
        return self._made[:count]


def store_phase(folder: RunFolder, phase: int, candidates: Candidates, memory: ExemplarMemory) -> None:
    """Store what fits, evicting what ranks lower; finishes what a killed process began.

    Parameters
    ----------
    folder : RunFolder
        Keeps the plan, so that it is carried out once.
    phase : int
        Phase from 0.
    candidates : Candidates
        Exemplars of the phase.
    memory : ExemplarMemory
        The memory, open for writing.
    """
    noted = folder.note(phase, "plan")
    if noted is None:
        plan = plan_best(candidates, memory)
        noted = {
            "first_slot": plan.first_slot,
            "victims": plan.victims.tolist(),
            "admitted": plan.admitted.tolist(),
            "rows": candidates.rows[plan.admitted].tolist(),
        }
        folder.save_note(phase, "plan", noted)
    there = set(memory.slots.tolist())
    memory.evict([slot for slot in noted["victims"] if slot in there])
    if memory.next_slot == noted["first_slot"] and noted["admitted"]:
        exemplars = candidates.best(max(noted["admitted"]) + 1)
        memory.add([exemplars[index] for index in noted["admitted"]])
    memory.commit()


def stored_rows(folder: RunFolder, phases: int) -> dict[int, int]:
    """Say which example each exemplar was made of.

    Parameters
    ----------
    folder : RunFolder
        A run.
    phases : int
        How many phases were stored.

    Returns
    -------
    dict of int to int
        Slot -> row of the training data; evicted slots too.
    """
    rows: dict[int, int] = {}
    for phase in range(phases):
        plan, slots = (folder.note(phase, name) or {"slots": [], "rows": []} for name in ("plan", "slots"))
        rows.update(zip(slots["slots"], plan["rows"], strict=True))
    return rows


def plan_best(candidates: Candidates, memory: ExemplarMemory) -> AddPlan:
    """Offer more and more ranks until some are turned down: no more exemplars are made than about twice what fits.

    Parameters
    ----------
    candidates : Candidates
        Exemplars that may be made.
    memory : ExemplarMemory
        The memory, open for writing.

    Returns
    -------
    AddPlan
        What would come and go.
    """
    count = _FIRST_RANKS * int(np.sum(candidates.ranks == 0))  # one example of each class has rank 0
    while True:
        offered = candidates.best(count)
        plan = memory.plan_add(offered)
        if len(plan.admitted) < len(offered) or len(offered) == len(candidates.rows):
            return plan
        count *= 2
