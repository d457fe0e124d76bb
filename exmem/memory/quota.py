"""How classes share a budget."""

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

from exmem.errors import SchemaError
from exmem.tokens.checks import choice, label_of, mapping_of, real_number, shown
from exmem.tokens.frozen import ReadOnlyDict

__all__ = ["QUOTA_UNITS", "Quota", "class_quotas"]

QUOTA_UNITS = ("bytes", "counts")

_LEAST_WEIGHT, _MOST_WEIGHT = 1e-12, 1e12  # a choice: no load overflows or vanishes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quota:
    """How classes share a budget of bytes or counts: the class with the highest load is the first to lose.

    `weights` are shares relative to the others, 1e-12..1e12, by label; 1 where a label is left out.
    """

    unit: Literal["bytes", "counts"] = "bytes"
    weights: Mapping[int, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        choice(self.unit, "quota", QUOTA_UNITS)
        given = mapping_of(self.weights, "weights")
        checked = [_checked_weight(label, weight) for label, weight in given.items()]
        object.__setattr__(self, "weights", ReadOnlyDict(sorted(pair for pair in checked if pair[1] != 1.0)))

    def load(self, label: int, *, used_bytes: int, count: int) -> float:
        """Return what a class holds, bytes or exemplars, per unit of its weight."""
        return (used_bytes if self.unit == "bytes" else count) / self.weights.get(label, 1.0)

    def to_json(self) -> dict[str, Any]:
        """Return the quota as plain JSON values; labels become text."""
        return {"unit": self.unit, "weights": {str(label): weight for label, weight in self.weights.items()}}

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> "Quota":
        """Read what `to_json` returned, of whatever origin; SchemaError if it is no quota."""
        try:
            given = mapping_of(described, "quota")
            unit, weights = given["unit"], {int(label): weight for label, weight in given["weights"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SchemaError(f"expected a quota with unit and weights, got {shown(described)}") from error
        return cls(unit=unit, weights=weights)


def _checked_weight(label: object, weight: object) -> tuple[int, float]:
    number = label_of(label, "the label of a weight")
    share = real_number(weight, f"the weight of class {number}")
    if not _LEAST_WEIGHT <= share <= _MOST_WEIGHT:
        raise SchemaError(f"weight of class {number}: expected {_LEAST_WEIGHT}..{_MOST_WEIGHT}, got {shown(weight)}")
    return number, share


def class_quotas(used: Mapping[int, int], total: int, weights: Mapping[int, float] | None = None) -> dict[int, int]:
    """Share `total` bytes among classes by weight; what a class does not use is lent to the others.

    Weighted max-min fairness by progressive filling, O(C log C). The sum is `total`, or that of `used` where that is
    smaller; bytes that do not divide go to the lowest labels.
    """
    weight = {label: Fraction((weights or {}).get(label, 1.0)) for label in used}  # exact: no byte is lost to rounding
    quotas: dict[int, int] = {}
    left, whole = max(0, total), sum(weight.values(), Fraction())
    waiting = sorted(used, key=lambda label: (used[label] / weight[label], label))
    while waiting and used[waiting[0]] * whole <= left * weight[waiting[0]]:
        label = waiting.pop(0)
        quotas[label] = used[label]
        left, whole = left - used[label], whole - weight[label]
    waiting.sort()
    shares = {label: left * weight[label] // whole for label in waiting}
    rest = left - sum(shares.values())
    for rank, label in enumerate(waiting):
        quotas[label] = int(shares[label]) + (rank < rest)
    return {label: quotas[label] for label in sorted(quotas)}
