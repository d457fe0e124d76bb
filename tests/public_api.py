"""Write every name of the reference with its signature, as the sources have it: `python -m tests.public_api`.

Sources are read and not run: the record is the same on every Python, and where other libraries are not installed.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import exmem
from tests.test_docstrings import NOT_CALLED, PAGES

__all__ = ["RECORD", "record"]

RECORD = Path(__file__).parent / "data" / "public_api.txt"

Place = tuple[str, str]  # module, name in it


def record() -> str:
    """Return one line a name, by page; what stands on another page too is told on the first one."""
    known: dict[Place, str] = {}
    pages = sorted({*PAGES, "exmem.errors"})
    return "".join(f"{line}\n" for page in pages for line in _page(page, known))


def _page(page: str, known: dict[Place, str]) -> Iterator[str]:
    module, _, single = page.partition(":")
    for name in [single] if single else ast.literal_eval(_top_level(module)["__all__"].value):
        place, public = _defined((module, name)), f"{module}.{name}"
        if place in known:
            yield f"{public} is {known[place]}"
        else:
            known[place] = public
            yield from _told(public, place)


@functools.cache
def _top_level(module: str) -> dict[str, ast.stmt]:
    """Name -> the statement that gives it to a module, those under `if TYPE_CHECKING` too."""
    path = Path(exmem.__file__).parents[1].joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    named: dict[str, ast.stmt] = {}
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    while statements:
        statement = statements.pop(0)
        if isinstance(statement, ast.If):
            statements += statement.body
        elif isinstance(statement, ast.ImportFrom):
            named |= {alias.asname or alias.name: statement for alias in statement.names}
        elif isinstance(statement, ast.Assign):
            named |= {target.id: statement for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            named[statement.target.id] = statement
        elif isinstance(statement, ast.ClassDef | ast.FunctionDef):
            named[statement.name] = statement
    return named


def _defined(place: Place) -> Place:
    """Return where a name is defined that was imported."""
    module, name = place
    statement = _top_level(module).get(name)
    if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith("exmem"):
        (original,) = (alias.name for alias in statement.names if (alias.asname or alias.name) == name)
        return _defined((str(statement.module), original))
    return place


def _told(public: str, place: Place) -> Iterator[str]:
    statement = _top_level(place[0])[place[1]]
    if isinstance(statement, ast.FunctionDef):
        yield _function(public, statement)
    elif isinstance(statement, ast.ClassDef):
        yield f"class {public}({', '.join(map(ast.unparse, [*statement.bases, *statement.keywords]))})"
        members = dict(_members(place))
        if ":".join(place) in NOT_CALLED:
            members.pop("__init__", None)
        fields = [name for name, member in members.items() if isinstance(member, ast.AnnAssign)]  # their order counts
        yield from (_member(public, members[name]) for name in [*fields, *sorted(set(members) - set(fields))])
    else:
        value = statement.value
        if isinstance(value, ast.Call) and len(value.args) > 1 and isinstance(value.args[1], ast.Dict):
            yield f"{public} = {ast.unparse(value.func)}({ast.unparse(value.args[0])})"
            yield from sorted(f"{public}[{ast.unparse(key)}]" for key in value.args[1].keys)
        else:
            yield f"{public} = {ast.unparse(value)}"


def _members(place: Place) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the public members of a class, first those of its bases in exmem, which it may replace."""
    statement = _top_level(place[0]).get(place[1])
    if not isinstance(statement, ast.ClassDef):
        return
    for base in reversed(statement.bases):
        named = base.value if isinstance(base, ast.Subscript) else base
        if isinstance(named, ast.Name):
            yield from _members(_defined((place[0], named.id)))
    for member in statement.body:
        if isinstance(member, ast.FunctionDef):
            if member.name in {"__init__", "__call__"} or not member.name.startswith("_"):
                yield member.name, member
        elif isinstance(member, ast.AnnAssign) and not ast.unparse(member.target).startswith("_"):
            yield ast.unparse(member.target), member


def _member(public: str, member: ast.stmt) -> str:
    if isinstance(member, ast.AnnAssign):
        default = "" if member.value is None else f" = {ast.unparse(member.value)}"
        return f"{public}.{ast.unparse(member.target)}: {ast.unparse(member.annotation)}{default}"
    marks = {ast.unparse(mark).rpartition(".")[2] for mark in member.decorator_list}
    if marks & {"property", "cached_property"}:
        return f"{public}.{member.name}: {ast.unparse(member.returns)}"
    return _function(f"{public}.{member.name}", member)


def _function(public: str, function: ast.FunctionDef) -> str:
    returns = "" if function.returns is None else f" -> {ast.unparse(function.returns)}"
    return f"{public}({ast.unparse(function.args)}){returns}"


if __name__ == "__main__":
    RECORD.write_text(record(), encoding="utf-8")
