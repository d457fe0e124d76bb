"""Budget, charges, quotas and notes of a memory."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.errors import CarriedThroughWarning, ReadOnlyError, SchemaError
from exmem.memory.holdings import Holdings
from exmem.memory.quota import Quota
from exmem.memory.reports import ClassSummary, CompactReport
from exmem.store import Store, Writer, new_id, parse_bytes, target_of
from exmem.tokens.checks import label_of, mapping_of, plain_json, shown, whole_number

__all__ = ["Settings", "checked_count"]

_UNCHANGED: Any = object()


class Settings(Holdings):
    """A memory whose settings can be changed, each change committed at once."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        if store.writer is not None:
            self._carry_through()

    def resize(
        self,
        max_bytes: int | str | None = None,
        *,
        max_exemplars: int | None = _UNCHANGED,
        segment_bytes: int | None = None,
    ) -> NDArray[np.int64]:
        """Change the budget; going down evicts by policy.

        Parameters
        ----------
        max_bytes : int or str, optional
            The new budget; unchanged when left out.
        max_exemplars : int, optional
            The most exemplars that are held; None ends that limit; unchanged when left out.
        segment_bytes : int, optional
            About the bytes of exemplars that share a file of each array from now on, 1 KiB to 16 MiB: fewer and larger
            files open and copy faster, and the budget always keeps room for two. When left out, unchanged with the
            budget; another budget chooses what costs it least.

        Returns
        -------
        ndarray, shape (V,), int64
            Slots evicted.

        Raises
        ------
        BudgetTooSmallError
            If the new budget is below what the store needs without any exemplar; nothing was changed.

        Notes
        -----
        What is held afterwards is what a memory of the new budget would hold of the same adds, within 3 % or two
        exemplars (see `exmem.memory.order` for what that asks of the adds). An interrupted resize or
        charge is carried through by the next call that changes the memory, or by opening it for writing; what goes then
        is told by `CarriedThroughWarning`.
        """
        writer = self._ready()
        changes: dict[str, Any] = {}
        if max_bytes is not None:
            changes["max_bytes"] = parse_bytes(max_bytes)
        if max_exemplars is not _UNCHANGED:
            changes["max_exemplars"] = checked_count(max_exemplars)
        if segment_bytes is not None:
            changes["target"] = target_of(segment_bytes)
        if all(getattr(writer.state, name) == value for name, value in changes.items()):
            return np.zeros(0, np.int64)
        most = changes.get("max_bytes", writer.state.max_bytes)
        segments = "" if segment_bytes is None else f" with segments of {segment_bytes:,}"
        return self._policy.change(f"a budget of {most:,} bytes{segments}", **changes)

    def charge(self, name: str, nbytes: int | str) -> NDArray[np.int64]:
        """Account for bytes that a learner keeps elsewhere under the same budget; 0 ends the charge.

        Parameters
        ----------
        name : str
            What is kept; a second charge of the same name replaces the first.
        nbytes : int or str
            Its bytes, 0 or more.

        Returns
        -------
        ndarray, shape (V,), int64
            Slots evicted to make room.

        Raises
        ------
        SchemaError
            If the name is no text, or the bytes are negative.
        BudgetTooSmallError
            If the budget could not hold the charge even without exemplars; nothing was changed.
        """
        writer = self._ready()
        size, name = parse_bytes(nbytes), _checked_text(name, "a charge")
        charges = {key: held for key, held in writer.state.charges.items() if key != name}
        if size:
            charges[name] = size
        if charges == dict(writer.state.charges):
            return np.zeros(0, np.int64)
        return self._policy.change(f"a charge {shown(name)} of {size:,} bytes", charges=charges)

    def weigh(
        self, weights: Mapping[int, float] | Callable[[dict[int, ClassSummary]], Mapping[int, float]]
    ) -> NDArray[np.int64]:
        """Set shares of classes in the quota; what exceeds them goes when bytes are needed next.

        A class of weight 2 may hold twice the bytes (or exemplars) of a class of weight 1 before it loses any. For
        shares by frequency give each class the number of its examples, before its first exemplars are added: beside
        weights of hundreds, a class that is not weighed yet keeps next to nothing.

        Parameters
        ----------
        weights : mapping of int to float, or callable
            Label -> weight, 1e-12..1e12; classes that are left out keep theirs, which is 1 from the start. A function
            is called with `summary()` and returns them; the weights are stored, the function is not.

        Returns
        -------
        ndarray, shape (V,), int64
            Slots evicted, where the metadata grows beyond the budget.

        Raises
        ------
        SchemaError
            If a label or a weight is none, or the memory evicts by priority; nothing was changed.
        BudgetTooSmallError
            If the budget could not hold the weights even without exemplars; nothing was changed.
        """
        self._ready()
        given = mapping_of(weights(self.summary()) if callable(weights) else weights, "weights")
        quota = Quota(unit=self.quota.unit, weights={**self.quota.weights, **given})
        if self.eviction == "by_priority" and quota != Quota():
            raise SchemaError("eviction 'by_priority' knows no classes, so it takes no quota; make it 'by_class'")
        if quota == self.quota:
            return np.zeros(0, np.int64)
        return self._policy.put_settings(f"weights of {len(quota.weights):,} classes", quota=quota.to_json())

    def annotate(
        self, *, attrs: Mapping[str, Any] | None = None, class_names: Mapping[int, str] | None = None
    ) -> NDArray[np.int64]:
        """Note small things with the memory, in its root; they count in the budget.

        Parameters
        ----------
        attrs : mapping of str to JSON values, optional
            All notes from now on; unchanged when left out.
        class_names : mapping of int to str, optional
            All names of classes from now on; unchanged when left out.

        Returns
        -------
        ndarray, shape (V,), int64
            Slots evicted to make room.

        Raises
        ------
        SchemaError
            If something is no JSON, or a label no integer.
        BudgetTooSmallError
            If the budget could not hold the notes even without exemplars; nothing was changed.
        """
        self._ready()
        changes: dict[str, Any] = {}
        if attrs is not None:
            changes["attrs"] = plain_json(dict(mapping_of(attrs, "attrs")), "attrs")
        if class_names is not None:
            changes["class_names"] = {
                str(label_of(label, "the label of a name")): _checked_text(name, "a class")
                for label, name in mapping_of(class_names, "class_names").items()
            }
        settings = self._store.root.settings
        if all(settings.get(name, {}) == value for name, value in changes.items()):
            return np.zeros(0, np.int64)
        return self._policy.put_settings("what is noted", **changes)

    def renew(self) -> None:
        """Say that this memory is another one than that of which it is a copy: it goes its own way from now on.

        Readers and mirrors of a place know a memory again by its identity. They would take a copy that was put in its
        place for the same one, further on, and mix both up. What is staged stays staged.
        """
        self._ready().change_state(store_id=new_id())

    def compact(self) -> CompactReport:
        """Pack what is held into as few segments as it needs; slots stay.

        Returns
        -------
        CompactReport
            Bytes before and after.
        """
        before = self._ready().used_bytes
        self._policy.compact()
        return CompactReport(before, self._store.used_bytes)

    def _ready(self, *, settled: bool = True) -> Writer:
        writer = self._store.writer
        if writer is None:
            raise ReadOnlyError(f"{self.location} is closed or open for reading; open it with mode 'r+'")
        writer.ready()
        if settled:
            writer.settle()
        self._carry_through()
        return writer

    def _carry_through(self) -> None:
        gone = self._policy.finish()
        if len(gone):
            some = ", ".join(map(str, gone[:8].tolist())) + (", ..." if len(gone) > 8 else "")
            warnings.warn(
                f"{self.location}: a resize or charge that was interrupted was carried through; {len(gone):,} "
                f"exemplars were evicted for it (slots {some})",
                CarriedThroughWarning,
                stacklevel=4,
            )


def checked_count(count: int | None) -> int | None:
    """Return a number of exemplars, None for no limit; SchemaError if it is neither."""
    if count is None:
        return None
    return whole_number(count, "max_exemplars (None for no limit)")


def _checked_text(text: str, what: str) -> str:
    try:
        if not isinstance(text, str) or not text or "\0" in text:
            raise ValueError
        text.encode()
    except ValueError as error:
        raise SchemaError(
            f"expected text, not empty and without NUL and lone surrogates, as the name of {what}, got {shown(text)}"
        ) from error
    return text
