"""A dictionary that stays as it is."""

from typing import Any, NoReturn

from typing_extensions import override

__all__ = ["ReadOnlyDict"]


class ReadOnlyDict(dict[Any, Any]):
    """A dictionary that refuses changes; it is compared, copied and pickled as any other.

    It is what frozen dataclasses hold, so that what a memory hands out of itself cannot be changed behind its back.
    """

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("this mapping is read-only; make a new one, or use the method of the memory that changes it")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    @override
    def __reduce__(self) -> tuple[type["ReadOnlyDict"], tuple[dict[Any, Any]]]:
        return type(self), (dict(self),)

    @override
    def copy(self) -> dict[Any, Any]:
        """Return a dictionary that can be changed."""
        return dict(self)
