"""Named parts of one kind, those of other packages among them: the one registry behind every choice by name."""

import dataclasses
import functools
import importlib
import inspect
import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from typing_extensions import override

from exmem.errors import ExmemError, SchemaError

__all__ = ["Part", "Registry"]

_Made = TypeVar("_Made")


@dataclasses.dataclass(frozen=True)
class Part:
    """A choice by name with the options that are not left at their defaults, as configurations hold it.

    >>> Part.of("keep_ratio:ratio=0.25") == Part.of({"name": "keep_ratio", "ratio": 0.25})
    True
    >>> str(Part.of({"name": "cls_attention", "layers": [-3, -2]}))
    'cls_attention:layers=[-3,-2]'
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(sorted((key, _frozen(value)) for key, value in self.options)))

    @classmethod
    def of(cls, value: Any) -> "Part":
        """Read a name, `name:option=value,...`, or a mapping with `name`; SchemaError says how it is written."""
        if isinstance(value, Part):
            return value
        if isinstance(value, str) and value:
            name, _, rest = value.partition(":")
            pairs = [pair.partition("=") for pair in _split(rest)] if rest else []
            if name and all(key and sign for key, sign, _ in pairs) and len({key for key, *_ in pairs}) == len(pairs):
                return cls(name, tuple((key, _plain(text)) for key, _, text in pairs))
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            options = {str(key): option for key, option in value.items() if key != "name"}
            return cls(value["name"], tuple(options.items()))
        raise SchemaError(f"expected NAME, NAME:OPTION=VALUE,... or a mapping with 'name', got {value!r}")

    @property
    def kwargs(self) -> dict[str, Any]:
        """The options as a dictionary."""
        return dict(self.options)

    def to_json(self) -> str | dict[str, Any]:
        """Return the name, or a mapping of name and options."""
        return (
            {"name": self.name, **{key: _listed(value) for key, value in self.options}} if self.options else self.name
        )

    def __str__(self) -> str:
        options = ",".join(f"{key}={_text(value)}" for key, value in self.options)
        return f"{self.name}:{options}" if options else self.name


_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def _split(text: str) -> list[str]:
    """Cut at commas that stand in no brackets and no quotes."""
    plain = _QUOTED.sub(lambda quoted: "_" * len(quoted[0]), text)
    depths = itertools.accumulate((char in "[{") - (char in "]}") for char in plain)
    commas = [at for at, (char, depth) in enumerate(zip(plain, depths, strict=True)) if char == "," and depth == 0]
    return [text[start + 1 : end] for start, end in itertools.pairwise([-1, *commas, len(text)])]


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _text(value: Any) -> str:
    if isinstance(value, str) and _plain(value) == value and not set(value) & set(',"[]{}'):
        return value
    return json.dumps(_listed(value), separators=(",", ":"))


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _listed(value: Any) -> Any:
    return list(map(_listed, value)) if isinstance(value, tuple) else value


class Registry(Mapping[str, Any], Generic[_Made]):
    """Parts of one kind by name; another package adds its own by an entry point `exmem.<kind>`, a script with `add`.

    A part is a class (made with its options), a function or any callable (bound to them), or `"module:name"` of one,
    which is imported when it is first asked for. `kind` is what errors call a part: `"keep rule"`, whose group of entry
    points is `exmem.keep_rule`. `error` is raised about a name or an option.
    """

    def __init__(self, kind: str, parts: Mapping[str, Any], *, error: type[ExmemError] = SchemaError) -> None:
        self.kind: str = kind
        self._parts, self._error = dict(parts), error
        self._options: dict[str, dict[str, Any]] = {}

    @functools.cached_property
    def _others(self) -> dict[str, list[EntryPoint]]:
        group, others = f"exmem.{self.kind.replace(' ', '_')}", dict[str, list[EntryPoint]]()
        for entry in entry_points(group=group):
            others.setdefault(entry.name, []).append(entry)
        return others

    @override
    def __getitem__(self, name: str) -> Any:
        """Return the part of a name; SchemaError lists the names when there is none."""
        if name not in self:
            raise self._error(f"unknown {self.kind} {name!r}; choose one of {sorted(self)}")
        sources = [*(["exmem"] if name in self._parts else []), *(one.value for one in self._others.get(name, ()))]
        if len(sources) > 1:
            raise self._error(f"{self.kind} {name!r} is there more than once, in {sources}; rename or remove one")
        part = self._parts.get(name)
        try:
            if name not in self._parts:
                return self._others[name][0].load()
            if isinstance(part, str):
                module, _, attribute = part.partition(":")
                part = self._parts[name] = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            place = part if isinstance(part, str) else sources[0]
            raise self._error(f"{self.kind} {name!r} cannot be imported from {place}: {error}") from error
        return part

    @override
    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._parts or name in self._others)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._parts, *self._others}))

    @override
    def __len__(self) -> int:
        return len({*self._parts, *self._others})

    @override
    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 - it is that method

    def add(self, name: str, part: Any) -> None:
        """Give a part of one's own a name; SchemaError if there is one of that name."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise self._error(f"a {self.kind} needs a name of letters, digits, '_', '-' and '.', got {name!r}")
        if name in self:
            raise self._error(f"there is a {self.kind} {name!r} already; choose another name")
        self._parts[name] = part

    def options(self, name: str) -> dict[str, Any]:
        """Return the options of a part with their defaults; `inspect.Parameter.empty` where one must be given."""
        part = self[name]
        if name not in self._options:  # of a recipe each is asked for many times
            keyword = inspect.Parameter.KEYWORD_ONLY
            takes = {keyword, inspect.Parameter.POSITIONAL_OR_KEYWORD} if inspect.isclass(part) else {keyword}
            parameters = inspect.signature(part).parameters.values()
            self._options[name] = {each.name: each.default for each in parameters if each.kind in takes}
        return dict(self._options[name])

    def check(self, name: str, options: Collection[str], *, given: Collection[str] = ()) -> None:
        """Refuse options that a part does not have, or that whoever calls it gives (`given`)."""
        known = set(self.options(name)) - set(given)
        if strange := sorted(set(options) - known):
            raise self._error(f"{self.kind} {name!r} has no option {strange}; it has {sorted(known)}")

    def make(self, name: str, **options: Any) -> _Made:
        """Make a part with its options; SchemaError lists the known ones when one is unknown."""
        part, known = self[name], self.options(name)
        self.check(name, options)
        if inspect.isclass(part):
            needed = {key for key, default in known.items() if default is inspect.Parameter.empty}
            if lacking := sorted(needed - set(options)):
                raise self._error(f"{self.kind} {name!r} needs {lacking}")
            return cast(_Made, part(**options))
        return cast(_Made, functools.partial(part, **options) if options else part)
