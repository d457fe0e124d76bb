"""What to store in so many bytes: recipes of every level, ranked by a frozen probe."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from exmem.backbones import Backbone
from exmem.errors import DataError, SchemaError
from exmem.recipes import Recipe
from exmem.store import parse_bytes
from exmem.train.config import TrainConfig
from exmem.train.data import ImageText
from exmem.train.hidden import Advance
from exmem.train.probe import Measured, Probe, sample_rows
from exmem.train.scenario import Scenario

__all__ = ["advise", "best_of", "candidates", "choose_recipe"]

_SAMPLE = 1000  # examples at most
_PIXELS = {
    "half_jpeg": {},
    "third_jpeg": {},
    "quarter_jpeg": {"codec": "patch_jpeg:quality=75"},
    "masked": {"scorer": "cls_attention:layers=[-3]"},
}
_TOKENS, _BITS = (4, 8, 16), (1, 2, 4, 8)
Stage = Callable[[str, int], Advance]


def candidates(backbone: Backbone) -> list[Recipe]:
    """Return recipes of pixels, hidden tokens, features and text that a backbone can make and replay."""
    sees = backbone.token_specs()
    recipes: list[Recipe] = []
    if "image" in sees:
        recipes += [Recipe.of(name).refined(**changes) for name, changes in _PIXELS.items()]
        if backbone.num_prefix is not None:
            hidden = Recipe.of("hidden")
            most = sees["image"].positions
            recipes += [hidden.refined(name=f"hidden_{k}", keep=f"top_k:k={k}") for k in _TOKENS if k < most]
    if len(sees) > 1:
        recipes.append(Recipe.of("text"))
    features = Recipe.of("features")
    return recipes + [features.refined(name=f"features_{bits}_bits", codec=f"scalar:bits={bits}") for bits in _BITS]


def advise(
    backbone: Backbone,
    data: ImageText,
    budgets: Sequence[int],
    *,
    classes: int | None = None,
    seed: int = 0,
    stage: Stage,
) -> Iterator[list[Measured]]:
    """Measure each candidate at each budget, one list a candidate.

    `classes` are those that the memory will share its bytes among, where the data has fewer; `stage` begins a stage of
    a progress bar. DataError if a class has a single example.
    """
    counts = np.bincount(data.labels)
    if lone := [data.class_names[label] for label in np.flatnonzero(counts == 1)]:
        raise DataError(f"classes of one example cannot be probed: {lone[:5]}; add some, or leave them out")
    rows = sample_rows(data.labels, most=_SAMPLE, seed=seed)
    advance = stage("one pass of the backbone", len(rows))
    probe = Probe(backbone, data, rows, classes=classes, seed=seed, advance=advance)
    for recipe in candidates(backbone):
        try:
            yield probe.measure(recipe, budgets, stage(recipe.name, len(rows)))
        except SchemaError as error:
            raise SchemaError(f"recipe {recipe.name!r}: {error}") from error


def best_of(measured: Sequence[Measured]) -> Measured:
    """Return the most accurate; of those that are as good, the one with the faster replay step."""
    return max(measured, key=lambda one: (round(one.accuracy, 4), -one.step_ms))


def choose_recipe(config: TrainConfig, backbone: Backbone, data: ImageText, stage: Stage) -> Measured:
    """Return what to store in a run, by the data of its first phase; all classes will share the budget."""
    classes, first = len(data.class_names), _first_phase(config, data)
    budgets = [parse_bytes(config.max_bytes)]
    measured = advise(backbone, first, budgets, classes=classes, seed=config.seed, stage=stage)
    return best_of([ones[0] for ones in measured])


def _first_phase(config: TrainConfig, data: ImageText) -> ImageText:
    """Return the part of the data that the first phase of a run brings."""
    scenario = Scenario.of(config.data, len(data.class_names))
    return data.subset(scenario.rows(data.labels, 0))
