"""What a run knows of its exemplars: originals, words, class names, and scores with its last checkpoint."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exmem.backbones import Backbone
from exmem.errors import DataError, ExmemError
from exmem.memory import ExemplarMemory
from exmem.recipes import Masking, Recipe
from exmem.report.view.exemplars import Known, Source
from exmem.train.config import TrainConfig
from exmem.train.data import ImageText, load_imagefolder
from exmem.train.features import data_key
from exmem.train.folder import RunFolder
from exmem.train.learner import Learner
from exmem.train.making import configured_backbone, make_recipe
from exmem.train.scenario import Scenario
from exmem.train.storing import stored_rows

__all__ = ["known_of_run", "load_last_phase", "look_into_run", "masking_of"]

_BATCH = 16


def look_into_run(
    folder: RunFolder, slots: Sequence[int], *, data: Path | None, scores: bool, progress: Callable[[str], None]
) -> Known:
    """Find out what is known of a run's exemplars; what is not known is told in the notes.

    Parameters
    ----------
    folder : RunFolder
        A run.
    slots : sequence of int
        Its exemplars that are shown.
    data : Path or None
        Folder of the data that it was trained with.
    scores : bool
        Whether scores are computed.
    progress : callable
        Told what is being done.

    Returns
    -------
    Known
        What is known.

    Raises
    ------
    DataError
        If the data is not that of the run.
    """
    config, noted = folder.described()
    names, notes = noted["classes"], []
    backbone = train = masking = None
    progress("Loading the backbone of the run")
    try:
        backbone = configured_backbone(config, progress)
    except ExmemError as error:
        notes.append(f"No words, no scores: the backbone of the run cannot be loaded ({error}).")
    if data is None:
        notes.append("No originals, and no scores, which need them: give the folder of the data with --data.")
    else:
        progress(f"Reading {data}")
        train, _ = load_imagefolder(data)
        if list(train.class_names) != names:
            raise DataError(f"{data}: expected the classes {names[:5]}, got {list(train.class_names)[:5]}")
        if backbone is not None and data_key(backbone, train) != noted["key"]["train"]:
            notes.append("The data lies elsewhere or was changed since the run: originals may be others.")
    if not scores:
        notes.append("No scores: they were not asked for.")
    elif backbone is not None and train is not None:
        learner = Learner(backbone, rank=config.lora_rank, alpha=config.lora_alpha)
        load_last_phase(folder, config, learner, num_classes=len(names))
        masking = masking_of(make_recipe(config, backbone, learner.true_logits))
        if masking is None:
            notes.append(f"No scores: the recipe {config.recipe} uses none.")
        progress("Scoring")
    known = known_of_run(
        folder, slots, config=config, class_names=names, backbone=backbone, data=train, masking=masking
    )
    return dataclasses.replace(known, notes=[*notes, *known.notes])


def known_of_run(
    folder: RunFolder,
    slots: Sequence[int],
    *,
    config: TrainConfig,
    class_names: Sequence[str],
    backbone: Backbone | None,
    data: ImageText | None,
    masking: Masking | None,
) -> Known:
    """Gather what is known of a run's exemplars.

    Parameters
    ----------
    folder : RunFolder
        The run.
    slots : sequence of int
        Its exemplars that are shown.
    config : TrainConfig
        Its configuration.
    class_names : sequence of str
        Names of the classes.
    backbone : Backbone or None
        Its backbone, as the last finished phase left it.
    data : ImageText or None
        Its training data.
    masking : Masking or None
        What scores the originals.

    Returns
    -------
    Known
        What is known.

    Raises
    ------
    DataError
        If the data is not that of the run.
    """
    done, sources, notes, facts = len(folder.metrics()), {}, [], {"run": str(folder.path)}
    if data is not None:
        rows = _rows(folder, done, slots, data)
        pictures = data.images(list(rows.values()), config.image_size)
        texts = [data.texts[row] for row in rows.values()]
        scores = _scores(masking, pictures, texts, data.labels[list(rows.values())])
        grid = backbone.grid if backbone is not None else (1, 1)
        sources = dict(zip(rows, map(Source, pictures, texts, scores, [grid] * len(rows)), strict=True))
        if len(rows) < len(slots):
            notes.append("No originals of exemplars whose phase is not finished.")
        if masking is not None:
            layers = getattr(masking.scorer, "layers", None)  # of scorers that have them; None stands for all
            about = f"{config.scorer} of layers {', '.join(map(str, layers))}" if layers else config.scorer
            facts["scores"] = f"{about}; {config.backbone} backbone with the checkpoint after phase {done}"
            notes.append("Exemplars of earlier phases were masked by the backbone of their time, not by these scores.")
    if backbone is None:
        return Known(class_names=class_names, sources=sources, facts=facts, notes=notes)
    tokenizer, longest, grid = backbone.tokenizer, backbone.max_text, backbone.grid
    return Known(class_names, tokenizer, longest, sources, facts, notes, grid)


def load_last_phase(folder: RunFolder, config: TrainConfig, learner: Learner, *, num_classes: int) -> None:
    """Bring a learner to the end of the last finished phase of a run.

    Parameters
    ----------
    folder : RunFolder
        The run.
    config : TrainConfig
        Its configuration.
    learner : Learner
        A learner of the same backbone.
    num_classes : int
        Classes of the data.
    """
    last = len(folder.metrics()) - 1
    checkpoint = folder.checkpoint(last)
    if checkpoint is not None:
        scenario = Scenario.split(
            num_classes, first=config.first_classes, increments=config.increments, seed=config.class_seed
        )
        learner.load(scenario.seen(last), checkpoint)


def masking_of(recipe: Recipe | None) -> Masking | None:
    """Return what scores and masks in a recipe.

    Parameters
    ----------
    recipe : Recipe or None
        A recipe.

    Returns
    -------
    Masking or None
        None where it has none, as recipes of whole pictures do.
    """
    masking: Masking | None = getattr(recipe, "masking", None)
    return masking


def _rows(folder: RunFolder, phases: int, slots: Sequence[int], data: ImageText) -> dict[int, int]:
    # Slot -> row of the data, for slots of finished phases, in order.
    rows_of = stored_rows(folder, phases)
    rows = {slot: rows_of[slot] for slot in slots if slot in rows_of}
    with ExemplarMemory.open(folder.memory) as memory:
        labels = dict(zip(memory.slots.tolist(), memory.labels.tolist(), strict=True))
    wrong = [slot for slot, row in rows.items() if row >= len(data) or data.labels[row] != labels.get(slot)]
    if wrong:
        raise DataError(f"{folder.path}: slots {wrong[:5]} were made of other data; give the data of the run")
    return rows


def _scores(
    masking: Masking | None, pictures: NDArray[np.uint8], texts: Sequence[str], labels: NDArray[np.int64]
) -> list[NDArray[np.float32] | None]:
    if masking is None:
        return [None] * len(texts)
    scores: list[NDArray[np.float32] | None] = []
    for start in range(0, len(texts), _BATCH):
        chosen = slice(start, start + _BATCH)
        scores += [*masking(pictures[chosen], texts[chosen], labels[chosen]).maps.scores["image"]]
    return scores
