"""`exmem` in a process of its own, forked off one that has imported everything: as from a shell, but at once."""

import multiprocessing
import os
import sys
from pathlib import Path

__all__ = ["fork_command", "outcome", "read_terminal"]

_IMPORTED = ["datasets", "exmem.cli.train", "exmem.report.run", "matplotlib.figure", "peft", "rich.progress"]
_IMPORTED += [
    f"transformers.models.{name}" for name in ("bert.modeling_bert", "bert.tokenization_bert", "vit.modeling_vit")
]
_FORKS = multiprocessing.get_context("forkserver")


def _run(words: list[str], environment: dict[str, str], said: str) -> None:
    import torch

    from exmem.cli.main import main

    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.argv = ["exmem", *words]
    main()


def outcome(words, monkeypatch, capsys):
    """Run a command in this process; return its exit code and what it printed."""
    from exmem.cli.main import main

    monkeypatch.setattr(sys, "argv", ["exmem", *map(str, words)])
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code
    return code, *capsys.readouterr()


def fork_command(words, environment, said: Path):
    """Start a command that writes what it says to a file; return its process."""
    _FORKS.set_forkserver_preload(_IMPORTED)
    process = _FORKS.Process(target=_run, args=(list(words), environment, os.fspath(said)))
    process.start()
    return process


def read_terminal(master: int) -> str:
    """Read what is written at a terminal until all who have it are gone, and close it."""
    shown = b""
    try:
        while data := os.read(master, 65536):
            shown += data
    except OSError:  # Linux ends the output of a terminal with an error
        pass
    os.close(master)
    return shown.decode()
