"""The command `exmem`."""

import sys
from collections.abc import Callable
from typing import Any

import tyro

from exmem import __version__
from exmem.cli.data import data
from exmem.cli.demo.command import demo
from exmem.cli.info import info
from exmem.cli.score import score
from exmem.cli.show import show
from exmem.cli.train import train
from exmem.cli.upkeep import check, compact, export, import_, repair
from exmem.errors import ExmemError

__all__ = ["main"]

_COMMANDS: dict[str, Callable[..., Any]] = {
    "info": info,
    "show": show,
    "score": score,
    "check": check,
    "repair": repair,
    "compact": compact,
    "export": export,
    "import": import_,
    "data": data,
    "train": train,
    "demo": demo,
}


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
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"exmem {__version__}\n")
        return
    named = sys.argv[1:2]
    if named and not named[0].startswith("-") and named[0] not in _COMMANDS:  # also beside --help
        sys.stderr.write(f"exmem: unknown command {named[0]!r}; it is one of {', '.join(_COMMANDS)}\n")
        raise SystemExit(2)
    try:
        tyro.extras.subcommand_cli_from_dict(
            _COMMANDS,
            prog="exmem",
            description="Exemplar memory under a budget of bytes. `exmem --version` tells the version.",
        )
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
