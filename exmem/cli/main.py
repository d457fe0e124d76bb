"""The command `exmem`."""

import sys

import tyro

from exmem.cli.info import info
from exmem.errors import ExmemError

__all__ = ["main"]


def main() -> None:
    """Run the command line; an error of exmem becomes one line and exit code 1.

    Raises
    ------
    SystemExit
        With code 1 when something that was asked for cannot be done, 2 when it was asked for wrongly.
    """
    try:
        tyro.extras.subcommand_cli_from_dict({"info": info}, description="Exemplar memory under a budget of bytes.")
    except ExmemError as error:
        sys.stderr.write(f"exmem: {error}\n")
        raise SystemExit(1) from None
