"""What a state of the store takes of the budget."""

from typing import NamedTuple

__all__ = ["METADATA_SLACK_BYTES", "Measure"]

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
