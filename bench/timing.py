"""Times of works that take turns, so that whatever else the machine does slows all of them alike."""

import resource
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

__all__ = ["in_turn", "interleaved", "resident_bytes"]


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


def resident_bytes() -> int:
    """RAM of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
