"""Times of works that take turns, so that whatever else the machine does slows all of them alike."""

import ctypes
import gc
import resource
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

__all__ = ["anonymous_bytes", "in_turn", "interleaved", "resident_bytes"]


def in_turn(works: Iterable[Callable[[Any], object]], inputs: Iterable[Any]) -> list[float]:
    """Median seconds of each work; all get the same inputs, each time another one is the first."""
    works = list(works)
    times: list[list[float]] = [[] for _ in works]
    for turn, given in enumerate(inputs):
        for number in range(len(works)):
            chosen = (turn + number) % len(works)
            start = time.perf_counter()
            works[chosen](given)
            times[chosen].append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]


def interleaved(*works: Callable[[], object], rounds: int = 15) -> list[float]:
    """Median seconds of works without inputs."""
    return in_turn([lambda _, work=work: work() for work in works], range(rounds))


def anonymous_bytes() -> int:
    """RAM of this process that is in use and belongs to no file: what an allocator keeps for later is given back."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines["RssAnon"].split()[0])


def resident_bytes() -> int:
    """RAM of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
