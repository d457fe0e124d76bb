"""Objects that fail on purpose, and that watch the budget at every operation."""

import shutil
from pathlib import Path

from exmem.store.objects import LocalObjects
from tests.exemplars import folder_bytes


class Crash(BaseException):
    """The process dies here: nothing after it runs, not even cleaning up."""


class Crashing:
    """Count the puts and deletes of `LocalObjects` and die before, in the middle of or after one of them.

    The folder is copied at the moment of death, so that what exception handlers do afterwards is not seen.
    """

    def __init__(self, monkeypatch, folder: Path, grave: Path, *, at: int, when: str, max_bytes: int) -> None:
        self.count, self.dead = 0, False
        self._folder, self._grave, self._at, self._when, self._max_bytes = folder, grave, at, when, max_bytes
        for name in ("put", "hold", "delete"):
            monkeypatch.setattr(LocalObjects, name, self._wrap(getattr(LocalObjects, name)))
        real_write = LocalObjects._write

        def write(objects, path, data):
            if self._here("middle"):
                path.write_bytes(data[: len(data) // 2])
                self._die()
            real_write(objects, path, data)
            self.check()

        monkeypatch.setattr(LocalObjects, "_write", write)

    def check(self) -> None:
        assert folder_bytes(self._folder) <= self._max_bytes, "over the budget"

    def _wrap(self, operation):
        def wrapped(objects, key, *data, **options):
            if self.dead:
                return True, None  # handlers run on, but the copy is already taken
            if self._here("before"):
                self._die()
            result = operation(objects, key, *data, **options)
            self.check()
            if self._here("after"):
                self._die()
            self.count += 1
            return result

        return wrapped

    def _here(self, when: str) -> bool:
        return not self.dead and self.count == self._at and self._when == when

    def _die(self) -> None:
        self.dead = True
        self.check()
        if self._folder.exists():
            shutil.copytree(self._folder, self._grave)
        raise Crash
