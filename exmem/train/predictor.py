"""What a run learnt, asked about other examples."""

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from exmem.backbones import Hidden
from exmem.backbones.blocks import running_blocks
from exmem.errors import DataError
from exmem.recipes import BoundRecipe
from exmem.train.data import ImageText
from exmem.train.folder import RunFolder
from exmem.train.hidden import (
    Advance,
    KeptHidden,
    Tokens,
    backbone_key,
    embedded,
    features_of,
    scored,
    scored_and_embedded,
    tokens_of,
)
from exmem.train.learner import Learner
from exmem.train.methods import HEADS, Head
from exmem.train.metrics import accuracies
from exmem.train.parts import bind_recipe, load_run_backbone, make_learner
from exmem.train.ranks import Ranks
from exmem.train.scenario import learnt_classes, scenario_of_run

__all__ = ["Predictor"]


def _nowhere(count: int) -> None:
    """Tell nobody."""


class Predictor:
    """The learner of a run as it is after its last finished phase.

    A head that is fitted to exemplars is fitted again to those that the memory holds, which gives the same one.

    Parameters
    ----------
    run : path
        Folder of a run of `exmem train`.
    tell : callable, optional
        Told what goes on, a line each.

    Attributes
    ----------
    config : TrainConfig
        What the run was configured with.
    class_names : tuple of str
        Names of all classes of the run.
    seen : tuple of int
        Classes that were learnt so far, as indices into them.

    Raises
    ------
    DataError
        If it is no run, no phase was finished, or what it needs is gone.
    """

    def __init__(self, run: str | os.PathLike[str], *, tell: Callable[[str], None] = lambda line: None) -> None:
        folder = RunFolder(run)
        if not folder.is_run:
            raise DataError(f"{folder.path}: expected the folder of a run of `exmem train`, found none")
        self._phase = len(folder.metrics()) - 1
        if self._phase < 0:
            raise DataError(f"{folder.path}: no phase of this run was finished; go on with the command that began it")
        self.config, noted = folder.described()
        self.class_names: tuple[str, ...] = tuple(noted["classes"])
        self._scenario = scenario_of_run(folder, self.config.data, self.class_names)
        self.seen = self._scenario.seen(self._phase)
        tell("loading the backbone of the run")
        self._learner = self._fresh(tell, noted["train"])
        pruning = self._bound(self._learner) if self.config.prunes else None
        if pruning is not None and not pruning.masking.is_fixed:  # what is kept was chosen before any tuning
            pruning = self._bound(self._fresh(tell, noted["train"]))
        self._pruning = pruning
        checkpoint = folder.checkpoint(self._phase)
        if checkpoint is None:
            raise DataError(f"{folder.path}: the checkpoint of phase {self._phase + 1} is gone")
        self._learner.load(learnt_classes(self.config, self._scenario, self._phase), checkpoint)
        tell(f"the head ({self.config.method.head.name})")
        self._head = self._restored(folder)

    def _fresh(self, tell: Callable[[str], None], key: str) -> Learner:
        """Return the learner as it was before any tuning; DataError if its weights are not those of the run."""
        backbone = load_run_backbone(self.config, tell)
        if not key.endswith(backbone_key(backbone)):
            raise DataError(f"the run's backbone had other weights, or sizes, than {self.config.backbone.names} now")
        return make_learner(self.config, backbone.to(Ranks.joined().device))

    def _bound(self, learner: Learner) -> BoundRecipe | None:
        return bind_recipe(self.config, learner, num_classes=len(self.class_names))

    def _restored(self, folder: RunFolder) -> Head | None:
        part = self.config.method.head
        if self.config.method.trains_head:
            return None
        head: Head = HEADS.make(part.name, **part.kwargs)
        head.load({name: tensor.numpy() for name, tensor in folder.head(self._phase).items()})
        return head

    def predict(self, data: ImageText, *, advance: Advance = _nowhere) -> NDArray[np.int64]:
        """Return the class of each example, an index into `class_names`; the labels of the data are not looked at.

        Parameters
        ----------
        data : ImageText
            Images, and texts where the run learnt from them.
        advance : callable, optional
            Told how many examples were looked at, some at a time.

        Returns
        -------
        ndarray, shape (N,), int64
            Classes, of those that were learnt so far.
        """
        backbone, rows = self._learner.backbone, np.arange(len(data))
        if not len(data):
            return np.zeros(0, np.int64)
        with running_blocks(dtype=self.config.loop.dtype):
            hidden = self._hidden(tokens_of(backbone, data), rows, advance)
            features = features_of(self._learner, KeptHidden(hidden, backbone.pixel_mean.device), rows)
        if self._head is not None:
            return self._head.predict(features.numpy())
        chosen: NDArray[np.int64] = np.array(self._learner.classes)[self._learner.logits(features).argmax(-1).numpy()]
        return chosen

    def _hidden(self, tokens: Tokens, rows: NDArray[np.int64], advance: Advance) -> Hidden:
        """Return what the learner sees: of a learner that sees kept tokens alone, those."""
        if self._pruning is None:
            return embedded(self._learner.backbone, tokens, rows, advance)
        masking = self._pruning.masking
        if masking.is_fixed:
            hidden, scores = scored_and_embedded(masking, tokens, rows, advance)
        else:
            hidden = embedded(self._learner.backbone, tokens, rows, advance)
            scores = scored(
                masking, tokens, KeptHidden(hidden, self._learner.backbone.pixel_mean.device), rows, _nowhere
            )
        return self._pruning.pruned(hidden, scores)

    def measure(self, data: ImageText, *, advance: Advance = _nowhere) -> dict[str, float | list[float]]:
        """Return the accuracy on examples of the classes that were learnt so far: `all`, and `by_phase`.

        Parameters
        ----------
        data : ImageText
            Examples of the run's classes, by the same names; those of classes that are not learnt yet are left out.
        advance : callable, optional
            As in `predict`.

        Returns
        -------
        dict
            Shares of right predictions, 0..1; NaN where there are no examples.

        Raises
        ------
        DataError
            If the data has a class that the run does not know.
        """
        if strange := sorted(set(data.class_names) - set(self.class_names)):
            raise DataError(f"expected the classes of the run, {list(self.class_names)[:5]}, got {strange[:5]} too")
        own = np.array([self.class_names.index(name) for name in data.class_names], np.int64)
        labels = own[data.labels]
        rows = np.flatnonzero(np.isin(labels, self.seen))
        predicted = self.predict(data.subset(rows), advance=advance)
        return accuracies(predicted, labels[rows], self._scenario, self._phase)
