"""The configuration of a trade-off: which data, recipes, budgets, seeds and methods are crossed.

`data`: name -> folder, or a mapping of `folder` with options of data (`modalities: image`) and `backbone`; relative
folders lie beside the configuration, those of weights and the file of a scenario too. `class_seed: seed` lets the order
of the classes follow the seed.
`recipes`: names, files, or mappings of parts, where `of` names the recipe whose other parts are taken; one with
`as_many_as`, the name of another, holds as many exemplars as that one at the budget, whatever they take (probes alone).
`budgets`: see `Budget`. `seeds`: numbers. `methods`: name -> options of `exmem train`. `kinds`: probe and trainer,
a list or a mapping to the cells that are wanted of each. `leave_out`: cells that are not wanted; one may say `but`
which of them are, as in `{budgets: 64MB, but: {recipes: raw}}`. `base`: options of
`exmem train` for all. `best_of`: name -> recipes; of these, the best at each budget is a curve by that name, and the
first such curve the baseline. `own`: parts of one's own. `probe`: see `ProbeOptions`.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exmem.errors import SchemaError
from exmem.recipes import Recipe
from exmem.recipes.recipe import read_document
from exmem.registry import Part
from exmem.report.tradeoff.budgets import Budget
from exmem.report.tradeoff.own import add_own, read_own
from exmem.tokens.checks import flag, mapping_of, shown, whole_number
from exmem.train.checks import check_number
from exmem.train.config import DataConfig, TrainConfig
from exmem.train.data.layouts.places import whole_path
from exmem.train.methods import TRAINED_HEADS
from exmem.train.reading import read_fields
from exmem.train.scenario_names import is_scenario_file

__all__ = ["DEFAULT", "KINDS", "PROBE", "Choice", "Data", "Design", "Options", "ProbeOptions", "merged"]

KINDS = ("probe", "trainer")
PROBE = "probe"
DEFAULT = "default"
"""The method of a configuration that names none; titles leave it out."""

Options = Mapping[str, Any]
_OF_CELLS = ("recipe", "max_bytes", "seed")  # of TrainConfig: what cells differ in
_OF_DATA = tuple(field.name for field in dataclasses.fields(DataConfig))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """A data set by name: its folder, and options of `data` and of `backbone` that go with it."""

    name: str
    folder: Path
    options: Options

    @classmethod
    def of(cls, name: str, value: Any, root: Path) -> "Data":
        """Read an entry of the section `data`: a folder, or a mapping with one."""
        where, given = f"data.{name}", {"folder": value} if isinstance(value, str) else value
        if not isinstance(given, Mapping) or not isinstance(given.get("folder"), str):
            raise SchemaError(f"{where}: expected a folder, or a mapping with the key folder, got {shown(value)}")
        known = ("folder", "backbone", *_OF_DATA)
        if unknown := sorted(set(map(str, given)) - set(known)):
            raise SchemaError(f"{where}: unknown keys {unknown}; known are {list(known)}")
        options: dict[str, Any] = {"data": {key: given[key] for key in _OF_DATA if key in given}}
        if "backbone" in given:
            options["backbone"] = mapping_of(given["backbone"], f"{where}.backbone")
        return cls(name=name, folder=whole_path(given["folder"], root), options=options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What a probe stores and is tested on.

    A seed may choose from `share` of each class's training examples, and is tested on the test split; with `folds`, the
    probe is that of `exmem advise`: of a sample of the training examples parts are held out, and tested on.
    """

    share: float = 0.75
    folds: bool = False

    def __post_init__(self) -> None:
        check_number(self, "probe", "share", above=0, most=1)
        flag(self.folds, "probe.folds")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Cells by the names of what they cross, `but` those of another choice; an axis that is left out takes all."""

    data: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    budgets: tuple[Budget, ...] = ()
    seeds: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    but: "Choice | None" = None

    @classmethod
    def of(cls, value: Any, where: str) -> "Choice":
        """Read a choice; what it names is checked by the design that holds it."""
        document = dict(mapping_of({} if value is None else value, where))
        but = cls.of(document.pop("but"), f"{where}.but") if "but" in document else None
        if "budgets" in document:
            document["budgets"] = tuple(
                Budget.of(one, f"{where}.budgets") for one in _listed(document["budgets"], f"{where}.budgets")
            )
        budgets = document.pop("budgets", ())
        return dataclasses.replace(read_fields(cls, document, where), budgets=budgets, but=but)

    def holds(self, **cell: Any) -> bool:
        """Say whether a cell, by its value on each axis, is one of these."""
        chosen = ((getattr(self, axis), value) for axis, value in cell.items())
        return all(not allowed or value in allowed for allowed, value in chosen) and not (
            self.but is not None and self.but.holds(**cell)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Design:
    """What a configuration file of `exmem tradeoff` says, its sections; bench/configs/demo.yaml is one."""

    data: tuple[Data, ...]
    recipes: tuple[Recipe, ...]
    budgets: tuple[Budget, ...]
    seeds: tuple[int, ...] = (0,)
    methods: Mapping[str, Options] = dataclasses.field(default_factory=lambda: {DEFAULT: {}})
    kinds: Mapping[str, Choice] = dataclasses.field(default_factory=lambda: {"probe": Choice()})
    leave_out: tuple[Choice, ...] = ()
    base: Options = dataclasses.field(default_factory=dict)
    own: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    probe: ProbeOptions = ProbeOptions()
    best_of: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    as_many_as: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folder: Path = Path()

    @classmethod
    def read(cls, file: str | os.PathLike[str]) -> "Design":
        """Read a YAML or JSON file; SchemaError names the file, the key and what it should be."""
        path = Path(file)
        document = read_document(path)
        try:
            return cls.of(document, path.absolute().parent)
        except SchemaError as error:
            raise SchemaError(f"{path}: {error}") from error

    @classmethod
    def of(cls, document: Options, folder: Path) -> "Design":
        """Read a configuration whose relative folders and files lie in `folder`; own parts get their names here."""
        known = [field.name for field in dataclasses.fields(cls) if field.name not in {"folder", "as_many_as"}]
        if unknown := sorted(set(map(str, document)) - set(known)):
            raise SchemaError(f"unknown keys {unknown}; known are {known}")
        if lacking := [name for name in ("data", "recipes", "budgets") if not document.get(name)]:
            raise SchemaError(f"{lacking[0]}: expected one or more, got {shown(document.get(lacking[0]))}")
        given = dict(document)
        given["own"] = read_own(given.get("own") or {})
        add_own(given["own"], folder)
        entries = mapping_of(given["data"], "data")
        given["data"] = tuple(Data.of(str(name), value, folder) for name, value in entries.items())
        recipes = [
            _recipe(value, f"recipes[{at}]", folder) for at, value in enumerate(_listed(given["recipes"], "recipes"))
        ]
        given["recipes"] = tuple(recipe for recipe, _ in recipes)
        given["as_many_as"] = {recipe.name: other for recipe, other in recipes if other is not None}
        given["budgets"] = tuple(Budget.of(value) for value in _listed(given["budgets"], "budgets"))
        if "seeds" in given:
            if not isinstance(given["seeds"], list | tuple):  # a number may mean itself, or so many
                raise SchemaError(f"seeds: expected a list, such as [0, 1, 2], got {shown(given['seeds'])}")
            given["seeds"] = tuple(whole_number(seed, "seeds") for seed in _listed(given["seeds"], "seeds"))
        if "methods" in given:
            methods = mapping_of(given["methods"], "methods")
            given["methods"] = {str(name): _options(value, f"methods.{name}") for name, value in methods.items()}
        if "kinds" in given:
            given["kinds"] = _kinds(given["kinds"])
        given["leave_out"] = tuple(
            Choice.of(value, f"leave_out[{at}]")
            for at, value in enumerate(_listed(given.get("leave_out") or [], "leave_out"))
        )
        given["base"] = _options(given.get("base") or {}, "base")
        best_of = mapping_of(given.get("best_of") or {}, "best_of")
        given["best_of"] = {
            str(name): tuple(map(str, _listed(ones, f"best_of.{name}"))) for name, ones in best_of.items()
        }
        if "probe" in given:
            given["probe"] = read_fields(ProbeOptions, mapping_of(given["probe"], "probe"), "probe")
        return cls(**given, folder=folder)

    def __post_init__(self) -> None:
        names: dict[str, list[Any]] = {
            "data": [one.name for one in self.data],
            "recipes": [one.name for one in self.recipes],
            "budgets": list(self.budgets),
            "seeds": list(self.seeds),
            "methods": list(self.methods),
            "kinds": list(self.kinds),
        }
        for axis, values in {**names, "best_of": [*self.best_of]}.items():
            if not values and axis != "best_of":
                raise SchemaError(f"{axis}: expected one or more, got none")
            if wrong := [one for one in values if isinstance(one, str) and not (one.strip() and one.isprintable())]:
                raise SchemaError(f"{axis}: expected names of one line that can be read, got {shown(wrong[0])}")
            if twice := [str(value) for value in values if values.count(value) > 1]:
                raise SchemaError(f"{axis}: {twice[0]!r} is there twice; give each a name of its own")
        choices = {f"kinds.{kind}": choice for kind, choice in self.kinds.items()}
        choices |= {f"leave_out[{at}]": choice for at, choice in enumerate(self.leave_out)}
        choices |= {f"{where}.but": choice.but for where, choice in choices.items() if choice.but is not None}
        for name, ones in self.best_of.items():
            if name in names["recipes"]:
                raise SchemaError(f"best_of: {name!r} is a recipe; choose another name")
            if not ones:
                raise SchemaError(f"best_of.{name}: expected one or more recipes, got none")
            if strange := [one for one in ones if one not in names["recipes"]]:
                raise SchemaError(f"best_of.{name}: unknown {strange[0]!r}; choose of {names['recipes']}")
        if self.probe.folds and self.probe.share != ProbeOptions.share:
            raise SchemaError(
                "probe.share has no effect with probe.folds, which hold parts of the sample out; leave it out"
            )
        if self.as_many_as and self.probe.folds:
            raise SchemaError(
                "probe.folds: a recipe with as_many_as is measured on the test split; leave one of them out"
            )
        for name, other in self.as_many_as.items():
            if other == name or other not in names["recipes"] or other in self.as_many_as:
                raise SchemaError(
                    f"recipes: {name!r} holds as many as {shown(other)}: expected the name of another recipe here that "
                    "takes what fits"
                )
        for where, choice in choices.items():
            for axis, values in names.items():
                if strange := [str(value) for value in getattr(choice, axis) if value not in values]:
                    raise SchemaError(f"{where}.{axis}: unknown {strange[0]!r}; choose of {[*map(str, values)]}")
        if not any(True for _ in self.crossed()):
            raise SchemaError("kinds and leave_out leave no cell to measure; leave less out")

    @functools.cached_property
    def alike(self) -> dict[str, str]:
        """Methods that a probe cannot tell from one before them -> that one."""
        choice, first, alike = self.kinds.get(PROBE, Choice()), dict[str, str](), dict[str, str]()
        for name in self.methods:
            if choice.holds(methods=name):
                seen = json.dumps(_of_probe(merged(self.base, self.methods[name])), sort_keys=True, default=str)
                if first.setdefault(seen, name) != name:
                    alike[name] = first[seen]
        return alike

    def crossed(self) -> Iterator[tuple[str, Data, str, Recipe, Budget, int]]:
        """Yield kind, data, method, recipe, budget and seed of each cell that is wanted, kinds first, budgets last.

        Methods that are the same to a probe are one there, under the first of their names.
        """
        for kind, choice in self.kinds.items():
            methods = [name for name in self.methods if choice.holds(methods=name)]
            if kind == PROBE:
                methods = [name for name in methods if name not in self.alike]
            for data in self.data:
                for seed in self.seeds:
                    for method in methods:
                        for recipe in self.recipes:
                            for budget in self.budgets:
                                cell: dict[str, Any] = {"data": data.name, "recipes": recipe.name, "methods": method}
                                cell |= {"budgets": budget, "seeds": seed, "kinds": kind}
                                left_out = any(one.holds(**cell) for one in self.leave_out)
                                if choice.holds(**cell) and not left_out:
                                    yield kind, data, method, recipe, budget, seed

    def config(self, kind: str, data: Data, method: str, recipe: Recipe, seed: int) -> TrainConfig:
        """Return the options of a cell but for its budget; SchemaError if they are unknown or do not go together."""
        document = merged(merged(self.base, data.options), self.methods[method])
        if "backbone" in document:
            document["backbone"] = _placed(document["backbone"], self.folder)
        if isinstance(scenario := document.get("data", {}).get("scenario"), str) and is_scenario_file(scenario):
            document["data"] = {**document["data"], "scenario": str((self.folder / scenario).absolute())}
        if document.get("data", {}).get("class_seed") == "seed":
            document["data"]["class_seed"] = seed
        if kind == PROBE:
            document = _of_probe(document)
            _check_probed(document, recipe)
        elif recipe.name in self.as_many_as:
            raise SchemaError(f"recipe {recipe.name!r} is as many as another holds: only a probe takes a count")
        return TrainConfig.from_json({**document, "recipe": recipe, "seed": seed})


def merged(document: Options, more: Options) -> dict[str, Any]:
    """Return options with others in their place; of a group, those that are not named stay."""
    groups = {
        key: {**document.get(key, {}), **value} if isinstance(value, Mapping) and key != "selection" else value
        for key, value in more.items()
    }
    return {**document, **groups}


def _of_probe(document: Options) -> dict[str, Any]:
    """Return those options of a run that a probe looks at: it trains nothing."""
    seen = {key: document[key] for key in ("data", "backbone", "selection", "quota", "ranked_form") if key in document}
    for group, option in (("tuner", "blocks"), ("method", "head"), ("loop", "test_stored_form")):
        if option in document.get(group, {}):
            seen[group] = {option: document[group][option]}
    return {**seen, "tuner": {**seen.get("tuner", {}), "phases": "none"}}


def _check_probed(document: Options, recipe: Recipe) -> None:
    """Refuse what looks at the linear head of a run, which a probe does not train."""
    head, selection = Part.of(document.get("method", {}).get("head", "logistic")), document.get("selection", "herding")
    asked = {
        f"head {head.name!r}": head.name in TRAINED_HEADS,
        f"selection {Part.of(selection).name!r}": Part.of(selection).name in {"loss", "entropy"},
        "extras 'logits'": "logits" in recipe.extras,
    }
    if wrong := [name for name, is_asked in asked.items() if is_asked]:
        raise SchemaError(
            f"{wrong[0]} needs the linear head, and a probe trains none; leave it to the trainer, as by kinds: "
            "{probe: {methods: [OTHERS], recipes: [OTHERS]}, trainer: }"
        )


def _placed(backbone: Any, folder: Path) -> Any:
    """Return options of a backbone; weights in folders beside the configuration are named by their whole path."""
    if not isinstance(backbone, Mapping):
        return backbone
    return {
        key: str((folder / value).absolute())
        if key in {"vision", "text"} and isinstance(value, str) and value and (folder / value).is_dir()
        else value
        for key, value in backbone.items()
    }


def _listed(value: Any, where: str) -> Sequence[Any]:
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, Mapping) or value is None:
        raise SchemaError(f"{where}: expected a list, got {shown(value)}")
    return [value]


def _options(value: Any, where: str) -> Options:
    options: Options = mapping_of({} if value is None else value, where)
    known = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in _OF_CELLS]
    if wrong := [name for name in _OF_CELLS if name in options]:
        raise SchemaError(f"{where}: {wrong[0]} is crossed; give it in recipes, budgets or seeds")
    if unknown := sorted(set(map(str, options)) - set(known)):
        raise SchemaError(f"{where}: unknown keys {unknown}; known are {known}")
    return options


def _kinds(value: Any) -> dict[str, Choice]:
    given = value if isinstance(value, Mapping) else dict.fromkeys(map(str, _listed(value, "kinds")))
    if unknown := [kind for kind in given if kind not in KINDS]:
        raise SchemaError(f"kinds: unknown {shown(unknown[0])}; choose of {list(KINDS)}")
    return {kind: Choice.of(choice, f"kinds.{kind}") for kind, choice in given.items()}


def _recipe(value: Any, where: str, folder: Path) -> tuple[Recipe, str | None]:
    """Read a recipe, and the name of the one that it holds as many as."""
    other = None
    try:
        if isinstance(value, str) and Path(value).suffix:
            return Recipe.of(folder / Path(value).expanduser()), None
        if isinstance(value, Mapping) and "as_many_as" in value:
            value = dict(value)
            other = value.pop("as_many_as")
        if isinstance(value, Mapping) and "of" in value:
            parts = {key: part for key, part in value.items() if key != "of"}
            return Recipe.of(value["of"]).refined(**parts), other
        return Recipe.of(value), other
    except SchemaError as error:
        raise SchemaError(f"{where}: {error}") from error
