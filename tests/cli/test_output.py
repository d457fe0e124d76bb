"""What commands print: whole lines to programs, tables that fit to terminals."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from rich.cells import cell_len
from rich.console import Console

from exmem import ExemplarMemory
from exmem.cli.output import print_table
from tests.cli.running import read_terminal
from tests.exemplars import exemplar, schema

START = [sys.executable, "-c", "from exmem.cli.main import main; main()"]
LONG = "a class with a name that is far longer than any terminal of eighty columns would show on one line [red]:x:"


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / ("deep" * 20) / "[bold]m:smile:"
    place.parent.mkdir()
    with ExemplarMemory.create(place, schema=schema("lossless"), max_bytes="200kB", durable=False) as memory:
        memory.add([exemplar(seed, label=seed % 2, kept=4) for seed in range(12)])
        memory.annotate(class_names={0: LONG})
    return place


def piped(*arguments):
    environment = os.environ | {"COLUMNS": "40"}  # of the terminal that the pipe was started from
    return subprocess.run([*START, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment)


def at_terminal(*arguments, columns):
    """Run a command at a terminal of so many columns and return the lines that it shows."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [*START, *map(str, arguments)], stdin=terminal, stdout=terminal, env=environment | {"TERM": "xterm"}
    )
    os.close(terminal)
    shown = read_terminal(master)
    assert process.wait() == 0
    return shown.replace("\x1b[0m", "").replace("\x1b[1m", "").splitlines()


def test_what_is_piped_is_not_wrapped_whatever_the_terminal(tmp_path, folder):
    lines = piped("info", folder).stdout.splitlines()
    assert lines[0].startswith(f"{folder}: 12 exemplars, ")
    assert lines[0].endswith("quota bytes")
    assert sum(LONG in line for line in lines) == 1
    assert any("payload bytes" in line and "weight" in line for line in lines)
    assert piped("check", folder).stdout == "no damage\n"
    shown = piped("show", folder, "--out", tmp_path / "one.html", "--class", LONG)
    assert shown.stdout == f"Exemplars: {tmp_path / 'one.html'}\n"
    assert piped("export", folder, tmp_path / "out").stdout == f"12 exemplars in {tmp_path / 'out'}\n"


def test_damage_is_piped_one_a_line_whatever_its_names(folder):
    shard = sorted(folder.glob("e*/image/c.*"))[0]
    data = bytearray(shard.read_bytes())
    data[7] ^= 4
    shard.write_bytes(bytes(data))
    told = piped("check", folder)
    assert told.returncode == 3
    (line,) = [line for line in told.stdout.splitlines() if "exemplar 0" in line]
    assert line.startswith("e0/image/")
    assert told.stdout.count("\n") == 2


def test_a_table_at_a_terminal_of_40_columns_is_readable_and_says_what_it_leaves_out(folder):
    lines = at_terminal("info", folder, columns=40)
    assert all(cell_len(line) <= 40 for line in lines)
    start = next(at for at, line in enumerate(lines) if "exemplars" in line and "class" in line)
    table = [line for line in lines[start:] if line.startswith(("│", "┃"))]
    assert min(len(cell.strip("│┃")) for line in table for cell in line.split("│") if cell.strip("│┃")) > 8
    told = " ".join(" ".join(lines[-3:]).split())
    assert "Left out, for want of columns: " in told
    assert "--json shows all." in told
    folded = "".join(line.split("│")[1].strip() for line in table if line.startswith("│")).replace(" ", "")
    assert folded.startswith(f"0{LONG}1".replace(" ", "")[:40])


def test_a_table_at_a_terminal_of_100_columns_leaves_nothing_out(folder):
    lines = at_terminal("info", folder, columns=100)
    assert any("payload bytes" in line and "weight" in line for line in lines)
    assert "Left out" not in " ".join(lines)


COLUMNS = ("class", "exemplars", "payload bytes", "quota bytes", "weight")
ROWS = [("0 " + "temple" * 9, "1,204", "1,234,567", "2,345,678", "1"), ("1 roof", "3", "4", "5", "0.25")]


@pytest.mark.parametrize("width", range(14, 140, 6))
def test_numbers_are_whole_or_left_out_by_name_at_any_width(width):
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        print_table(console, COLUMNS, ROWS)
    lines = captured.get().splitlines()
    assert all(cell_len(line) <= width for line in lines)
    told = " ".join(" ".join(lines).split()).partition("Left out, for want of columns: ")[2].partition(";")[0]
    for at, name in enumerate(COLUMNS[1:], start=1):
        whole = all(any(f" {row[at]} " in line for line in lines) for row in ROWS)
        assert whole != (name in told.split(", "))


def test_a_table_without_rows_is_a_header():
    console = Console(width=80)
    with console.capture() as captured:
        print_table(console, COLUMNS, [])
    assert "payload bytes" in captured.get()
