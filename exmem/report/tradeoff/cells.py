"""Cells of a trade-off: what decides the numbers of each, where they lie, and how far they are."""

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import filelock

from exmem.errors import BudgetTooSmallError, SchemaError
from exmem.recipes import Recipe
from exmem.report.tradeoff.budgets import Budget
from exmem.report.tradeoff.design import PROBE, Data, Design, ProbeOptions
from exmem.report.tradeoff.facts import DataFacts, Facts, digest
from exmem.report.tradeoff.files import read_mapping, write_json
from exmem.train.config import TrainConfig

__all__ = ["Cell", "Cells", "State", "cells_of"]

State = Literal["done", "failed", "left"]

_MAY_CHANGE = ("keep_hidden", "num_workers")  # of the loop: they change no number
_OF_FORM = ("layout", "image_column", "split_column", "skip_bad")  # of the data: the keys name what was read


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One recipe at one budget with one method and one seed on one data set, by the probe or by the trainer.

    `config` is that of `exmem train` as plain values, with the bytes of the memory as its budget; `model_bytes` are
    those of the model where the budget counts them. `weights` names the content of weights that lie in folders; `probe`
    are options of a probe; `as_many_as` is the recipe that it holds as many exemplars as. `refusal` says why it cannot
    be; its options do not go together.
    """

    kind: str
    data: str
    recipe: str
    method: str
    budget: str
    seed: int
    folder: str
    keys: tuple[str, str]
    config: Mapping[str, Any]
    weights: str = ""
    model_bytes: int = 0
    probe: Mapping[str, Any] = dataclasses.field(default_factory=lambda: dataclasses.asdict(ProbeOptions()))
    as_many_as: Mapping[str, Any] | None = None
    own: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    refusal: str = ""

    @property
    def names(self) -> dict[str, Any]:
        """What tables call it."""
        fields = ("kind", "data", "recipe", "method", "budget", "seed")
        return {field: getattr(self, field) for field in fields}

    @property
    def budget_bytes(self) -> int:
        """The whole budget."""
        return int(self.config["max_bytes"]) + self.model_bytes

    @property
    def shared(self) -> dict[str, Any]:
        """What cells of a probe have in common that share a backbone, a sample and what the trunk makes of it."""
        config, folds = self.config, self.probe["folds"]
        parts = {"backbone": config["backbone"], "blocks": config["tuner"]["blocks"], "folds": folds}
        parts |= {"modalities": config["data"]["modalities"], "keys": self.keys}
        parts |= {"weights": self.weights} if self.weights else {}
        return parts | {"sample": self.seed} if folds else parts

    @property
    def document(self) -> dict[str, Any]:
        """What decides its numbers: no name that is only shown, and no option that changes none of them."""
        recipe = _unnamed(self.config["recipe"])
        budget = {"max_bytes": self.config["max_bytes"], "model_bytes": self.model_bytes}
        decides: dict[str, Any] = {"kind": self.kind, "keys": self.keys, "refusal": self.refusal, **budget}
        if self.kind == PROBE:
            policy = {key: self.config[key] for key in ("selection", "quota", "ranked_form")}
            policy |= {"head": self.config["method"]["head"], "stored": self.config["loop"]["test_stored_form"]}
            decides |= self._of_job | {"policy": policy, "seed": self.seed, "share": self.probe["share"]}
            decides |= {"as_many_as": None if self.as_many_as is None else _unnamed(self.as_many_as)}
        else:
            loop = {key: value for key, value in self.config["loop"].items() if key not in _MAY_CHANGE}
            data = {key: value for key, value in self.config["data"].items() if key not in _OF_FORM}
            decides |= {"config": {**self.config, "recipe": recipe, "loop": loop, "data": data}}
            decides |= {"weights": self.weights} if self.weights else {}
        if self.refusal:  # nothing is measured: each has a folder of its own
            decides |= self.names
        used = {
            kind: {name: place for name, place in places.items() if _mentions(decides, name)}
            for kind, places in self.own.items()
        }
        return decides | {"own": {kind: places for kind, places in used.items() if places}}

    @property
    def _of_job(self) -> dict[str, Any]:
        return self.shared | {"recipe": _unnamed(self.config["recipe"]), "refusal": self.refusal}

    @property
    def key(self) -> str:
        """The name of what decides its numbers."""
        return digest(self.document)

    @property
    def job(self) -> str:
        """The name of the job that measures it: a probe stores a recipe once for all budgets, seeds and methods."""
        if self.kind != PROBE:
            return self.key
        return digest(self._of_job)

    @property
    def group(self) -> str:
        """The name of what jobs have in common that a worker keeps between them."""
        return digest(self.shared) if self.kind == PROBE else self.key


def _unnamed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {key: part for key, part in recipe.items() if key != "name"}


def _mentions(value: Any, name: str) -> bool:
    if isinstance(value, Mapping):
        return any(_mentions(inner, name) for inner in value.values())
    if isinstance(value, list | tuple):
        return any(_mentions(inner, name) for inner in value)
    return bool(value == name)


def cells_of(design: Design, facts: Facts) -> list[Cell]:
    """Return the cells of a configuration, those of equal numbers too; SchemaError if no recipe goes with an option."""
    refusals, fits = dict[tuple[str, str, str], str](), set[tuple[str, str, str]]()
    cells = []
    for kind, data, method, recipe, budget, seed in design.crossed():
        config, refusal = _config(design, kind, data, method, recipe, seed)
        row = (kind, data.name, method)
        if refusal:
            refusals.setdefault(row, refusal)
        else:
            fits.add(row)
        cells.append(_cell(design, facts, (kind, data, method, recipe, budget, seed), config, refusal))
    for row, refusal in refusals.items():
        if row not in fits:  # it is the option that is wrong, not how it goes with a recipe
            raise SchemaError(f"data {row[1]!r} with method {row[2]!r}: {refusal}")
    return cells


def _config(design: Design, kind: str, data: Data, method: str, recipe: Recipe, seed: int) -> tuple[TrainConfig, str]:
    try:
        return design.config(kind, data, method, recipe, seed), ""
    except SchemaError as error:
        return TrainConfig(seed=seed), str(error)


def _cell(
    design: Design,
    facts: Facts,
    crossed: tuple[str, Data, str, Recipe, Budget, int],
    config: TrainConfig,
    refusal: str,
) -> Cell:
    kind, data, method, recipe, budget, seed = crossed
    known, memory, model, weights = DataFacts("", "", 0), 0, 0, ""
    if not refusal:
        known, weights = facts.data(config, data.folder), facts.weights(config)
    if not (refusal and budget.needs_sizes):
        try:
            memory, model = budget.split(facts.sizes(config, data.folder) if budget.needs_sizes else None)
        except BudgetTooSmallError as error:
            refusal = str(error)
    document = config.to_json() | {"recipe": recipe.to_json(), "max_bytes": str(memory)}
    counted = next((one for one in design.recipes if one.name == design.as_many_as.get(recipe.name)), None)
    return Cell(
        kind=kind,
        data=data.name,
        recipe=recipe.name,
        method=method,
        budget=str(budget),
        seed=seed,
        folder=str(data.folder.absolute()),
        keys=(known.train, known.test),
        weights=weights,
        config=document,
        model_bytes=model,
        probe=dataclasses.asdict(design.probe),
        as_many_as=None if counted is None else counted.to_json(),
        own=design.own,
        refusal=refusal,
    )


class Cells:
    """The folders of cells below a folder, each named by what tables call the cell, and by its key."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "cells"
        self._known: dict[str, Path] = {}

    def place(self, cell: Cell) -> Path:
        """Return the folder of a cell; it stays when the names of the cell change."""
        if not self._known and self.folder.is_dir():
            self._known = {path.name.rpartition("-")[2]: path for path in sorted(self.folder.iterdir())}
        key = cell.key
        if key not in self._known:
            names = [cell.kind, cell.data, cell.recipe, cell.method, cell.budget, str(cell.seed)]
            words = re.sub(r"[^A-Za-z0-9.]+", "_", "-".join(names))
            self._known[key] = self.folder / f"{words[:100]}-{key}"
        return self._known[key]

    def state(self, cell: Cell) -> State:
        """Say how far a cell is."""
        if self.result(cell) is not None:
            return "done"
        return "left" if read_mapping(self.place(cell) / "failure.json", "reason") is None else "failed"

    def is_damaged(self, cell: Cell) -> bool:
        """Say whether there is a result that is none: the cell is left then."""
        return (self.place(cell) / "result.json").exists() and self.result(cell) is None

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """Return what was measured."""
        return read_mapping(self.place(cell) / "result.json", "phases", "wall_seconds", "versions")

    def failure(self, cell: Cell) -> dict[str, Any] | None:
        """Return why it failed, unless it is done since."""
        if self.result(cell) is not None:
            return None
        return read_mapping(self.place(cell) / "failure.json", "reason")

    def finish(self, cell: Cell, result: Mapping[str, Any]) -> None:
        """Keep what was measured: this finishes the cell."""
        self._describe(cell)
        write_json(self.place(cell) / "result.json", result)
        (self.place(cell) / "failure.json").unlink(missing_ok=True)

    def fail(self, cell: Cell, reason: str, trace: str = "") -> None:
        """Keep why a cell failed."""
        self._describe(cell)
        document = {"reason": reason, "traceback": trace, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        write_json(self.place(cell) / "failure.json", document)

    def forget_failure(self, cell: Cell) -> None:
        """Let a cell that failed be run again."""
        (self.place(cell) / "failure.json").unlink(missing_ok=True)

    def _describe(self, cell: Cell) -> None:
        write_json(self.place(cell) / "cell.json", {**cell.names, "decides": cell.document, "config": cell.config})

    @contextlib.contextmanager
    def held(self, cell: Cell) -> Iterator[bool]:
        """Hold a cell for one process; False where another holds it."""
        place = self.place(cell)
        place.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(place / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()
