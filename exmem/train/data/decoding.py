"""Images decoded in threads, and those that were decoded last, held in RAM within a bound."""

import collections
import dataclasses
import os
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from exmem.errors import DataError, SchemaError
from exmem.store import parse_bytes
from exmem.train.data.images import ImageFacts, inspect_image
from exmem.train.data.reading import Example, Split

__all__ = ["Decoded", "broken_images", "decoded", "inspected", "source_key"]

Pixels = NDArray[np.uint8]
Advance = Callable[[int, int], None]
_FEW = 4  # images that are not worth threads


class Decoded:
    """Decoded images by key, those of this process; at most so many bytes, and what was not used for longest goes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._images: collections.OrderedDict[Hashable, Pixels] = collections.OrderedDict()
        self.held_bytes = 0

    def get(self, key: Hashable) -> Pixels | None:
        """Return an image, None where it is not held."""
        with self._lock:
            image = self._images.get(key)
            if image is not None:
                self._images.move_to_end(key)
            return image

    def put(self, key: Hashable, image: Pixels, most: int) -> None:
        """Hold an image among `most` bytes; one that is larger by itself is not held."""
        if image.nbytes > most:
            return
        with self._lock:
            before = self._images.pop(key, None)
            self.held_bytes += image.nbytes - (0 if before is None else before.nbytes)
            self._images[key] = image
            while self.held_bytes > most:
                _, oldest = self._images.popitem(last=False)
                self.held_bytes -= oldest.nbytes

    def many(self, keys: Sequence[Hashable], decode: Callable[[int], Pixels], out: Pixels) -> None:
        """Fill `out` with images by their keys; `decode` makes the one at a place, in threads, where it is not held."""
        most = _most_bytes()

        def fill(at: int) -> None:
            image = self.get(keys[at])
            if image is None:
                image = decode(at)
                self.put(keys[at], image, most)
            out[at] = image

        if len(keys) < _FEW:
            for at in range(len(keys)):
                fill(at)
            return
        with ThreadPoolExecutor(_threads()) as pool:  # one a call: threads do not survive a fork
            for _ in pool.map(fill, range(len(keys))):
                pass

    def clear(self) -> None:
        """Hold nothing; the lock is a new one, for another thread may have held it when a process was forked."""
        self.__init__()  # type: ignore[misc]


decoded = Decoded()
"""What this process has decoded, of whatever data: copies and parts of a data set share it."""

if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=decoded.clear)


def source_key(path: str) -> Hashable:
    """Name a file as it is now; a file that is not there has no other name than its path."""
    try:
        status = os.stat(path)  # noqa: PTH116 - it is done for each image
    except OSError:
        return (path,)
    return path, status.st_mtime_ns, status.st_size, status.st_ino


def inspected(sources: Iterable[tuple[Split, Example]], advance: Advance | None) -> list[ImageFacts | str | None]:
    """Decode the images of examples in threads: what they are, or what is wrong with them; None of one without."""

    def inspect(source: tuple[Split, Example]) -> ImageFacts | str | None:
        split, example = source
        try:
            held = split.source(example)
            return None if held is None else inspect_image(held[0], held[1])
        except DataError as error:
            return str(error)

    wanted, results = list(sources), list[ImageFacts | str | None]()
    pool = ThreadPoolExecutor(_threads())
    try:
        for result in pool.map(inspect, wanted):
            results.append(result)
            if advance is not None:
                advance(len(results), len(wanted))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt waits for no image that is not begun
    return results


def broken_images(splits: Sequence[Split], advance: Advance | None) -> list[Split]:
    """Return splits without the examples whose images cannot be decoded, which are told among those that are broken."""
    whole = [(split, example) for split in splits for example in split.examples]
    once = {(id(split), example.image): (split, example) for split, example in whole}
    wrong = dict(zip(once, inspected(once.values(), advance), strict=True))
    cleared = []
    for split in splits:
        found = [(example, wrong[id(split), example.image]) for example in split.examples]
        kept = [example for example, result in found if not isinstance(result, str)]
        broken = dict.fromkeys(result for _, result in found if isinstance(result, str))
        cleared.append(dataclasses.replace(split, examples=kept, broken=[*split.broken, *broken]))
    return cleared


def _threads() -> int:
    return min(8, os.cpu_count() or 1)


def _most_bytes() -> int:
    try:
        return parse_bytes(os.environ.get("EXMEM_IMAGE_BYTES", "1GB"))
    except SchemaError as error:
        raise SchemaError(f"EXMEM_IMAGE_BYTES: {error}") from error
