"""Saving and loading a storage of TorchRL as one file."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from torchrl.data.replay_buffers.checkpointers import StorageCheckpointerBase

from exmem.errors import DataError

__all__ = ["ExmemCheckpointer", "Saved"]

_FILE, _MOST_HEADER = "storage.exmem", 1 << 30


class Saved(Protocol):
    """What a checkpointer asks of a storage."""

    def ring(self) -> dict[str, Any]:
        """Return as JSON what belongs to the files of its memory."""

    def write_snapshot(self, file: IO[bytes]) -> None:
        """Write the files of its memory."""

    def become(self, snapshot: bytes | IO[bytes], ring: Mapping[str, Any]) -> None:
        """Take both over."""


class ExmemCheckpointer(StorageCheckpointerBase):  # type: ignore[misc]
    """Saves an ExmemStorage as one file, which is replaced as a whole, and loads it."""

    def dumps(self, storage: Saved, path: "str | os.PathLike[str]") -> None:
        """Save all entries into a folder.

        Parameters
        ----------
        storage : ExmemStorage
            Whose entries.
        path : path
            The folder; made where it is missing.
        """
        self._check_hooks()
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{_FILE}-{os.getpid()}"
        try:
            with beside.open("wb") as file:
                file.write(json.dumps(storage.ring()).encode() + b"\n")
                storage.write_snapshot(file)
            beside.replace(folder / _FILE)
        finally:
            beside.unlink(missing_ok=True)

    def loads(self, storage: Saved, path: "str | os.PathLike[str]") -> None:
        """Load all entries of a folder; those held until now go.

        Parameters
        ----------
        storage : ExmemStorage
            Which takes them.
        path : path
            A folder that `dumps` wrote into.

        Raises
        ------
        DataError
            If the file there is not what `dumps` wrote; nothing was changed.
        """
        self._check_hooks()
        source = Path(path) / _FILE
        with source.open("rb") as file:
            try:
                ring = json.loads(file.readline(_MOST_HEADER))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{source}: expected what dumps() wrote: {error}") from error
            storage.become(file, ring)

    def _check_hooks(self) -> None:
        if self._save_hooks or self._load_hooks:
            raise NotImplementedError("an ExmemStorage is saved as it is; hooks that rearrange tensors have none here")
