"""The configuration of a trade-off: which data, recipes, budgets, seeds and methods are crossed.

`data`: name -> folder, or a mapping of `folder` with options of data (`modalities: image`) and `backbone`; relative
folders lie beside the configuration. `class_seed: seed` lets the order of the classes follow the seed.
`recipes`: names, files, or mappings of parts, where `of` names the recipe whose other parts are taken.
`budgets`: see `Budget`. `seeds`: numbers. `methods`: name -> options of `exmem train`. `kinds`: probe and trainer,
a list or a mapping to the cells that are wanted of each. `leave_out`: cells that are not wanted. `base`: options of
`exmem train` for all. `own`: parts of one's own. `probe_share`: share of each class's training examples that a seed
may choose from in a probe.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exmem.errors import SchemaError
from exmem.recipes import Recipe
from exmem.recipes.recipe import read_document
from exmem.report.tradeoff.budgets import Budget
from exmem.report.tradeoff.own import add_own, read_own
from exmem.tokens.checks import mapping_of, shown, whole_number
from exmem.train.checks import check_number
from exmem.train.config import DataConfig, TrainConfig
from exmem.train.reading import read_fields

__all__ = ["KINDS", "PROBE", "Choice", "Data", "Design", "Options", "merged"]

KINDS = ("probe", "trainer")
PROBE = "probe"
"""What tables call the method of a probe: nothing is trained in it, so no method differs from another."""

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
        return cls(name=name, folder=root / Path(given["folder"]).expanduser(), options=options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Cells by the names of what they cross; an axis that is left out takes all."""

    data: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    budgets: tuple[Budget, ...] = ()
    seeds: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: Any, where: str) -> "Choice":
        """Read a choice; what it names is checked by the design that holds it."""
        document = dict(mapping_of({} if value is None else value, where))
        if "budgets" in document:
            document["budgets"] = tuple(
                Budget.of(one, f"{where}.budgets") for one in _listed(document["budgets"], f"{where}.budgets")
            )
        budgets = document.pop("budgets", ())
        return dataclasses.replace(read_fields(cls, document, where), budgets=budgets)

    def holds(self, **cell: Any) -> bool:
        """Say whether a cell, by its value on each axis, is one of these."""
        chosen = ((getattr(self, axis), value) for axis, value in cell.items())
        return all(not allowed or value in allowed for allowed, value in chosen)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Design:
    """What a configuration file of `exmem tradeoff` says, its sections; bench/configs/demo.yaml is one."""

    data: tuple[Data, ...]
    recipes: tuple[Recipe, ...]
    budgets: tuple[Budget, ...]
    seeds: tuple[int, ...] = (0,)
    methods: Mapping[str, Options] = dataclasses.field(default_factory=lambda: {"default": {}})
    kinds: Mapping[str, Choice] = dataclasses.field(default_factory=lambda: {"probe": Choice()})
    leave_out: tuple[Choice, ...] = ()
    base: Options = dataclasses.field(default_factory=dict)
    own: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    probe_share: float = 0.75
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
        known = [field.name for field in dataclasses.fields(cls) if field.name != "folder"]
        if unknown := sorted(set(map(str, document)) - set(known)):
            raise SchemaError(f"unknown keys {unknown}; known are {known}")
        if lacking := [name for name in ("data", "recipes", "budgets") if not document.get(name)]:
            raise SchemaError(f"{lacking[0]}: expected one or more, got {shown(document.get(lacking[0]))}")
        given = dict(document)
        given["own"] = read_own(given.get("own") or {})
        add_own(given["own"], folder)
        entries = mapping_of(given["data"], "data")
        given["data"] = tuple(Data.of(str(name), value, folder) for name, value in entries.items())
        given["recipes"] = tuple(
            _recipe(value, f"recipes[{at}]", folder) for at, value in enumerate(_listed(given["recipes"], "recipes"))
        )
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
        return cls(**given, folder=folder)

    def __post_init__(self) -> None:
        check_number(self, "configuration", "probe_share", above=0, most=1)
        names: dict[str, list[Any]] = {
            "data": [one.name for one in self.data],
            "recipes": [one.name for one in self.recipes],
            "budgets": list(self.budgets),
            "seeds": list(self.seeds),
            "methods": list(self.methods),
            "kinds": list(self.kinds),
        }
        for axis, values in names.items():
            if not values:
                raise SchemaError(f"{axis}: expected one or more, got none")
            if twice := [str(value) for value in values if values.count(value) > 1]:
                raise SchemaError(f"{axis}: {twice[0]!r} is there twice; give each a name of its own")
        choices = {f"kinds.{kind}": choice for kind, choice in self.kinds.items()}
        choices |= {f"leave_out[{at}]": choice for at, choice in enumerate(self.leave_out)}
        names["methods"].append(PROBE)
        for where, choice in choices.items():
            for axis, values in names.items():
                if strange := [str(value) for value in getattr(choice, axis) if value not in values]:
                    raise SchemaError(f"{where}.{axis}: unknown {strange[0]!r}; choose of {[*map(str, values)]}")

    def crossed(self) -> Iterator[tuple[str, Data, str, Recipe, Budget, int]]:
        """Yield kind, data, method, recipe, budget and seed of each cell that is wanted, kinds first, budgets last."""
        for kind, choice in self.kinds.items():
            for data in self.data:
                for seed in self.seeds:
                    for method in [PROBE] if kind == "probe" else self.methods:
                        for recipe in self.recipes:
                            for budget in self.budgets:
                                cell: dict[str, Any] = {"data": data.name, "recipes": recipe.name, "methods": method}
                                cell |= {"budgets": budget, "seeds": seed, "kinds": kind}
                                left_out = any(one.holds(**cell) for one in self.leave_out)
                                if choice.holds(**cell) and not left_out:
                                    yield kind, data, method, recipe, budget, seed

    def config(self, data: Data, method: str, recipe: Recipe, seed: int) -> TrainConfig:
        """Return the options of a cell but for its budget; SchemaError if they are unknown or do not go together."""
        document = merged(merged(self.base, data.options), self.methods.get(method, {}))
        if document.get("data", {}).get("class_seed") == "seed":
            document["data"]["class_seed"] = seed
        if method == PROBE:  # which trains nothing
            blocks = {key: value for key, value in document.get("tuner", {}).items() if key == "blocks"}
            document = {key: document[key] for key in ("data", "backbone") if key in document}
            document["tuner"] = {**blocks, "phases": "none"}
        return TrainConfig.from_json({**document, "recipe": recipe, "seed": seed})


def merged(document: Options, more: Options) -> dict[str, Any]:
    """Return options with others in their place; of a group, those that are not named stay."""
    groups = {
        key: {**document.get(key, {}), **value} if isinstance(value, Mapping) and key != "selection" else value
        for key, value in more.items()
    }
    return {**document, **groups}


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


def _recipe(value: Any, where: str, folder: Path) -> Recipe:
    try:
        if isinstance(value, str) and Path(value).suffix:
            return Recipe.of(folder / Path(value).expanduser())
        if isinstance(value, Mapping) and "of" in value:
            parts = {key: part for key, part in value.items() if key != "of"}
            return Recipe.of(value["of"]).refined(**parts)
        return Recipe.of(value)
    except SchemaError as error:
        raise SchemaError(f"{where}: {error}") from error
