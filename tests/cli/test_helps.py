"""The help of each command, at a terminal of 80 columns, and what is read out of it."""

import itertools
import os

import pytest

from exmem.cli.commands import COMMANDS, load_command
from exmem.cli.helps import options_of
from tests.cli.running import outcome

NEEDS_TORCH = {"advise", "train"}  # to say what their options are
NAMES = [pytest.param(name, marks=pytest.mark.torch) if name in NEEDS_TORCH else name for name in COMMANDS]


@pytest.fixture
def shown(monkeypatch, capsys):
    """The lines of a help at so many columns."""

    def help_of(*words, columns=80):
        monkeypatch.setenv("COLUMNS", str(columns))
        code, out, err = outcome([*words, "--help"], monkeypatch, capsys)
        assert (code, err) == (0, "")
        return out.splitlines()

    return help_of


@pytest.mark.parametrize("columns", [60, 80, 100])
@pytest.mark.parametrize("name", NAMES)
def test_no_line_is_wider_than_the_terminal(shown, name, columns):
    assert max(map(len, shown(name, columns=columns))) <= columns


@pytest.mark.parametrize("name", NAMES)
def test_no_line_ends_before_it_is_full(shown, name):
    lines = [line.strip("│") for line in shown(name) if line.startswith("│")]
    width = len(lines[0]) - 1  # a blank before the border
    for line, below in itertools.pairwise(lines):
        indent = len(below) - len(below.lstrip())
        goes_on = indent >= 6 and len(line) - len(line.lstrip()) == indent
        if goes_on:
            assert len(line.rstrip()) + 1 + len(below.split()[0]) > width, (line, below)


def test_the_help_of_all_is_no_wider_than_the_terminal(shown):
    for columns in (60, 80):
        assert max(map(len, shown(columns=columns))) <= columns


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_told_of(name):
    options = options_of(load_command(name))
    assert all(option.about for option in options)
    assert ("-h", "--help") in [option.names for option in options]


def test_the_columns_of_the_terminal_are_left_as_they_were(monkeypatch):
    monkeypatch.setenv("COLUMNS", "77")
    options_of(load_command("info"))
    assert os.environ["COLUMNS"] == "77"
    monkeypatch.delenv("COLUMNS")
    options_of(load_command("info"))
    assert "COLUMNS" not in os.environ


def test_docstrings_are_as_they_were_after_a_help(shown):
    from exmem.cli import caption

    before = caption.caption.__doc__, caption.Model.__doc__
    shown("caption")
    assert (caption.caption.__doc__, caption.Model.__doc__) == before
