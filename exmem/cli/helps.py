"""The help of a command: shown to a person, and read for what its options are."""

import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import os
import re
import shutil
import textwrap
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import tyro
from typing_extensions import override

from exmem.cli.commands import Command

__all__ = ["Option", "Shown", "folded", "options_of", "parse"]

_HEAD = re.compile(r"│ (-.*?)(?:  +(.*?))? *│")
_MORE = re.compile(r"│  +(\S.*?) *│")
_DESCRIPTION = re.compile(r"(?:^ {4}\S.*(?:\n|\Z))+", re.MULTILINE)  # of a parameter
_NAME = re.compile(r"(?:^|, )(--?[\w.-]+)")


class Option(NamedTuple):
    """An option of a command by its names, with what it takes ("" for a flag) and what is told of it."""

    names: tuple[str, ...]
    takes: str
    about: str

    @property
    def choices(self) -> tuple[str, ...]:
        """What it may be, where that is a few words."""
        known = re.fullmatch(r"\{([^{}]*)\}", self.takes)
        return tuple(known[1].split(",")) if known else ()


class Shown(io.StringIO):
    """A help on its way to stdout, drawn with the lines and colours that it can have there."""

    encoding = ""

    def __init__(self, encoding: str | None, *, colours: bool) -> None:
        super().__init__()
        self.encoding, self._colours = (encoding or "ascii").lower(), colours

    @override
    def isatty(self) -> bool:
        return self._colours


def parse(command: Command, words: Sequence[str]) -> Callable[[], None]:
    """Return a command with its words; SystemExit if they are wrong, which tyro says on stderr, or ask for help."""
    function = command.make(words)

    @functools.wraps(function)
    def bound(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(function, *args, **kwargs)

    with _whole_paragraphs([function, bound, *_groups(function)]):
        call: Callable[[], None] = tyro.cli(bound, prog=f"exmem {command.name}", args=words, **command.options)
    return call


def _groups(thing: Any) -> Iterator[type]:
    """Yield the dataclasses whose fields are options of a function, or of a dataclass."""
    for kind in typing.get_type_hints(thing).values():
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield kind
            yield from _groups(kind)


@contextlib.contextmanager
def _whole_paragraphs(things: Sequence[Any]) -> Iterator[None]:
    """Give docstrings without the line breaks of their paragraphs, at which tyro would break lines of a help, too."""
    before = [thing.__doc__ for thing in things]
    try:
        for thing, text in zip(things, before, strict=True):
            thing.__doc__ = _joined(text or "")
        yield
    finally:
        for thing, text in zip(things, before, strict=True):
            thing.__doc__ = text


def _joined(text: str) -> str:
    about, heading, sections = inspect.cleandoc(text).partition("\nParameters\n")
    paragraphs = (" ".join(paragraph.split()) for paragraph in about.split("\n\n"))
    return (
        "\n\n".join(paragraphs)
        + heading
        + _DESCRIPTION.sub(lambda lines: f"    {' '.join(lines[0].split())}\n", sections)
    )


def options_of(command: Command) -> list[Option]:
    """Return the options of a command, as its help tells them."""
    shown = Shown("utf-8", colours=False)
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "120"  # from 130 on tyro puts boxes side by side
    try:
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            parse(command._replace(make=lambda _: command.make([])), ["--help"])
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    return _options(shown.getvalue().splitlines())


def _options(lines: Sequence[str]) -> list[Option]:
    options: list[Option] = []
    for line in lines:
        if head := _HEAD.fullmatch(line):
            takes = _NAME.sub("", head[1]).strip().removeprefix("{None}|")
            options.append(Option(tuple(_NAME.findall(head[1])), takes, head[2] or ""))
        elif options and (more := _MORE.fullmatch(line)):
            options[-1] = options[-1]._replace(about=f"{options[-1].about} {more[1]}".strip())
    return options


def folded(told: str) -> str:
    """Fold what stands above the boxes of a help to the terminal, as tyro does in them."""
    columns = max(40, shutil.get_terminal_size().columns)
    about, boxes, below = re.split(r"(?m)(^.*(?:─{3}|-{9}).*$)", told, maxsplit=1)
    lines = (textwrap.wrap(line, columns, break_on_hyphens=False) or [""] for line in about.split("\n"))
    return "\n".join(itertools.chain.from_iterable(lines)) + boxes + below
