"""Scripts of completion, which hold all that they offer."""

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from exmem import __version__
from exmem.cli.helps import Option

__all__ = ["SCRIPTS", "Completed"]

_PLACES = {"CONFIG", "DATA", "FILE", "FOLDER", "IMAGE", "MODEL", "RUN", "STORE"}  # what may be a file or folder
_SHELLS = ("bash", "zsh", "fish")


class Completed(NamedTuple):
    """A command, as it is completed."""

    name: str
    about: str
    options: Sequence[Option]


def _takes_files(option: Option) -> bool:
    return not _PLACES.isdisjoint(re.findall(r"[A-Z]+", option.takes))


def _said(about: str) -> str:
    """Return the first sentence of what is told, without its default."""
    return re.split(r" \((?:default|required|repeatable)|[.;:] |\.$", about, maxsplit=1)[0]


def _bash(commands: Sequence[Completed]) -> str:
    names = " ".join([*(command.name for command in commands), "--help", "--version", "--debug"])
    values, options = [], []
    for command in commands:
        words = " ".join(name for option in command.options for name in option.names)
        options.append(f'    {command.name}) words="{words}" ;;')
        files = [name for option in command.options if _takes_files(option) for name in option.names]
        others = [option for option in command.options if option.takes and not _takes_files(option)]
        free = [name for option in others if not option.choices for name in option.names]
        for option in others:
            if option.choices:
                pattern = "|".join(f"{command.name}:{name}" for name in option.names)
                values.append(f'    {pattern}) words="{" ".join(option.choices)}" ;;')
        if free:
            pattern = "|".join(f"{command.name}:{name}" for name in free)
            values.append(f"    {pattern}) compopt +o default 2> /dev/null; return ;;")
        if files:
            values.append(f"    {'|'.join(f'{command.name}:{name}' for name in files)}) return ;;")
    return f"""\
# bash completion for exmem {__version__}, made by `exmem completion bash`
_exmem() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command="" word words=""
  COMPREPLY=()
  if [[ $cur == "=" ]]; then
    cur=""
  elif [[ $prev == "=" ]]; then
    prev=${{COMP_WORDS[COMP_CWORD-2]}}
  fi
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    if [[ $word != --debug ]]; then command=$word; break; fi
  done
  case "$command:$prev" in
    :*) words="{names}" ;;
    completion:completion) words="{" ".join(_SHELLS)}" ;;
{_lines(values)}
  esac
  if [[ -z $words && $cur == -* ]]; then
    case "$command" in
{_lines(options, 2)}
    esac
  fi
  if [[ -n $words ]]; then
    compopt +o default 2> /dev/null
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  fi
}}
complete -o default -F _exmem exmem  # files where nothing else is known
"""


def _zsh(commands: Sequence[Completed]) -> str:
    names = [f"    {_quoted(f'{command.name}:{_escaped(command.about)}')}" for command in commands]
    cases = []
    for command in commands:
        rest = f"1:SHELL:({' '.join(_SHELLS)})" if command.name == "completion" else "*:file:_files"
        specs = [_zsh_option(option, name) for option in command.options for name in option.names]
        cases.append("\n".join([f"    {command.name}) _arguments \\", *(f"      {spec} \\" for spec in specs)]))
        cases[-1] += f"\n      {_quoted(rest)} ;;"
    return f"""\
#compdef exmem
# zsh completion for exmem {__version__}, made by `exmem completion zsh`
_exmem() {{
  local curcontext=$curcontext state line
  typeset -A opt_args
  local -a commands
  commands=(
{_lines(names)}
  )
  _arguments -C '--help[what the commands are]' '--version[the version]' '--debug[show tracebacks]' \\
    '1:command:->command' '*::word:->words'
  case $state in
    command) _describe command commands ;;
    words)
      case $words[1] in
{_lines(cases, 4)}
      esac ;;
  esac
}}
if [[ $funcstack[1] == _exmem ]]; then  # from a folder of fpath
  _exmem "$@"
else
  compdef _exmem exmem
fi
"""


def _zsh_option(option: Option, name: str) -> str:
    value = ""
    if option.takes:
        kind = f"({' '.join(option.choices)})" if option.choices else "_files" if _takes_files(option) else " "
        value = f":value:{kind}"
    return _quoted(f"{name}[{_escaped(_said(option.about))}]{value}")


def _escaped(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(commands: Sequence[Completed]) -> str:
    lines = []
    for command in commands:
        about = _fish_quoted(command.about)
        lines.append(f"complete -c exmem -n '__exmem_command' -f -a {command.name} -d {about}")
        for option in command.options:
            lines += [_fish_option(command.name, option, name) for name in option.names]
    shells = " ".join(_SHELLS)
    return f"""\
# fish completion for exmem {__version__}, made by `exmem completion fish`
function __exmem_command --description 'Whether the command so far is this one, or none'
    set -l words (string match --invert --regex '^-' -- (commandline -opc))
    test "$words[2]" = "$argv[1]"
end
complete -c exmem -n '__exmem_command' -f -l help -d 'what the commands are'
complete -c exmem -n '__exmem_command' -f -l version -d 'the version'
complete -c exmem -n '__exmem_command' -f -l debug -d 'show tracebacks'
complete -c exmem -n '__exmem_command completion' -f -a '{shells}'
{_lines(lines)}
"""


def _fish_option(command: str, option: Option, name: str) -> str:
    flag = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
    if option.choices:
        flag += f" -x -a '{' '.join(option.choices)}'"
    elif option.takes:
        flag += " -r -F" if _takes_files(option) else " -x"
    return f"complete -c exmem -n '__exmem_command {command}' {flag} -d {_fish_quoted(_said(option.about))}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _lines(lines: Sequence[str], indent: int = 0) -> str:
    return "\n".join(" " * indent + line for block in lines for line in block.split("\n"))


SCRIPTS: Mapping[str, Callable[[Sequence[Completed]], str]] = MappingProxyType(
    {"bash": _bash, "zsh": _zsh, "fish": _fish}
)
"""Shell -> what writes its script."""
