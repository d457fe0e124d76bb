"""What mkdocs asks while it builds: what is made of the package, and pictures that lie beside their results."""

import contextlib
import io
import os
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from exmem.cli.ending import CODES
from exmem.cli.main import COMMANDS, main
from exmem.errors import ExmemError

RESULTS = Path(__file__).parent.parent / "bench" / "results"
WIDTH = 100


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pictures of the results where the page that includes their text links to them."""
    for picture in sorted(RESULTS.rglob("*.png")):
        place = f"explanation/results/{picture.relative_to(RESULTS).as_posix()}"
        files.append(File.generated(config, place, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put in the place of some comments what only the package knows."""
    made = {"exmem --help": help_of, "commands": commands, "tree of errors": tree_of_errors, "exit codes": exit_codes}
    for comment, make in made.items():
        if (mark := f"<!-- {comment} -->") in markdown:
            markdown = markdown.replace(mark, make())
    return markdown


def commands() -> str:
    """Return the help of every command, each under a heading."""
    return "\n\n".join(f"## exmem {name}\n\n{help_of(name)}" for name in COMMANDS)


def help_of(*words: str) -> str:
    """Return what `exmem WORDS --help` prints, at a fixed width and without colours, as a block."""
    plain = mock.patch.dict(os.environ, {"COLUMNS": str(WIDTH), "NO_COLOR": "1"})
    argv = mock.patch.object(sys, "argv", ["exmem", *words, "--help"])
    with plain, argv, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main()
        except SystemExit as ended:
            if ended.code:
                raise RuntimeError(f"exmem {' '.join(words)} --help: exit code {ended.code}") from None
    lines = [part for line in out.getvalue().splitlines() for part in textwrap.wrap(line, WIDTH) or [""]]
    return "\n".join(["```text", *lines, "```"])


def tree_of_errors() -> str:
    """Return the errors of exmem, each below what it is a kind of, and beside what else it is."""

    def lines(error: type[Exception], depth: int) -> list[str]:
        others = [base.__name__ for base in error.__bases__ if not issubclass(base, ExmemError)]
        also = f" ({', '.join(others)})" if others and error is not ExmemError else ""
        kinds = [kind for kind in error.__subclasses__() if kind.__module__ == error.__module__]  # not those of tests
        below = [line for kind in kinds for line in lines(kind, depth + 1)]
        return [f"{'    ' * depth}{error.__name__}{also}", *below]

    return "\n".join(["```text", *lines(ExmemError, 0), "```"])


def exit_codes() -> str:
    """Return the exit codes of the command line as a table."""
    return "\n".join(["| code | |", "| ---: | --- |", *(f"| {code} | {text} |" for code, text in CODES.items())])
