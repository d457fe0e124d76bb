"""Colours and lines of boxes: at a terminal that has them, and nowhere else unless they are asked for."""

import os
import pty
import subprocess
import sys

import pytest

from exmem import ExemplarMemory
from tests.cli.running import read_terminal
from tests.exemplars import exemplar, schema

START = [sys.executable, "-c", "from exmem.cli.main import main; main()"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}}
ENVIRONMENT |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
WORDS = ["info MEMORY", "info --help", "export --help", "check MEMORY", "--help", "info MEMORY --json", "info nothing"]
UNWANTED = [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}]
WITH_COLOURS = WORDS[:2]  # a table, and a help


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colours")
    with ExemplarMemory.create(folder / "MEMORY", schema=schema(), max_bytes="100kB", durable=False) as memory:
        memory.add([exemplar(seed, label=seed % 2) for seed in range(4)])
    return folder


def at_terminal(folder, words, **environment):
    """What a command shows where stdout and stderr are a terminal."""
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [*START, *words.split()], cwd=folder, stdout=terminal, stderr=terminal, env=ENVIRONMENT | environment
    )
    os.close(terminal)
    shown = read_terminal(master)
    process.wait()
    return shown


def piped(folder, words, **environment):
    command, both = [*START, *words.split()], subprocess.STDOUT
    environment = ENVIRONMENT | environment
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=both, env=environment, check=False)
    return done.stdout.decode()


@pytest.mark.parametrize("words", WORDS)
def test_a_pipe_gets_no_colours(folder, words):
    shown = piped(folder, words)
    assert shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("words", WITH_COLOURS)
def test_a_terminal_gets_colours(folder, words):
    assert "\x1b[" in at_terminal(folder, words)


@pytest.mark.parametrize("environment", UNWANTED, ids=str)
@pytest.mark.parametrize("words", WORDS)
def test_a_terminal_gets_none_where_they_are_not_wanted_or_cannot_be(folder, words, environment):
    shown = at_terminal(folder, words, **environment)
    assert shown
    assert "\x1b" not in shown


def test_an_empty_no_color_asks_for_nothing(folder):
    assert "\x1b[" in at_terminal(folder, WITH_COLOURS[0], NO_COLOR="")


@pytest.mark.parametrize("words", WITH_COLOURS)
def test_a_pipe_gets_colours_where_they_are_forced(folder, words):
    shown = piped(folder, words, FORCE_COLOR="1")
    assert "\x1b[" in shown
    assert "\x1b[?25l" not in shown, "no bars, which hide the cursor"


def test_json_has_no_colours_though_they_are_forced(folder):
    assert "\x1b" not in piped(folder, "info MEMORY --json", FORCE_COLOR="1")


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_without_lines_gets_none_of_them(folder, words, encoding):
    shown = piped(folder, words, PYTHONIOENCODING=encoding)
    assert shown
    assert not any(0x2500 <= ord(letter) < 0x2580 for letter in shown)
    assert "\\u25" not in shown, "nor their numbers"


def test_a_name_that_the_encoding_lacks_ends_no_command(tmp_path):
    place = tmp_path / "Größe ✓"
    with ExemplarMemory.create(place, schema=schema(), max_bytes="100kB", durable=False) as memory:
        memory.add([exemplar(0)])
    done = subprocess.run(
        [*START, "info", place], env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"Gr\xf6\xdfe \u2713: 1 exemplars" in done.stdout
