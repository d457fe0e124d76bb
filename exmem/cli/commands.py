"""The commands: their names, where they are, and what the first line of each help says."""

import ast
import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["COMMANDS", "Command", "load_command", "summary"]

COMMANDS = {
    "data": "exmem.cli.data:data",
    "caption": "exmem.cli.caption:caption",
    "advise": "exmem.cli.advise:advise",
    "train": "exmem.cli.train:train",
    "eval": "exmem.cli.predict:evaluate",
    "predict": "exmem.cli.predict:predict",
    "tradeoff": "exmem.cli.tradeoff:tradeoff",
    "compare": "exmem.cli.compare:compare",
    "demo": "exmem.cli.demo.command:demo",
    "info": "exmem.cli.info:info",
    "show": "exmem.cli.show:show",
    "score": "exmem.cli.score:score",
    "check": "exmem.cli.upkeep:check",
    "repair": "exmem.cli.upkeep:repair",
    "compact": "exmem.cli.upkeep:compact",
    "export": "exmem.cli.upkeep:export",
    "import": "exmem.cli.upkeep:import_",
    "completion": "exmem.cli.completion.command:completion",
}
"""Name -> where the function is; it is imported only when it is called, for some need torch."""


class Command(NamedTuple):
    """A command that was imported: `make` makes its function, which may depend on its words."""

    name: str
    make: Callable[[Sequence[str]], Callable[..., None]]
    options: dict[str, Any]


def load_command(name: str) -> Command:
    """Import a command."""
    module, _, function = COMMANDS[name].partition(":")
    commands: Any = importlib.import_module(module)
    if name == "train":  # its defaults are those of the recipe that its words name
        return Command(name, commands.train_command, {"registry": commands.parts})
    options = {"registry": commands.parts} if name == "advise" else {}
    return Command(name, functools.partial(_given, getattr(commands, function)), options)


def _given(function: Callable[..., None], _: Sequence[str]) -> Callable[..., None]:
    return function


def summary(name: str) -> str:
    """Return the first line of a command's docstring, read and not imported."""
    module, _, function = COMMANDS[name].partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    raise AssertionError(f"no function {COMMANDS[name]}")
