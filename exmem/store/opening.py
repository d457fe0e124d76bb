"""Making a store, and opening one: the lock first, then a look."""

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from typing import Any, Literal

from exmem.codecs import CODECS, PayloadCodec, codec_name, get_codec
from exmem.errors import (
    BudgetTooSmallError,
    CodecError,
    CorruptMetadataError,
    FormatError,
    StoreExistsError,
    StoreNotFoundError,
)
from exmem.store.format.documents import FROM_A_COPY, broken, unseal
from exmem.store.format.layout import Layout, parse_key
from exmem.store.format.root import MOST_ROOT_BYTES, ROOT_KEY, Root, parse_root, root_document
from exmem.store.format.state import STATE_KEY, Era, State, new_id
from exmem.store.least import least_budget
from exmem.store.loading import load, read_state
from exmem.store.objects import LOCK_KEY, TEMPORARY, BudgetedObjects, Objects, Place, objects_at
from exmem.store.reader import Reader
from exmem.store.sizes import least_length, target_for
from exmem.store.store import Store
from exmem.store.threads import Threads
from exmem.store.writer import Writer
from exmem.tokens import Schema, TokenSpec
from exmem.tokens.checks import shown, whole_number

__all__ = ["create_store", "open_store"]

_MOST_THREADS = 1024  # a choice
_REPAIR = "`exmem repair` writes it again where it can"


def create_store(
    place: Place,
    schema: Schema,
    *,
    max_bytes: int,
    settings: Mapping[str, Any],
    max_exemplars: int | None,
    durable: bool,
    threads: int | None,
) -> Store:
    """Make an empty store and hold its lock; BudgetTooSmallError without room for metadata and reserve."""
    threads = _num_threads(threads)  # what can be refused is refused before anything is written
    objects, layout, root = objects_at(place, durable=durable), Layout(schema), Root(schema, settings)
    target = target_for(max_bytes)
    era = Era(1, least_length(1, 1))
    state = State(store_id=new_id(), max_bytes=max_bytes, target=target, eras={0: era}, max_exemplars=max_exemplars)
    documents = layout.era_documents(0, 1, era.length)
    needed = least_budget(layout, root, state)
    if max_bytes < needed:
        raise BudgetTooSmallError(
            f"max_bytes is {max_bytes:,}, an empty store of this schema needs {needed:,} (metadata, and the room "
            f"to rewrite a segment); give at least {needed:,} and room for exemplars"
        )
    _what_is_left(objects)  # before the lock is taken: that would leave a file in a folder of others
    objects.acquire(take=False)
    try:
        left = _what_is_left(objects)
        budgeted = BudgetedObjects(objects, limit=max_bytes)
        objects.clear_temporary()
        for key in left:
            if key != LOCK_KEY:  # what an interrupted create left: it has no root
                objects.delete(key)
        budgeted.measure()
        for key, data in documents.items():
            budgeted.put(key, data)
        budgeted.commit(STATE_KEY, state.document)
        budgeted.put(ROOT_KEY, root_document(root))  # from here on there is a store
        budgeted.flush()
    except BaseException:
        objects.release(clean=True)
        raise
    return _opened(objects, root, layout, budgeted=budgeted, threads=threads, verify="once", unclean=False)


def open_store(
    place: Place,
    *,
    writable: bool,
    durable: bool = True,
    threads: int | None = None,
    take_lock: bool = False,
    verify: Literal["once", "always"] = "once",
    repairing: bool = False,
) -> Store:
    """Open a store in its last committed state; `repairing` in spite of damage."""
    threads = _num_threads(threads)
    objects = objects_at(place, durable=durable)
    if objects.get(ROOT_KEY, limit=MOST_ROOT_BYTES) is None:
        raise StoreNotFoundError(
            f"{objects.location} holds no exmem store ({ROOT_KEY} is missing); create one first, or put that file back "
            "from a copy"
        )
    unclean = objects.acquire(take=take_lock) if writable else False
    try:
        root = parse_root(objects.get(ROOT_KEY, limit=MOST_ROOT_BYTES) or b"", objects.location)
        state, _ = read_state(objects)
        layout = _recorded(objects, root.schema, state, tolerant=repairing)
        budgeted = BudgetedObjects(objects, limit=0) if writable else None
        return _opened(
            objects,
            root,
            layout,
            budgeted=budgeted,
            threads=threads,
            verify=verify,
            unclean=unclean and not repairing,
            tolerant=repairing,
        )
    except BaseException:
        if writable:
            objects.release(clean=not unclean)  # the next writer has to know that the last one died
        raise


def _opened(
    objects: Objects,
    root: Root,
    layout: Layout,
    *,
    budgeted: BudgetedObjects | None,
    threads: int,
    verify: Literal["once", "always"],
    unclean: bool,
    tolerant: bool = False,
) -> Store:
    pool = Threads(threads)
    reader = Reader(objects, layout, threads=pool, verify=verify)
    loaded = load(objects, layout, tolerant=tolerant)
    store = Store(objects, layout, root=root, loaded=loaded, reader=reader, threads=pool)
    if budgeted is not None:
        budgeted.measure()
        store.writer = Writer(budgeted, layout, root, loaded, reader)
        if not tolerant:
            store.writer.recover(unclean=unclean, loaded=loaded)
    return store


def _recorded(objects: Objects, schema: Schema, state: State, *, tolerant: bool) -> Layout:
    # The metadata of the arrays is the truth about codecs: it holds JPEG headers and codebooks, the schema does not.
    codecs, modalities = {}, dict(schema.modalities)
    for name, spec in schema.modalities.items():
        config = dict(spec.codec) if isinstance(spec.codec, Mapping) else {"id": spec.codec}
        try:
            codec = _codec_in(objects, state, name, state.era)
        except FormatError as error:
            if not tolerant:
                raise CorruptMetadataError(f"{error}; {_REPAIR}") from error
            codec = _codec_of_before(objects, state, name)
            if codec is None and not _says_everything(config, spec):
                raise CorruptMetadataError(
                    f"{error}; it alone holds what the codec {config['id']!r} was trained to, so no exemplar can be "
                    f"decoded; {FROM_A_COPY}"
                ) from error
        if codec is not None:
            apart = {option: value for option, value in codec.get_config().items() if option in codec.stored_apart}
            modalities[name] = dataclasses.replace(spec, codec=config | apart)
            codecs[name] = codec
    return Layout(dataclasses.replace(schema, modalities=modalities), codecs)


def _codec_in(objects: Objects, state: State, name: str, era: int) -> PayloadCodec | None:
    """Return the codec that an era's metadata records; None where the modality has no array of its own."""
    key = f"e{era}/{name}/zarr.json"
    try:
        data = objects.get(key, limit=MOST_ROOT_BYTES)
        if data is None:
            if not _is_sharded(objects, state, name):
                return None
            raise ValueError("it is missing")
        outer = unseal(data)["codecs"][0]
        config = dict(outer["configuration"]["codecs"][0]["configuration"]["codec"])
        codec_id = str(config["id"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise broken(objects.location, key, error) from error
    try:
        CODECS[codec_name(codec_id)]
    except CodecError as error:  # nothing is damaged
        raise CodecError(
            f"{objects.location}: {name!r} was encoded by the codec {shown(codec_id)}, which is not to be had here "
            f"({error}); install the package that offers it, or add it by exmem.codecs.CODECS.add before opening"
        ) from error
    try:
        return get_codec(config)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise broken(objects.location, key, error) from error


def _codec_of_before(objects: Objects, state: State, name: str) -> PayloadCodec | None:
    """Return the codec that the metadata of another era records: all have the same; None where none is whole."""
    for era in sorted(set(state.eras) - {state.era}, reverse=True):
        with contextlib.suppress(FormatError):
            if codec := _codec_in(objects, state, name, era):
                return codec
    return None


def _says_everything(config: Mapping[str, Any], spec: TokenSpec) -> bool:
    """Say whether a codec can be made from the schema alone."""
    try:
        get_codec(config, shape=spec.shape, dtype=spec.dtype)
    except CodecError:
        return False
    return True


def _is_sharded(objects: Objects, state: State, name: str) -> bool:
    """Return whether a modality has an array of its own, which the fields of the records tell."""
    data = objects.get(f"e{state.era}/records/zarr.json", limit=MOST_ROOT_BYTES)
    return data is None or f"{name}.values" not in unseal(data)["attributes"]["exmem"]["fields"]


def _what_is_left(objects: Objects) -> list[str]:
    """Return the names that an interrupted create left; StoreExistsError if something else is there."""
    left = [key for key in objects.sizes() if not key.rpartition("/")[2].startswith(TEMPORARY)]
    strange = [key for key in left if key != LOCK_KEY and key != STATE_KEY and not _left_by_create(key)]
    if strange:
        raise StoreExistsError(
            f"{objects.location} is not empty ({min(strange)} is there); open it, or choose another place"
        )
    return left


def _left_by_create(key: str) -> bool:
    parsed = parse_key(key)
    return parsed is not None and parsed[0] == 0 and parsed[2] is None


def _num_threads(threads: int | None) -> int:
    if threads is None:
        return min(8, os.cpu_count() or 1)
    return whole_number(threads, "threads", least=1, most=_MOST_THREADS)
