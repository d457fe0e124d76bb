"""Entries of a replay buffer as named tensors, and back: tensordicts, tensorclasses, tensors and trees of them."""

import dataclasses
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import NonTensorData, TensorDict, TensorDictBase, is_non_tensor, is_tensorclass
from torch import Tensor

from exmem.errors import InvalidExemplarError, SchemaError
from exmem.integrations.samples.fields import IMAGE, TEXT
from exmem.tokens.checks import shown

__all__ = ["EntryForm", "Path", "rows_of", "stacked", "unsqueezed"]

Path = tuple[Any, ...]

_MOST_LETTERS = 32  # of a field's name in a schema
_TAKEN = {TEXT, "catalog", "extras", "label", "priority", "records"}  # by a schema, for other things
_seen: dict[str, type] = {}  # classes of entries that were given in this process, also such as no module has
_NUMPY = {"bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"}


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """A tensor: its field, empty where it has no values; `raw` where NumPy has no such dtype and bytes are stored."""

    field: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def raw(self) -> bool:
        return self.dtype not in _NUMPY


@dataclasses.dataclass(frozen=True)
class _Constant:
    """What is no tensor and the same in all entries: text, a number, or None."""

    value: str | int | float | bool | None


@dataclasses.dataclass(frozen=True)
class _Node:
    """What holds tensors: its kind, the class where that has a name, its keys, and the batch size of one entry."""

    kind: str
    name: str
    keys: tuple[Any, ...]
    children: tuple["_Form", ...]
    batch: tuple[int, ...] = ()


_Form: TypeAlias = "_Node | _Leaf | _Constant"


class EntryForm:
    """How entries look: made of the first batch of them, or of what a memory notes.

    `image` is the path of the tensor that is the field `image`: of keys, and of places in lists and tuples. The
    largest tensor when left out.
    """

    def __init__(self, root: _Form) -> None:
        self._root = root
        self.leaves = list(_leaves(root, _Leaf, ()))
        self._constants = {path: constant.value for path, constant in _leaves(root, _Constant, ())}

    @classmethod
    def of(cls, batch: Any, image: Path | None) -> "EntryForm":
        """Read the form off a batch of entries."""
        tensors = dict(_found(batch, Tensor, ()))
        sizes = {path: held[:1].nbytes for path, held in tensors.items()}
        if not any(sizes.values()):
            raise InvalidExemplarError(f"expected entries that hold values, got {shown(batch)}")
        chosen = max(sizes, key=lambda path: sizes[path]) if image is None else image
        if chosen not in tensors:
            raise SchemaError(f"image: there is no tensor at {image}; there are {[*tensors]}")
        names: dict[Path, str] = {chosen: IMAGE}
        for path in tensors:
            if path != chosen and sizes[path]:
                names[path] = _name(path, {*_TAKEN, *names.values()})
        return cls(_form(batch, (), names))

    def field(self, path: Path) -> str:
        """Return the field of a tensor; KeyError where there is none."""
        fields: dict[Path, str] = {known: leaf.field for known, leaf in self.leaves}
        return fields[path]

    def with_index(self, batch: Any, index: NDArray[np.int64]) -> Any:
        """Give entries an "index", or take it, as the others have it: some writers set it by `add` alone."""
        if not isinstance(batch, TensorDictBase):
            return batch
        is_there = "index" in batch.keys()  # noqa: SIM118 - of a tensordict, which is no dict
        if is_there == (isinstance(self._root, _Node) and "index" in self._root.keys):
            return batch
        if is_there:
            return batch.exclude("index")
        leaf = dict(self.leaves).get(("index",))
        if leaf is None:
            return batch
        given = torch.from_numpy(index).to(getattr(torch, leaf.dtype))
        return batch.copy().set("index", given.reshape(-1, *[1] * len(leaf.shape)).expand(-1, *leaf.shape))

    def fields(self, batch: Any) -> dict[str, Tensor]:
        """Return the tensors of a batch by field; InvalidExemplarError if it does not look like the first one."""
        given = dict(_found(batch, Tensor, ()))
        if self._constants != (constants := dict(_found(batch, _Constant, ()))):
            raise InvalidExemplarError(
                f"expected {self._constants} in every entry, got {shown(constants)}; only tensors may differ"
            )
        if given.keys() != {path for path, _ in self.leaves}:
            expected = [path for path, _ in self.leaves]
            raise InvalidExemplarError(
                f"expected entries with {expected}, got {[*given]}; all entries of a storage hold the same"
            )
        named = {}
        for path, leaf in self.leaves:
            values = given[path]
            if tuple(values.shape[1:]) != leaf.shape or str(values.dtype) != f"torch.{leaf.dtype}":
                raise InvalidExemplarError(
                    f"{path}: expected {leaf.dtype} of shape {(len(values), *leaf.shape)}, got {values.dtype} of shape "
                    f"{tuple(values.shape)}; all entries of a storage look the same"
                )
            if leaf.field:
                named[leaf.field] = _as_bytes(values.detach()) if leaf.raw else values.detach()
        return named

    def entries(self, fields: Mapping[str, Tensor], shape: tuple[int, ...], device: torch.device) -> Any:
        """Return entries made of their fields (N, ...), in a shape of N: a single one where that is empty."""
        return _made(self._root, fields, shape, device)

    def to_json(self) -> dict[str, Any]:
        """Return what a memory notes of it."""
        return _to_json(self._root)

    @classmethod
    def from_json(cls, noted: Mapping[str, Any], location: str) -> "EntryForm":
        """Return the form that a memory notes; a class is looked for among those that are imported, none is loaded."""
        try:
            return cls(_from_json(noted))
        except (KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"{location}: it notes no form of entries ({error!r}); choose another place") from error


def rows_of(batch: Any) -> int:
    """Return how many entries a batch holds."""
    if isinstance(batch, TensorDictBase) or is_tensorclass(batch):
        return int(batch.batch_size[0]) if batch.batch_dims else 1
    tensors = [held for _, held in _found(batch, Tensor, ())]
    if not tensors:
        raise InvalidExemplarError(f"expected entries that hold tensors, got {shown(batch)}")
    return len(tensors[0])


def stacked(entries: Sequence[Any]) -> Any:
    """Return a batch of some entries that look the same."""
    if not entries:
        raise InvalidExemplarError("expected entries, got an empty list")
    flat = [dict(_found(entry, Tensor, ())) for entry in entries]
    if any(tensors.keys() != flat[0].keys() for tensors in flat):
        raise InvalidExemplarError(
            f"expected a list of entries that hold the same, got {[[*tensors] for tensors in flat[:3]]}; a batch of "
            "them is a tuple"
        )
    try:
        return _mapped(entries[0], (), lambda path, _: torch.stack([tensors[path] for tensors in flat]), len(entries))
    except RuntimeError as error:
        raise InvalidExemplarError(f"expected a list of entries that look the same: {error}") from error


def unsqueezed(entry: Any) -> Any:
    """Return a batch of one entry."""
    return _mapped(entry, (), lambda _, tensor: tensor.unsqueeze(0), 1)


def _mapped(value: Any, path: Path, change: Callable[[Path, Tensor], Tensor], count: int) -> Any:
    """Return a batch of so many entries like one, with tensors that `change` makes of its own."""
    if isinstance(value, _Constant):
        return value.value
    if isinstance(value, Tensor):
        return change(path, value)
    named = {key: _mapped(held, (*path, key), change, count) for key, held in _items(value)}
    if is_tensorclass(value) or isinstance(value, TensorDictBase):
        batch = TensorDict(named, batch_size=(count, *value.batch_size))
        return type(value).from_tensordict(batch) if is_tensorclass(value) else batch
    if isinstance(value, dict):
        return OrderedDict(named) if isinstance(value, OrderedDict) else named
    if hasattr(value, "_fields"):
        return type(value)(*named.values())
    return list(named.values()) if isinstance(value, list) else tuple(named.values())


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield keys and what they hold, of anything but a tensor; in tensordicts what is none as a constant."""
    if isinstance(value, TensorDictBase) or is_tensorclass(value):
        held = dict(value.items())
        if is_tensorclass(value):
            held |= {name: other for name, other in value.non_tensor_items() if other is not None}
        for name in sorted(held):
            yield name, _constant(name, held[name]) if _is_plain(held[name]) else held[name]
    elif isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    else:
        raise InvalidExemplarError(
            f"expected tensors and what holds them, got {shown(value)}; ListStorage holds anything"
        )


def _is_plain(value: Any) -> bool:
    return is_non_tensor(value) or not (isinstance(value, Tensor | TensorDictBase) or is_tensorclass(value))


def _constant(name: str, value: Any) -> _Constant:
    plain = value.data if isinstance(value, NonTensorData) else value
    if plain is not None and not isinstance(plain, str | int | float | bool):
        raise InvalidExemplarError(
            f"{name}: expected tensors, or text or a number that all entries share, got {shown(value)}; ListStorage "
            "holds anything"
        )
    return _Constant(plain)


def _found(value: Any, kind: type, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield the tensors, or the constants, in a value."""
    if isinstance(value, Tensor | _Constant):
        if isinstance(value, kind):
            yield path, value.value if isinstance(value, _Constant) else value
        return
    for key, held in _items(value):
        yield from _found(held, kind, (*path, key))


def _leaves(node: _Form, kind: type, path: Path) -> Iterator[tuple[Path, Any]]:
    if not isinstance(node, _Node):
        if isinstance(node, kind):
            yield path, node
        return
    for key, child in zip(node.keys, node.children, strict=True):
        yield from _leaves(child, kind, (*path, key))


def _form(value: Any, path: Path, names: Mapping[Path, str]) -> _Form:
    if isinstance(value, _Constant):
        return value
    if isinstance(value, Tensor):
        return _Leaf(names.get(path, ""), tuple(value.shape[1:]), str(value.dtype).removeprefix("torch."))
    items = list(_items(value))
    children = tuple(_form(held, (*path, key), names) for key, held in items)
    keys = tuple(key for key, _ in items)
    if is_tensorclass(value) or isinstance(value, TensorDictBase):
        kind, name = ("tensorclass", _named(type(value))) if is_tensorclass(value) else ("tensordict", "")
        return _Node(kind, name, keys, children, tuple(value.batch_size[1:]))
    if isinstance(value, dict):
        if any(not isinstance(key, str | int) or isinstance(key, bool) for key in keys):
            raise InvalidExemplarError(f"expected text or integers as keys, got {keys}")
        return _Node("ordered" if isinstance(value, OrderedDict) else "dict", "", keys, children)
    if hasattr(value, "_fields"):
        return _Node("namedtuple", _named(type(value)), keys, children)
    return _Node("list" if isinstance(value, list) else "tuple", "", keys, children)


def _made(node: _Form, fields: Mapping[str, Tensor], shape: tuple[int, ...], device: torch.device) -> Any:
    if isinstance(node, _Constant):
        return node.value
    if isinstance(node, _Leaf):
        dtype = getattr(torch, node.dtype)
        if not node.field:
            return torch.zeros((*shape, *node.shape), dtype=dtype, device=device)
        held = fields[node.field]
        held = held.view(dtype) if node.raw else held
        return held if not node.raw and len(shape) == 1 else held.reshape((*shape, *node.shape))
    children = [_made(child, fields, shape, device) for child in node.children]
    named = dict(zip(node.keys, children, strict=True))
    if node.kind in {"tensordict", "tensorclass"}:
        entries = TensorDict(named, batch_size=(*shape, *node.batch), device=device)
        return entries if node.kind == "tensordict" else _class(node).from_tensordict(entries)
    if node.kind in {"dict", "ordered"}:
        return OrderedDict(named) if node.kind == "ordered" else named
    if node.kind == "namedtuple":
        return _class(node)(*children)
    return children if node.kind == "list" else tuple(children)


def _as_bytes(values: Tensor) -> Tensor:
    """Return values as bytes, in a last axis of their own."""
    return values.contiguous().unsqueeze(-1).view(torch.uint8)


def _name(path: Path, taken: set[str]) -> str:
    """Return a name for a field that tells the path as far as letters allow."""
    plain = re.sub("[^a-z0-9_]", "_", "_".join(map(str, path)).lower()) or "value"
    plain = plain if plain[0].isascii() and plain[0].isalpha() else f"f_{plain}"
    name, number = plain[:_MOST_LETTERS], 1
    while name in taken:
        number += 1
        name = f"{plain[: _MOST_LETTERS - 1 - len(str(number))]}_{number}"
    return name


def _named(kind: type) -> str:
    name = f"{kind.__module__}:{kind.__qualname__}"
    _seen[name] = kind
    return name


def _class(node: _Node) -> Any:
    """Return the class of a node, which was given here or has to be imported already: a memory runs no code."""
    module, _, name = node.name.partition(":")
    value: Any = _seen.get(node.name) or sys.modules.get(module)
    for part in name.split(".") if node.name not in _seen else ():
        value = getattr(value, part, None)
    if isinstance(value, type) and (is_tensorclass(value) if node.kind == "tensorclass" else hasattr(value, "_fields")):
        return value
    raise SchemaError(f"entries are made of {node.name}, which is not there; import it first")


def _to_json(node: _Form) -> dict[str, Any]:
    if isinstance(node, _Constant):
        return {"constant": node.value}
    if isinstance(node, _Leaf):
        return {"field": node.field, "shape": list(node.shape), "dtype": node.dtype}
    children = [_to_json(child) for child in node.children]
    return {"kind": node.kind, "name": node.name, "keys": list(node.keys), "of": children, "batch": list(node.batch)}


def _from_json(noted: Mapping[str, Any]) -> _Form:
    if "constant" in noted:
        return _Constant(noted["constant"])
    if "field" in noted:
        if not isinstance(getattr(torch, noted["dtype"], None), torch.dtype):
            raise ValueError(f"no dtype {noted['dtype']!r}")
        return _Leaf(str(noted["field"]), tuple(map(int, noted["shape"])), noted["dtype"])
    children = tuple(_from_json(child) for child in noted["of"])
    if noted["kind"] not in _KINDS or len(children) != len(noted["keys"]):
        raise ValueError(f"no such node: {noted['kind']!r}")
    return _Node(noted["kind"], str(noted["name"]), tuple(noted["keys"]), children, tuple(map(int, noted["batch"])))


_KINDS = {"tensordict", "tensorclass", "dict", "ordered", "list", "tuple", "namedtuple"}
