"""`exmem completion`: a script by which a shell completes commands and options."""

import sys
from typing import Annotated, Literal

import tyro

from exmem.cli.commands import COMMANDS, load_command, summary
from exmem.cli.completion.scripts import SCRIPTS, Completed
from exmem.cli.helps import Option, options_of
from exmem.cli.output import make_console

__all__ = ["completion"]

_FOR_ALL = Option(("--debug",), "", "show the traceback of whatever ends the command")


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional, tyro.conf.arg(metavar="SHELL")], /
) -> None:
    """Print a script by which bash, zsh or fish completes commands, options, choices and files.

    The script holds all that it offers, so that no tab starts Python; write it to a file once, and again after an
    update, which takes seconds. Without torch the options of train and advise are left out.

    bash: exmem completion bash > ~/.local/share/bash-completion/completions/exmem

    zsh: exmem completion zsh > ~/.zfunc/_exmem, with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc

    fish: exmem completion fish > ~/.config/fish/completions/exmem.fish

    Make the folder first where there is none, and start the shell anew.

    Parameters
    ----------
    shell : {"bash", "zsh", "fish"}
        Which shell: bash, zsh or fish.
    """
    commands = []
    for name in COMMANDS:
        try:
            options = options_of(load_command(name))
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] == "exmem":
                raise
            make_console(stderr=True).print(f"the options of {name} are left out: they need the package {error.name}")
            options = []
        commands.append(Completed(name, summary(name), [*options, _FOR_ALL]))
    sys.stdout.write(SCRIPTS[shell](commands))
