"""What a run knows of its exemplars (originals, words, class names, scores with its last checkpoint), drawn."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exmem.backbones import Backbone
from exmem.errors import DataError, ExmemError
from exmem.masking.scorers import SCORERS
from exmem.memory import ExemplarMemory
from exmem.recipes import Masking
from exmem.registry import Part
from exmem.report.plots import draw_accuracy, draw_class_bytes, draw_matrix
from exmem.report.run_summary import summary_text
from exmem.report.view.drawing import draw_sheet
from exmem.report.view.exemplars import Known, Source, choose_slots, exemplar_sheet
from exmem.report.view.page import write_page
from exmem.train.config import TrainConfig
from exmem.train.data import ImageText
from exmem.train.folder import RunFolder
from exmem.train.hidden import backbone_key
from exmem.train.learner import Learner
from exmem.train.parts import bind_recipe, load_run_backbone, load_run_data, make_learner
from exmem.train.scenario import learnt_classes, scenario_of_run
from exmem.train.storing import stored_rows
from exmem.train.trainer import Trainer

__all__ = ["draw_run", "known_of_folder"]

_BATCH = 16
_MOST = 12  # cards of a sheet


def draw_run(trainer: Trainer) -> None:
    """Draw the accuracies of a run that has ended, the bytes of its classes and some of its exemplars; sum it up."""
    folder, config = trainer.folder, trainer.config
    draw_accuracy({config.recipe.name: folder.metrics()}, folder.accuracy_image)
    draw_matrix(folder.metrics(), folder.matrix_image)
    if trainer.bound is not None:
        _draw_memory(trainer)
    trained = trainer.learner.described(tuned=config.tuned_phases != "none")
    folder.write_text(folder.summary, summary_text(folder, config, trained=trained))


def _draw_memory(trainer: Trainer) -> None:
    folder, config, data, bound = trainer.folder, trainer.config, trainer.train, trainer.bound
    assert bound is not None
    with ExemplarMemory.open(folder.memory) as memory:
        labels, sizes = memory.labels, memory.sizes
    totals = np.bincount(labels, weights=sizes, minlength=len(data.class_names)).astype(np.int64)
    counts = np.bincount(labels, minlength=len(data.class_names))
    order = [label for phase in trainer.scenario.phases for label in phase]
    draw_class_bytes([data.class_names[label] for label in order], totals[order], counts[order], folder.bytes_image)
    with ExemplarMemory.open(folder.memory) as memory:
        slots = choose_slots(memory, most=_MOST)
    if not slots:
        return
    _load_last_phase(folder, config, trainer.learner, data.class_names)
    known = _known(folder, slots, config, data.class_names, trainer.backbone, data, bound.masking)
    sheet = exemplar_sheet(folder.memory, slots, known=known)
    draw_sheet(sheet, folder.sheet)
    write_page(sheet, folder.page)


def known_of_folder(
    folder: RunFolder, slots: Sequence[int], *, data: Path | None, scores: bool, progress: Callable[[str], None]
) -> Known:
    """Find out what is known of a run's exemplars, with the folder of its data or without; the notes tell what is not.

    DataError if the data is not that of the run.
    """
    config, noted = folder.described()
    names: Sequence[str] = noted["classes"]
    notes: list[str] = []
    backbone = train = masking = None
    progress("Loading the backbone of the run")
    try:
        backbone = load_run_backbone(config, progress)
    except ExmemError as error:
        notes.append(f"No words, no scores: the backbone of the run cannot be loaded ({error}).")
    if data is None:
        notes.append("No originals, and no scores, which need them: give the folder of the data with --data.")
    else:
        progress(f"Reading {data}")
        train, _ = load_run_data(config, data)
        if list(train.class_names) != names:
            raise DataError(f"{data}: expected the classes {names[:5]}, got {list(train.class_names)[:5]}")
        if backbone is not None and f"{train.key()}-{backbone_key(backbone)}" != noted["train"]:
            notes.append("The data was changed since the run: originals may be others.")
    if not scores:
        notes.append("No scores: they were not asked for.")
    elif backbone is not None and train is not None:
        learner = make_learner(config, backbone)
        _load_last_phase(folder, config, learner, names)
        bound = bind_recipe(config, learner, num_classes=len(names))
        masking = bound.masking if bound is not None else None
        if masking is None or masking.scorer is None:
            notes.append(f"No scores: the recipe {config.recipe.name} uses none.")
        progress("Scoring")
    known = _known(folder, slots, config, names, backbone, train, masking)
    return dataclasses.replace(known, notes=[*notes, *known.notes])


def _known(
    folder: RunFolder,
    slots: Sequence[int],
    config: TrainConfig,
    class_names: Sequence[str],
    backbone: Backbone | None,
    data: ImageText | None,
    masking: Masking | None,
) -> Known:
    done, notes, facts = len(folder.metrics()), list[str](), {"run": str(folder.path)}
    sources: dict[int, Source] = {}
    grid = backbone.grid if backbone is not None else (1, 1)
    if data is not None:
        rows = _rows(folder, done, slots, data)
        chosen = list(rows.values())
        texts = [data.texts[row] for row in chosen]
        images = _originals(data, chosen, config.backbone.image_size)
        scores = _scores(masking, images, texts, data.labels[chosen])
        sources = dict(zip(rows, map(Source, images, texts, scores, [grid] * len(rows)), strict=True))
        if len(rows) < len(slots):
            notes.append("No originals of exemplars whose phase is not finished.")
        if masking is not None and masking.scorer is not None:
            scored = _scorer_text(config.recipe.scorer)
            facts["scores"] = f"{scored}; {config.backbone.family} backbone with the checkpoint after phase {done}"
            notes.append("Exemplars of earlier phases were masked by the backbone of their time, not by these scores.")
    if backbone is None:
        return Known(class_names=class_names, sources=sources, facts=facts, notes=notes)
    return Known(class_names, backbone.tokenizer, backbone.max_text, sources, facts, notes, grid)


def _scorer_text(scorer: Part) -> str:
    """Name a scorer and the layers that it looks at, those that it takes by itself too."""
    layers = {**SCORERS.options(scorer.name), **scorer.kwargs}.get("layers")
    return f"{scorer.name} of layers {', '.join(map(str, layers))}" if layers else str(scorer)


def _load_last_phase(folder: RunFolder, config: TrainConfig, learner: Learner, class_names: Sequence[str]) -> None:
    last = len(folder.metrics()) - 1
    checkpoint = folder.checkpoint(last)
    if checkpoint is not None:
        scenario = scenario_of_run(folder, config.data, class_names)
        learner.load(learnt_classes(config, scenario, last), checkpoint)


def _rows(folder: RunFolder, phases: int, slots: Sequence[int], data: ImageText) -> dict[int, int]:
    """Return the row of the data that each slot was made of; DataError where it is of another class now."""
    rows_of = stored_rows(folder, phases)
    rows = {slot: rows_of[slot] for slot in slots if slot in rows_of}
    with ExemplarMemory.open(folder.memory) as memory:
        labels = dict(zip(memory.slots.tolist(), memory.labels.tolist(), strict=True))
    wrong = [slot for slot, row in rows.items() if row >= len(data) or data.labels[row] != labels.get(slot)]
    if wrong:
        raise DataError(f"{folder.path}: slots {wrong[:5]} were made of other data; give the data of the run")
    return rows


def _originals(data: ImageText, rows: Sequence[int], size: int) -> NDArray[np.uint8]:
    """Return the originals, white where the data has texts alone."""
    return data.images(rows, size) if data.has_images else np.full((len(rows), size, size, 3), 255, np.uint8)


def _scores(
    masking: Masking | None, images: NDArray[np.uint8], texts: Sequence[str], labels: NDArray[np.int64]
) -> list[NDArray[np.float32] | None]:
    if masking is None or masking.scorer is None or "image" not in masking.backbone.token_specs():
        return [None] * len(texts)
    scores: list[NDArray[np.float32] | None] = []
    for start in range(0, len(texts), _BATCH):
        chosen = slice(start, start + _BATCH)
        scores += [*masking(images[chosen], texts[chosen], labels[chosen]).maps.scores["image"]]
    return scores
