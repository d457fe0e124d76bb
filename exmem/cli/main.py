"""The command `exmem`."""

import importlib
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from exmem import __version__
from exmem.errors import ExmemError

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "data": ("exmem.cli.data:data", "Check a folder of images, texts and classes before anything is trained on it."),
    "train": (
        "exmem.cli.train:train_command",
        "Learn the classes of a folder phase after phase, with an exemplar memory under a strict budget of bytes.",
    ),
    "demo": (
        "exmem.cli.demo.command:demo",
        "Learn 22 classes of stickers in 5 phases with four kinds of exemplars at one budget; compare them.",
    ),
    "info": ("exmem.cli.info:info", "Describe a memory or a run."),
    "show": ("exmem.cli.show:show", "Draw what is stored of exemplars, beside the originals where the data is known."),
    "score": ("exmem.cli.score:score", "Draw what each scorer sees in one image and text, and what would be kept."),
    "check": ("exmem.cli.upkeep:check", "Read every byte of a memory and tell what is damaged."),
    "repair": ("exmem.cli.upkeep:repair", "Drop what is damaged."),
    "compact": ("exmem.cli.upkeep:compact", "Pack what is held into as few segments as it needs."),
    "export": ("exmem.cli.upkeep:export", "Write all exemplars as PNG and JSON, for other programs."),
    "import": ("exmem.cli.upkeep:import_", "Make a memory out of what `exmem export` wrote."),
}
"""Name -> where the function is (imported only when it is called, for some need torch), and its first line."""


def main() -> None:
    """Run the command line; an error of exmem becomes one line and exit code 1. `exmem --version` tells the version.

    Raises
    ------
    SystemExit
        With code 130 when interrupted, 1 when something that was asked for cannot be done, 2 when it was asked for
        wrongly.
    ModuleNotFoundError
        If exmem itself is incomplete; a missing package of others is named with the remedy instead.
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
    try:
        _run(words[0], words[1:])
    except ExmemError as error:
        sys.stderr.write(f"exmem: {error}\n")
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "exmem":
            raise
        sys.stderr.write(f"exmem: this needs the package {error.name}; pip install 'exmem[train,demo]'\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        sys.stderr.write("exmem: interrupted; run the same command again to continue\n")
        raise SystemExit(130) from None


def _run(name: str, words: Sequence[str]) -> None:
    import tyro

    module, _, function = COMMANDS[name][0].partition(":")
    command: Callable[..., Any] = getattr(importlib.import_module(module), function)
    registry = None
    if name == "train":  # its defaults are those of the recipe that its words name
        from exmem.cli.train import parts

        command, registry = command(words), parts
    tyro.cli(command, prog=f"exmem {name}", args=words, registry=registry)


def _help() -> str:
    width = max(map(len, COMMANDS)) + 4
    lines = ["usage: exmem [-h] [--version] COMMAND ...", "", "Exemplar memory under a budget of bytes.", ""]
    for name, (_, summary) in COMMANDS.items():
        text = textwrap.wrap(summary, 96 - width)
        lines += [f"  {name:<{width - 2}}{text[0]}", *(" " * width + line for line in text[1:])]
    return "\n".join([*lines, "", "`exmem COMMAND --help` explains each."]) + "\n"
