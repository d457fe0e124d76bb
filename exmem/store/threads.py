"""Threads that encode and decode; they start when they are needed and do not survive a fork."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

__all__ = ["Threads"]


class Threads:
    """Runs work on parts of a range, in `count` threads; one means the caller's own."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ThreadPoolExecutor | None = None
        self._pid = -1

    def run(self, work: Callable[[Sequence[int]], None], count: int) -> None:
        """Call `work` with parts of `range(count)`, each number once; its first error is raised when all have ended."""
        parts = min(self._count, count)
        if parts <= 1:
            work(range(count))
            return
        if self._pool is None or self._pid != os.getpid():
            self._pool, self._pid = ThreadPoolExecutor(self._count, "exmem"), os.getpid()
        try:
            first = self._pool.submit(work, range(1, count, parts))
        except RuntimeError:  # an interpreter that ends starts no thread; what is closed then is still written
            work(range(count))
            return
        others = [first, *(self._pool.submit(work, range(start, count, parts)) for start in range(2, parts))]
        try:
            work(range(0, count, parts))
        finally:
            wait(others)
        for other in others:
            other.result()

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None and self._pid == os.getpid():
            self._pool.shutdown()
        self._pool = None
