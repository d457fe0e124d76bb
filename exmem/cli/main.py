"""The command `exmem`."""

import _thread
import ast
import importlib.util
import os
import sys
import textwrap
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from exmem import __version__
from exmem.errors import ExmemError, SchemaError

__all__ = ["COMMANDS", "main"]

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
}
"""Name -> where the function is; it is imported only when it is called, for some need torch."""


def main() -> None:
    """Run the command line: exit code 2 for what was asked wrongly, 1 for what cannot be done, 130 when interrupted.

    An error of exmem is one line; a missing package of others is named with the remedy. ModuleNotFoundError only if
    exmem itself is incomplete.
    """
    words = sys.argv[1:]
    if words == ["--version"]:
        sys.stdout.write(f"exmem {__version__}\n")
        return
    if not words or words[0] in {"-h", "--help"}:
        sys.stdout.write(_help())
        raise SystemExit(0 if words else 2)
    if words[0] not in COMMANDS:
        sys.stderr.write(f"exmem: unknown command {words[0]!r}; it is one of {', '.join(COMMANDS)}\n")
        raise SystemExit(2)
    warnings.showwarning = _warn
    before, sys.unraisablehook = sys.unraisablehook, _raise_again
    try:
        _run(words[0], words[1:])
        sys.stdout.flush()  # a broken pipe is to be noticed here
    except ExmemError as error:
        sys.stderr.write(f"exmem: {error}\n")
        raise SystemExit(2 if isinstance(error, SchemaError) else 1) from None
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "exmem":
            raise
        sys.stderr.write(f"exmem: this needs the package {error.name}; pip install 'exmem[train,demo]'\n")
        raise SystemExit(1) from None
    except BrokenPipeError:  # whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        sys.stderr.write("exmem: interrupted; run the same command again to continue\n")
        raise SystemExit(130) from None
    finally:
        sys.unraisablehook = before


def _raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Interrupt once more, a moment later, where an interrupt came in a finaliser or callback and Python drops it."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(unraisable)


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of exmem as one line, others with their place."""
    place = "" if category.__module__.startswith("exmem.") else f"{filename}:{lineno}: {category.__name__}: "
    sys.stderr.write(f"exmem: warning: {place}{message}\n")


def _run(name: str, words: Sequence[str]) -> None:
    from exmem.cli.words import read_words

    module, _, function = COMMANDS[name].partition(":")
    commands: Any = importlib.import_module(module)
    if name == "train":  # its defaults are those of the recipe that its words name
        call = read_words(name, commands.train_command, words, registry=commands.parts)
    else:
        options = {"registry": commands.parts} if name == "advise" else {}
        call = read_words(name, lambda _: getattr(commands, function), words, **options)
    call()


def _help() -> str:
    width = max(map(len, COMMANDS)) + 4
    lines = ["usage: exmem [-h] [--version] COMMAND ...", "", "Exemplar memory under a budget of bytes.", ""]
    for name, place in COMMANDS.items():
        text = textwrap.wrap(_summary(place), 96 - width)
        lines += [f"  {name:<{width - 2}}{text[0]}", *(" " * width + line for line in text[1:])]
    return "\n".join([*lines, "", "`exmem COMMAND --help` explains each."]) + "\n"


def _summary(place: str) -> str:
    """Return the first line of a function's docstring, read and not imported."""
    module, _, function = place.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    raise AssertionError(f"no function {place}")
