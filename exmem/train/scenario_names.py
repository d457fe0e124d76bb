"""Scenarios as people name them, and as files hold them: the classes of each phase by their names."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exmem.errors import SchemaError
from exmem.recipes.recipe import read_document
from exmem.tokens.checks import shown

__all__ = ["PILOT_SEED", "check_scenario", "is_scenario_file", "read_phases", "scenario_document", "sizes_of"]

PILOT_SEED = 1993
"""Seed of the class order in the configurations of PILOT (`exps/*.json`), and of PyCIL and iCaRL before it."""

_NAME = re.compile(r"B(\d+)-Inc([1-9]\d*)")
_FILES = (".json", ".yaml", ".yml")


def is_scenario_file(scenario: str) -> bool:
    """Tell by its suffix whether a scenario is a file."""
    return Path(scenario).suffix.lower() in _FILES


def check_scenario(scenario: str) -> None:
    """Refuse what is neither a name nor, by its suffix, a file."""
    if not is_scenario_file(scenario) and not _NAME.fullmatch(scenario):
        raise SchemaError(
            f"data.scenario: expected a name such as B0-Inc10 or B50-Inc5, or a file that ends in one of "
            f"{list(_FILES)}, got {shown(scenario)}"
        )


def sizes_of(name: str, num_classes: int) -> list[int]:
    """Return the classes of each phase of a scenario by name, the last as small as it has to be; SchemaError if none.

    As `DataManager` of PILOT (LAMDA-PILOT, utils/data_manager.py): B0 is a first phase as large as an increment.
    """
    known = _NAME.fullmatch(name)
    assert known is not None
    base, increment = map(int, known.groups())
    first = base or increment
    if first > num_classes:
        raise SchemaError(
            f"data.scenario {name!r} has {first} classes in its first phase, the data has {num_classes}; choose another"
        )
    later = num_classes - first
    return [first, *[increment] * (later // increment), *([later % increment] if later % increment else [])]


def read_phases(file: str) -> list[list[str]]:
    """Read the names of the classes of each phase from a file; SchemaError if it holds no scenario."""
    document = read_document(file)
    if unknown := sorted(set(map(str, document)) - {"phases", "name"}):
        raise SchemaError(f"{file}: unknown keys {unknown}; known are ['phases', 'name']")
    phases = document.get("phases")
    if not isinstance(phases, list) or not phases:
        raise SchemaError(f"{file}: expected 'phases', a list of classes for each phase, got {shown(phases)}")
    return [_names(phase, f"{file}: phase {number}") for number, phase in enumerate(phases, 1)]


def _names(phase: Any, where: str) -> list[str]:
    if not isinstance(phase, list) or not phase:
        raise SchemaError(f"{where}: expected a list of names of classes, one or more, got {shown(phase)}")
    for name in phase:
        # An integer is a class whose label is that number; YAML reads `no` and `1.5` as something else than names.
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise SchemaError(f"{where}: expected names of classes, got {shown(name)}; write it in quotes")
    return [str(name) for name in phase]


def scenario_document(phases: Sequence[Sequence[str]], name: str | None) -> dict[str, Any]:
    """Return what a file holds of a scenario; its name, if it has one, is for people."""
    told = {} if name is None or is_scenario_file(name) else {"name": name}
    return {**told, "phases": [list(phase) for phase in phases]}
