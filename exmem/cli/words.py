"""The words of a command: what they mean, and what is wrong with them in one line."""

import contextlib
import difflib
import io
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import tyro

from exmem.cli.commands import Command
from exmem.cli.helps import Shown, folded, options_of, parse
from exmem.cli.output import has_colours
from exmem.errors import SchemaError
from exmem.store import parse_bytes

__all__ = ["Bytes", "BytesOrNone", "read_words"]


def _bytes(words: list[str]) -> str:
    parse_bytes(words[0])
    return words[0]


_BYTES: tyro.constructors.PrimitiveConstructorSpec[str] = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="BYTES",
    instance_from_str=_bytes,
    is_instance=lambda value: value is None or isinstance(value, str),
    str_from_instance=lambda value: [str(value)],
)
Bytes = Annotated[str, _BYTES]
"""Bytes as they are written, such as 64MB."""
BytesOrNone = Annotated[str | None, _BYTES]
"""The same, which may be left out."""


def read_words(command: Command, words: Sequence[str]) -> Callable[[], None]:
    """Return a command with its words; nothing of it is run. SchemaError says in one line what is wrong with them."""
    said, see = io.StringIO(), f"see `exmem {command.name} --help`"
    shown = Shown(sys.stdout.encoding, colours=has_colours(sys.stdout))
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown):
            return parse(command, words)
    except SchemaError as error:
        raise SchemaError(f"{error}; {see}") from error
    except SystemExit as ended:
        if not ended.code:  # it was asked for help
            sys.stdout.write(folded(shown.getvalue()))
            sys.stdout.flush()
            raise
        takes = {name: option.takes for option in options_of(command) for name in option.names}
        raise SchemaError(f"{_wrong(words, said.getvalue(), takes)}; {see}") from None


_RULE = re.compile(r"[│ ] *[─-]{9}")  # a box has lines only where the encoding does


def _wrong(words: Sequence[str], said: str, options: dict[str, str]) -> str:
    """Put what tyro says, in a box, into a line."""
    for word in words:
        option = word.partition("=")[0].replace("_", "-")
        if option.startswith("--") and option not in options:
            close = difflib.get_close_matches(option, options)
            return f"unknown option {option}" + (f"; close to it: {', '.join(close)}" if close else "")
    below = itertools.dropwhile(_RULE.match, said.splitlines()[1:])  # the title
    rows = [*itertools.takewhile(lambda row: not _RULE.match(row), below)]
    text = " ".join(row.strip("│ ") for row in rows)
    if text.startswith("Missing from"):
        return "missing: " + ", ".join(row.strip("│ ") for row in rows if re.match(r"[│ ] {5}\S", row))
    if known := re.fullmatch(r"invalid choice (.*) for argument '(.*)'. Expected one of \((.*?),?\)\.", text):
        return f"{known[2]}: expected one of {known[3]}, got {known[1]}"
    if known := re.fullmatch(r"Missing value for argument '(.*)'.*", text):
        return f"{known[1]}: expected {options.get(known[1]) or 'a value'}, got nothing"
    if known := re.fullmatch(r"Error parsing (\S+): (.*)", text):
        place, why = known.groups()
        if not place.startswith("--"):  # a group of options by an internal name; what is wrong names the option
            return why
        if got := re.match(
            r"(?:invalid literal|could not convert|.* valid parse|no type matching) .*?(\[.*?\]|'.*')", why
        ):
            return f"{place}: expected {options.get(place) or 'another value'}, got {got[1].strip('[]')}"
        return f"{place}: {why}"
    return re.sub(r"Unrecognized options: ", "nothing is known of: ", text)
