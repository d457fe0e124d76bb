"""What to store in so many bytes: recipes of every level, ranked by a frozen probe."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

from exmem.backbones import Backbone
from exmem.errors import BudgetTooSmallError, CodecError, SchemaError
from exmem.recipes import Recipe
from exmem.registry import Part
from exmem.store import format_bytes, parse_bytes
from exmem.train.config import TrainConfig
from exmem.train.data import ImageText
from exmem.train.hidden import Advance
from exmem.train.parts import charged_bytes, check_budget
from exmem.train.probe import Probe
from exmem.train.samples import told_apart
from exmem.train.scenario import Scenario
from exmem.train.stored_sample import USUAL, Measured, Policy

__all__ = ["Stage", "advise", "best_of", "candidates", "choose_recipe", "merit"]

_LAYER = 3  # from last, whose attention says which patches are kept; the lowest, where there are fewer
_TOKENS, _BITS, _BYTES = (4, 8, 16), (1, 2, 4, 8), (24, 48)  # of hidden tokens, of features
_PARTS = 128  # of a hidden token, in the recipe
Stage = Callable[[str, int], Advance]
"""Begins a stage of so many steps, and returns what counts them."""


def candidates(backbone: Backbone) -> list[Recipe]:
    """Return recipes of pixels, hidden tokens, features and text that a backbone can make and replay."""
    sees = backbone.token_specs()
    recipes: list[Recipe] = []
    if "image" in sees:
        layer = min(_LAYER, len(backbone.attention_taps()))
        recipes += [
            Recipe.of("half_jpeg"),
            Recipe.of("third_jpeg"),
            Recipe.of("quarter_jpeg").refined(codec="patch_jpeg:quality=75"),
            Recipe.of("masked").refined(scorer=f"cls_attention:layers=[{-layer}]"),
        ]
        if backbone.num_prefix is not None and backbone.text_is_separate:
            parts = math.gcd(_PARTS, backbone.width)  # must divide it
            hidden = Recipe.of("hidden").refined(codec=f"pq:parts={parts},centres=16")
            most = sees["image"].positions
            recipes += [hidden.refined(name=f"hidden_{k}", keep=f"top_k:k={k}") for k in _TOKENS if k < most]
    if "text" in sees:
        recipes.append(Recipe.of("text"))
    features = Recipe.of("features")
    recipes += [features.refined(name=f"features_{bits}_bits", codec=f"scalar:bits={bits}") for bits in _BITS]
    return recipes + [features.refined(name=f"features_{n}_bytes", codec=f"principal:bytes={n}") for n in _BYTES]


def advise(
    backbone: Backbone,
    data: ImageText,
    recipes: Sequence[Recipe],
    budgets: Sequence[int],
    *,
    policy: Policy = USUAL,
    seed: int = 0,
    stage: Stage,
    tell: Callable[[str], None],
) -> Iterator[list[Measured]]:
    """Measure recipes at each budget, one list a recipe, in memories that take exemplars by the policy.

    `stage` begins a stage of a progress bar; `tell` is told which classes and recipes cannot be measured, and why.
    DataError if fewer than two classes have two examples.
    """
    rows, lone = told_apart(data, seed)
    if lone:
        tell(f"{len(lone):,} classes with one example are left out, as nothing of them can be held out: {lone[:5]}")
    probe = Probe(backbone, data, rows, seed=seed, advance=stage("one pass of the backbone", len(rows)))
    for recipe in recipes:
        try:
            stored = probe.store(recipe, stage(recipe.name, len(rows)))
            found = [stored.measure(budget, policy=policy, seed=seed) for budget in budgets]
        except (CodecError, SchemaError) as error:  # the second is told of replay, too, when it is first measured
            tell(f"{recipe.name} is left out: {error}")
            continue
        yield found


def merit(one: Measured) -> tuple[bool, float, float, float]:
    """Return what recipes are ranked by at a budget, more is better.

    Accuracy; of equals how sure the classifier is of the true class, and then the smaller exemplars.
    """
    return bool(one.accuracies), round(one.accuracy, 4), round(one.certainty, 4), -one.exemplar_bytes


def best_of(measured: Sequence[Measured]) -> Measured:
    """Return the first of those of most merit; BudgetTooSmallError if nothing fits, SchemaError if there are none."""
    if not measured:
        raise SchemaError("no recipe could be measured; name one with --recipe")
    best = max(measured, key=merit)
    if not best.accuracies:
        least = min(measured, key=lambda one: one.exemplar_bytes)
        raise BudgetTooSmallError(
            f"{format_bytes(least.max_bytes)}: no exemplar of any recipe fits, those of {least.recipe.name} are the "
            f"smallest, of {least.exemplar_bytes:,.0f} bytes beside an empty memory and what the codec was trained to; "
            "raise max_bytes"
        )
    return best


def choose_recipe(
    config: TrainConfig, backbone: Backbone, data: ImageText, stage: Stage, tell: Callable[[str], None]
) -> Measured:
    """Return what to store in a run, by the data of its first phase; all classes will share what the head leaves.

    Exemplars are chosen as the run does, by herding where it looks at a trained head. `tell` is told of that, and of
    recipes that do not go with the options of the run.
    """
    classes, recipes = len(data.class_names), []
    for recipe in candidates(backbone):
        try:
            dataclasses.replace(config, recipe=recipe)
            recipes.append(recipe)
        except SchemaError as error:
            tell(f"{recipe.name} is left out: {error}")
    charges = charged_bytes(config, backbone, classes)
    check_budget(config, None, charges)
    budget = parse_bytes(config.max_bytes) - sum(charges.values())
    first = data.subset(Scenario.of(config.data, data.class_names).rows(data.labels, 0))
    measured = advise(
        backbone,
        first,
        recipes,
        [budget],
        policy=_policy(config, first, classes, tell),
        seed=config.seed,
        stage=stage,
        tell=tell,
    )
    return best_of([ones[0] for ones in measured])


def _policy(config: TrainConfig, first: ImageText, classes: int, tell: Callable[[str], None]) -> Policy:
    selection = config.selection
    if selection.name in {"loss", "entropy"}:
        tell(f"selection {selection.name!r} looks at a trained head, which a probe has not; it measures with herding")
        selection = Part("herding")
    policy = Policy.of(config, first.labels)  # but for the head, which is not compared, and how a run tests
    return policy._replace(selection=selection, classes=classes, head=USUAL.head, tests_stored=False)
