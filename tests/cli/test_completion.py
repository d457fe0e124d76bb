"""`exmem completion`: what shells offer by its scripts, asked of the shells themselves."""

import os
import pty
import select
import shutil
import subprocess
import time

import pytest

from exmem.cli.commands import COMMANDS, load_command
from exmem.cli.completion.command import completion
from exmem.cli.helps import Option
from tests.cli.running import outcome

SHELLS = ("bash", "zsh", "fish")


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The script of each shell, in a folder with some files to complete."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "run 1").mkdir()
    (folder / "runs.txt").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        for shell in SHELLS:
            with (folder / f"exmem.{shell}").open("w") as file:
                patch.setattr("sys.stdout", file)
                completion(shell)
    return folder


def in_bash(folder, line):
    """What bash offers for the last word of a line, as readline would hand it to the function."""
    script = """
    source exmem.bash
    [[ $(complete -p exmem) == "complete -o default -F _exmem exmem" ]] || exit 3
    compopt() { files=$1; }  # readline alone has it
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); files=-o
    _exmem
    if [[ ${#COMPREPLY[@]} == 0 && $files == -o ]]; then COMPREPLY=(FILES); fi
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    command = [shutil.which("bash"), "--norc", "-c", script, "bash", *line.split(" ")]
    nothing = {"PATH": str(folder)}  # no tab starts a program
    return subprocess.run(command, cwd=folder, env=nothing, capture_output=True, text=True, check=True).stdout.split()


def in_fish(folder, line):
    home = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    command = ["fish", "--no-config", "-c", 'source exmem.fish; complete -C "$argv"', line]
    done = subprocess.run(command, cwd=folder, env=home, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [offered.partition("\t")[0] for offered in done.stdout.splitlines()]


# What is typed, and all that is offered for its last word.
OFFERED = [
    ("exmem tra", ["train", "tradeoff"]),
    ("exmem --debug chec", ["check"]),
    ("exmem completion ", [*SHELLS]),
    ("exmem caption --dtype ", ["auto", "float32", "float16", "bfloat16"]),
    ("exmem caption --dtype fl", ["float32", "float16"]),
    ("exmem tradeoff config --executor r", ["ray"]),
    ("exmem info x --js", ["--json"]),
    ("exmem import x y --max", ["--max-bytes"]),
    ("exmem info x --deb", ["--debug"]),
    ("exmem show x --most ", []),  # a number
    pytest.param("exmem train x --recipe.sc", ["--recipe.scorer"], marks=pytest.mark.torch),
    pytest.param("exmem train x --quota ", ["bytes", "counts", "frequency"], marks=pytest.mark.torch),
    pytest.param("exmem advise x --tuner.b", ["--tuner.blocks"], marks=pytest.mark.torch),
]


@pytest.mark.parametrize("shell", [pytest.param(shell, marks=needs(shell)) for shell in ("bash", "fish")])
@pytest.mark.parametrize(("line", "offered"), OFFERED)
def test_what_is_offered_for_a_word_is_all_that_it_may_be(scripts, shell, line, offered):
    assert sorted({"bash": in_bash, "fish": in_fish}[shell](scripts, line)) == sorted(offered)


@needs("bash")
def test_bash_offers_commands_first_and_files_where_one_may_be_named(scripts):
    assert in_bash(scripts, "exmem ") == [*COMMANDS, "--help", "--version", "--debug"]
    for line in ("exmem info ", "exmem show x --out ", "exmem data run", "exmem demo --out run"):
        assert in_bash(scripts, line) == ["FILES"]
    assert in_bash(scripts, "exmem caption --dtype = fl") == ["float32", "float16"], "--dtype=fl, as bash divides it"


@needs("fish")
def test_fish_offers_files_where_one_may_be_named_and_only_there(scripts):
    assert sorted(in_fish(scripts, "exmem ")) == sorted(COMMANDS)
    for line in ("exmem info run", "exmem show x --out run"):
        assert in_fish(scripts, line) == ["run 1/", "runs.txt"]


@needs("zsh")
def test_zsh_completes_at_a_terminal(scripts):
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(scripts)
        os.execvpe("zsh", ["zsh", "-f", "-i"], {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(scripts)})
    try:
        _typed(terminal, "PS1=; autoload -Uz compinit; compinit -D -u; source exmem.zsh; echo re''ady\n", "ready")
        for line, whole in (
            ("exmem tradeo\t", "exmem tradeoff "),
            ("exmem caption --dtyp\t", "exmem caption --dtype "),
            ("exmem caption --dtype bf\t", "exmem caption --dtype bfloat16 "),
            ("exmem --debug completion f\t", "exmem --debug completion fish "),
            ("exmem info runs\t", "exmem info runs.txt "),
        ):
            _typed(terminal, f"echo; {line}", whole)
            _typed(terminal, "\x15echo do''ne\n", "done")  # what was typed is cleared
    finally:
        os.close(terminal)
        os.waitpid(process, 0)


def _typed(terminal, keys, expected):
    """Type keys, and wait until the terminal shows what is expected."""
    os.write(terminal, keys.encode())
    shown, began = "", time.monotonic()
    while expected not in shown:
        assert time.monotonic() - began < 60, shown
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 65536).decode()


@pytest.mark.parametrize("shell", [pytest.param(shell, marks=needs(shell)) for shell in SHELLS])
def test_a_script_is_one_that_its_shell_can_read(scripts, shell):
    done = subprocess.run([shell, "-n", scripts / f"exmem.{shell}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_command_whose_package_lacks_is_completed_without_its_options(monkeypatch, capsys):
    def loaded(name):
        if name == "train":
            raise ModuleNotFoundError("no torch", name="torch")
        return load_command(name)

    monkeypatch.setattr("exmem.cli.completion.command.load_command", loaded)
    completion("fish")
    out, err = capsys.readouterr()
    assert "the options of train are left out: they need the package torch" in err.splitlines()
    told = [line for line in out.splitlines() if "'__exmem_command train'" in line]
    assert ["-l debug " in line for line in told] == [True]
    assert "-f -a train -d " in out


@pytest.mark.parametrize("words", [[], ["csh"], ["bash", "zsh"]], ids=str)
def test_another_shell_is_asked_wrongly(monkeypatch, capsys, words):
    code, out, err = outcome(["completion", *words], monkeypatch, capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_an_option_says_what_it_takes_by_a_few_words_or_not_at_all():
    assert Option(("--dtype",), "{auto,float32}", "").choices == ("auto", "float32")
    assert Option(("--scorer",), "NAME[:OPTION=VALUE,...]", "").choices == ()
    assert Option(("--json",), "", "").choices == ()
