"""Budgets as they are written: bytes, full raw examples a class, or exemplars that the model's bytes are part of.

- Bytes: `250kB`, `1MiB` or a number. What the memory and what the head keeps may take on the disk.
- `20 per class`: 20 full raw examples of each class of the data, in bytes (the axis of the paper). A raw exemplar
  is one of the recipe `raw` (`text` where a learner sees texts alone): its mean size in a memory over the first 64
  training examples, with checksums and its line of the catalog. So a memory of the recipe `raw` holds a little
  less than 20 of each class: what an empty memory needs counts, too.
- `model = 30` or `{exemplars: 30, model: tuned}`: the bytes of 30 raw exemplars in all, for memory and model (Zhou
  et al. 2023, MEMO, count a model as exemplars). What a method saves of its model is taken off, and its
  memory has the rest. `tuned` counts what a run trains and saves (adapters, linear head; nothing in a probe), for
  the frozen weights are the same in every run: a choice. `whole` counts these too, as MEMO does.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal

from exmem.errors import BudgetTooSmallError, SchemaError
from exmem.store import format_bytes, parse_bytes
from exmem.tokens.checks import index_of, shown

__all__ = ["Budget", "Sizes"]

_PER_CLASS = re.compile(r"\s*(\d+)\s+per\s+class\s*\Z")
_MODEL = re.compile(r"\s*model\s*=\s*(\d+)\s*(?:,\s*(tuned|whole)\s*)?\Z")
_FORMS = (
    "expected bytes (250kB), full raw examples a class ('20 per class'), or raw exemplars whose bytes memory and model "
    "share ('model = 30', 'model = 30, whole', or {exemplars: 30, model: tuned})"
)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What budgets are counted in: bytes of a raw exemplar, classes, and bytes of what a method saves of its model.

    `model_bytes` are by what is counted: `tuned`, what a run trains and saves, or `whole`, with the frozen weights.
    """

    raw_bytes: float
    classes: int
    model_bytes: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Budget:
    """A budget as a configuration writes it."""

    kind: Literal["bytes", "per_class", "model"]
    number: int
    counted: Literal["tuned", "whole"] = "tuned"

    @classmethod
    def of(cls, value: Any, where: str = "budgets") -> "Budget":
        """Read a budget; SchemaError says how one is written."""
        if isinstance(value, Budget):
            return value
        if isinstance(value, Mapping):
            return cls._of_mapping(value, where)
        if isinstance(value, str):
            if match := _PER_CLASS.match(value):
                return cls("per_class", _counted(match[1], value, where))
            if match := _MODEL.match(value):
                return cls("model", _counted(match[1], value, where), "whole" if match[2] == "whole" else "tuned")
        try:
            number = parse_bytes(value)
        except SchemaError as error:
            raise SchemaError(f"{where}: {_FORMS}, got {shown(value)}") from error
        return cls("bytes", _counted(number, value, where))

    @classmethod
    def _of_mapping(cls, value: Mapping[str, Any], where: str) -> "Budget":
        if set(value) != {"exemplars", "model"}:
            raise SchemaError(f"{where}: expected the keys exemplars and model, got {sorted(map(str, value))}")
        if value["model"] not in (True, "tuned", "whole"):
            raise SchemaError(f"{where}: model must be tuned or whole, got {shown(value['model'])}")
        number = _counted(value["exemplars"], value, where)
        return cls("model", number, "whole" if value["model"] == "whole" else "tuned")

    @property
    def needs_sizes(self) -> bool:
        """Whether its bytes depend on the data and the backbone."""
        return self.kind != "bytes"

    def split(self, sizes: Sizes | None) -> tuple[int, int]:
        """Return the bytes of the memory, and those that the model takes of the budget; together they are it.

        BudgetTooSmallError if the model takes all.
        """
        if self.kind == "bytes":
            return self.number, 0
        assert sizes is not None
        if self.kind == "per_class":
            return round(self.number * sizes.classes * sizes.raw_bytes), 0
        total, model = round(self.number * sizes.raw_bytes), sizes.model_bytes[self.counted]
        if model >= total:
            raise BudgetTooSmallError(
                f"budget {self}: {self.number} raw exemplars are {total:,} bytes, and the model takes {model:,} of "
                "them; use more exemplars, a smaller model, or one that is not tuned"
            )
        return total - model, model

    def __str__(self) -> str:
        if self.kind == "bytes":
            rounded = format_bytes(self.number).replace(",", "")
            return rounded if parse_bytes(rounded) == self.number else f"{self.number} B"
        if self.kind == "per_class":
            return f"{self.number} per class"
        return f"model = {self.number}" + (", whole" if self.counted == "whole" else "")


def _counted(number: Any, value: Any, where: str) -> int:
    count = index_of(int(number) if isinstance(number, str) else number)
    if count is None or isinstance(number, bool) or count < 1:
        raise SchemaError(f"{where}: {_FORMS}, 1 or more of them, got {shown(value)}")
    return count
