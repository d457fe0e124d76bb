"""What stands on a page of the reference is documented in full, all else in a sentence or a short paragraph."""

import ast
import functools
import importlib.util
import inspect
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import exmem

ROOT = Path(exmem.__file__).parent

# What stands on the pages of the reference: packages, by their `__all__`, and names from within one.
PAGES = [
    "exmem",
    "exmem.backbones",
    "exmem.codecs",
    "exmem.errors",
    "exmem.integrations.avalanche",
    "exmem.integrations.huggingface",
    "exmem.integrations.lightning",
    "exmem.integrations.mammoth",
    "exmem.integrations.phases",
    "exmem.integrations.pilot",
    "exmem.integrations.torchrl",
    "exmem.masking",
    "exmem.masking.scorers",
    "exmem.memory",
    "exmem.memory.reservoir:StreamReservoir",
    "exmem.recipes",
    "exmem.recipes.forms",
    "exmem.replay",
    "exmem.replay.augment",
    "exmem.report.view.drawing",
    "exmem.report.view.exemplars",
    "exmem.report.view.page",
    "exmem.report.view.scoring",
    "exmem.report.view.sheet",
    "exmem.selection",
    "exmem.store.mirror:mirror",
    "exmem.tokens",
    "exmem.train.config",
    "exmem.train.data",
    "exmem.train.metrics:average_incremental_accuracy",
    "exmem.train.metrics:backward_transfer",
    "exmem.train.metrics:forgetting",
    "exmem.train.metrics:last_accuracy",
    "exmem.train.predictor",
    "exmem.train.scenario:Scenario",
    "exmem.train.trainer:Trainer",
]
# Adapters import their libraries: where one is not installed, its page cannot be looked at (`make peers` does).
PEERS = ("avalanche", "lightning", "torchrl")
ABSENT = tuple(f"exmem.integrations.{peer}" for peer in PEERS if importlib.util.find_spec(peer) is None)
# `exmem COMMAND --help` is made of these docstrings.
EXCLUDED = ("exmem.cli",)
FINISHED = ("exmem.cli.demo.stickers", "exmem.cli.output", "exmem.cli.places", "exmem.cli.main")
# Made by `create` and `open`, and by `replay_loader`: their `__init__` is internal.
NOT_CALLED = {"exmem.memory.memory:ExemplarMemory", "exmem.replay.loader:ReplayLoader"}
MOST_LINES = 6
_NO_INIT = type("_Contract", (Protocol,), {}).__init__  # stands in where a contract, or a class of one, has no __init__
SECTION = re.compile(r"^(Parameters|Returns|Raises|Yields|Attributes)\n-{3,}$", re.MULTILINE)


class Documented(NamedTuple):
    """A class or function as it stands in the source; its name is `module:qualified.name`."""

    name: str
    text: str
    overrides: bool

    @property
    def is_short(self) -> bool:
        return not SECTION.search(self.text) and len(self.text.splitlines()) <= MOST_LINES


def documented_in(node: ast.AST, prefix: str) -> Iterator[Documented]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}{child.name}"
            overrides = any(isinstance(mark, ast.Name) and mark.id == "override" for mark in child.decorator_list)
            yield Documented(name, ast.get_docstring(child) or "", overrides)
            inner = name if isinstance(child, ast.ClassDef) else f"{name}.<locals>"
            yield from documented_in(child, f"{inner}.")
        else:
            yield from documented_in(child, prefix)


def documented() -> Iterator[Documented]:
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        if ABSENT and module.startswith(ABSENT):
            continue
        yield from documented_in(ast.parse(path.read_text(encoding="utf-8")), f"{module}:")


def name_of(thing: Any) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


def thing_named(name: str) -> Any:
    module, _, qualified = name.partition(":")
    return operator.attrgetter(qualified)(importlib.import_module(module))


def names_on_page_of(thing: Any) -> Iterator[str]:
    """Yield a function, or a class and its public methods, those too that it has from another class of exmem."""
    yield name_of(thing)
    for name, member in inspect.getmembers_static(thing) if inspect.isclass(thing) else ():
        of_property = member.fget if isinstance(member, property) else getattr(member, "func", member)
        method = inspect.unwrap(getattr(of_property, "__func__", of_property))
        is_public = name == "__call__" or not name.startswith("_")
        if is_public and inspect.isfunction(method) and method.__module__.startswith("exmem."):
            yield name_of(method)


@functools.cache
def reference() -> frozenset[str]:
    things = []
    for page in PAGES:
        if page in ABSENT:
            continue
        package = importlib.import_module(page.partition(":")[0])
        things.extend([thing_named(page)] if ":" in page else [getattr(package, name) for name in package.__all__])
    named = [thing for thing in things if inspect.isclass(thing) or inspect.isfunction(thing)]
    return frozenset(name for thing in named for name in names_on_page_of(thing))


def documented_parameters(text: str) -> list[str]:
    section = re.search(r"^Parameters\n-+\n(.*?)(?=\n\w[\w ]*\n-{3,}\n|\Z)", text, re.DOTALL | re.MULTILINE)
    heads = [line for line in section[1].splitlines() if line.strip() and not line.startswith(" ")] if section else []
    return [name.strip().lstrip("*") for head in heads for name in head.split(" : ")[0].split(",")]


def parameters_of(thing: Any) -> list[str]:
    if isinstance(thing, property | functools.cached_property):
        return []
    if inspect.isclass(thing) and issubclass(thing, Exception | dict):  # has no signature; an error's is the message
        return []
    if inspect.isclass(thing) and thing.__init__ is _NO_INIT:
        return []
    return [name for name in inspect.signature(thing).parameters if name not in {"self", "cls"}]


def test_every_name_of_the_reference_documents_exactly_the_parameters_of_its_signature():
    wrong, checked = [], 0
    for name, text, overrides in documented():
        if "<locals>" in name:  # what a function defines inside cannot be looked up
            continue
        listed = documented_parameters(text)
        if listed or (name in reference() and name not in NOT_CALLED and not overrides):
            checked += 1
            if listed != (actual := parameters_of(thing_named(name))):
                wrong.append(f"{name}: documented {listed}, signature {actual}")
    assert checked > 60
    assert not wrong, "\n".join(wrong)


def test_no_docstring_off_the_reference_and_none_of_an_implementation_is_long_or_has_sections():
    excluded, finished = (tuple(f"{name}{end}" for name in names for end in ".:") for names in (EXCLUDED, FINISHED))
    short = [one for one in documented() if one.overrides or one.name not in reference()]
    kept = [one for one in short if one.name.startswith(finished) or not one.name.startswith(excluded)]
    wrong = [one.name for one in kept if not one.is_short]
    assert not wrong, "\n".join(wrong)
