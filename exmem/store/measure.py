"""What a state of the store takes of the budget."""

from collections.abc import Mapping
from typing import NamedTuple

from exmem.store.layout import Layout

__all__ = ["METADATA_SLACK_BYTES", "Measure", "reserve_bytes"]

METADATA_SLACK_BYTES = 512  # metadata objects grow by digits; one is replaced at a time


class Measure(NamedTuple):
    """What a state of the store takes.

    Parameters
    ----------
    objects_bytes : int
        Sizes of all objects.
    reserve_bytes : int
        What has to stay free so that any object can be rewritten beside its old version.
    """

    objects_bytes: int
    reserve_bytes: int


def reserve_bytes(sizes: Mapping[str, int], layout: Layout, shard_slots: int) -> int:
    """Return the bytes that have to stay free to rewrite the largest object beside its old version.

    Parameters
    ----------
    sizes : mapping of str to int
        Size of each object.
    layout : Layout
        Layout of the store.
    shard_slots : int
        Slots of a shard; shards of one exemplar are deleted, never rewritten.

    Returns
    -------
    int
        Bytes.
    """
    shards = tuple(f"{array.path}/c." for array in layout.sharded.values())
    rewritten = (size for key, size in sizes.items() if shard_slots != 1 or not key.startswith(shards))
    return max(rewritten, default=0) + METADATA_SLACK_BYTES
