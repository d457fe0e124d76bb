"""A copy of a memory on the disk of this machine, which is brought up to date by what is new."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from exmem.errors import StaleSnapshotError, StoreExistsError, StoreNotFoundError
from exmem.store.format.layout import parse_key
from exmem.store.format.root import MOST_ROOT_BYTES, ROOT_KEY
from exmem.store.format.state import MOST_STATE_BYTES, STATE_KEY, State, parse_state
from exmem.store.objects import LOCK_KEY, TEMPORARY, Objects, Place, objects_at

__all__ = ["mirror"]

_AT_ONCE = 256  # objects in RAM
_MARK = "mirror"  # beside `attributes.exmem` of the document: the next commit of a writer leaves it out
_MOST_TRIES = 64


def mirror(place: Place, folder: str | os.PathLike[str]) -> int:
    """Bring a folder up to the last committed state of a memory elsewhere.

    Afterwards the folder is a memory like any other, to be read with mode `"r"`, also while it is brought up to date:
    what is new is put, then the document, then what went is deleted. For a while it may take the bytes of both states.
    An interrupted one is begun again.

    Parameters
    ----------
    place : path or zarr store
        The memory.
    folder : path
        A folder that is missing or empty, or a mirror of this memory; what lies in it already is not fetched again.

    Returns
    -------
    int
        Objects that were fetched.

    Raises
    ------
    StoreNotFoundError
        If there is no memory.
    StoreExistsError
        If the folder holds something else, or a mirror that was written to.
    StaleSnapshotError
        If the memory changes faster than it can be copied.
    LockedError
        If another process brings this folder up to date.
    """
    source, copy = objects_at(place, durable=False), objects_at(folder, durable=False)
    if isinstance(place, str | os.PathLike) and Path(copy.location).is_relative_to(Path(source.location)):
        raise StoreExistsError(f"{copy.location} lies within {source.location}, whose budget counts it; choose another")
    if source.get(ROOT_KEY, limit=MOST_ROOT_BYTES) is None:
        raise StoreNotFoundError(f"{source.location} holds no exmem store ({ROOT_KEY} is missing); create one first")
    _refuse_others(copy)  # before the lock is taken: that would leave a file in a folder of others
    with _locked(copy):
        copy.clear_temporary()
        before = _held(copy)
        for key in set(copy.sizes()) - _named(copy.sizes(), before) - {ROOT_KEY, STATE_KEY, LOCK_KEY}:
            copy.delete(key)  # of a mirror that was interrupted
        return _follow(source, copy, before)


def _follow(source: Objects, copy: Objects, before: State | None) -> int:
    fetched, grown = 0, _open_keys(before)  # names that may hold more by now
    for _ in range(_MOST_TRIES):
        document = source.get(STATE_KEY, limit=MOST_STATE_BYTES) or b""
        state = parse_state(document, source.location)
        if before is not None and (before.store_id != state.store_id or before.revision > state.revision):
            raise StoreExistsError(
                f"{copy.location} mirrors another memory, or a later state, than {source.location} holds; choose "
                "another folder"
            )
        before = before or state
        wanted, held = _named(source.sizes(), state), copy.sizes()
        grown |= _open_keys(state)
        new = sorted(key for key in wanted if key not in held or _segment(key) is None or _segment(key) in grown)
        whole = _fetch(source, copy, new)
        fetched += len(new)
        newest = source.get(STATE_KEY, limit=MOST_STATE_BYTES) or b""
        if whole or newest == document:  # what a document names is there; if not, it is damaged, and readers say so
            if parse_state(newest, source.location).store_id != state.store_id:
                raise StaleSnapshotError(f"{source.location}: another store was made at this place; mirror it again")
            copy.put(STATE_KEY, _marked(document))
            copy.put(ROOT_KEY, source.get(ROOT_KEY, limit=MOST_ROOT_BYTES) or b"")
            for key in set(copy.sizes()) - wanted - {ROOT_KEY, STATE_KEY, LOCK_KEY}:
                copy.delete(key)
            return fetched
    raise StaleSnapshotError(f"{source.location} changes faster than it can be copied; try again when it rests")


def _fetch(source: Objects, copy: Objects, keys: list[str]) -> bool:
    """Copy objects; False if one is missing."""
    whole = True
    for start in range(0, len(keys), _AT_ONCE):
        group = keys[start : start + _AT_ONCE]
        for key, view in zip(group, source.views(group), strict=True):
            if view is None:
                whole = False
            else:
                copy.put(key, bytes(view.data))
    return whole


def _segment(key: str) -> tuple[int, int] | None:
    """Return era and segment of an object; None for metadata."""
    parsed = parse_key(key)
    return None if parsed is None or parsed[2] is None else (parsed[0], parsed[2])


def _open_keys(state: State | None) -> set[tuple[int, int]]:
    return set() if state is None else {(number, era.open) for number, era in state.eras.items()}


def _named(keys: Iterable[str], state: State | None) -> set[str]:
    """Return those of some keys that are part of a state: metadata of its eras, and its live segments."""
    if state is None:
        return set()
    live = {number: set(era.live.tolist()) for number, era in state.eras.items()}
    parsed = {key: parse_key(key) for key in keys}
    return {
        key
        for key, name in parsed.items()
        if name and name[0] in live and (name[2] is None or name[2] in live[name[0]])
    }


def _marked(document: bytes) -> bytes:
    marked = json.loads(document)
    marked["attributes"][_MARK] = True
    return json.dumps(marked, separators=(",", ":"), ensure_ascii=False).encode()


def _held(copy: Objects) -> State | None:
    """Return the state that a mirror is at; None where nothing is mirrored yet."""
    document = copy.get(STATE_KEY, limit=MOST_STATE_BYTES)
    if document is None:
        return None
    state = parse_state(document, copy.location)
    if not json.loads(document)["attributes"].get(_MARK):
        raise StoreExistsError(
            f"{copy.location} is no mirror, or was written to; choose another folder, and open mirrors with mode 'r'"
        )
    return state


def _refuse_others(copy: Objects) -> None:
    keys = [key for key in copy.sizes() if not key.rpartition("/")[2].startswith(TEMPORARY)]
    strange = [key for key in keys if parse_key(key) is None and key not in {ROOT_KEY, STATE_KEY, LOCK_KEY}]
    if strange or (ROOT_KEY in keys and STATE_KEY not in keys):
        raise StoreExistsError(f"{copy.location} is not empty ({min(strange or keys)} is there); choose another folder")
    _held(copy)


@contextlib.contextmanager
def _locked(copy: Objects) -> Iterator[None]:
    copy.acquire(take=False)
    try:
        yield
    except BaseException:
        copy.release(clean=False)
        raise
    copy.release(clean=True)
