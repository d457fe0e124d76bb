"""The folder of a run: configuration, metrics, checkpoints and the memory; each file whole or not at all."""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from exmem.errors import DataError, LockedError
from exmem.train.config import TrainConfig

__all__ = ["RunFolder"]


class RunFolder:
    """Where a run keeps what it needs to go on after a kill, and what it found.

    Parameters
    ----------
    path : path
        The folder; made when it is missing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def memory(self) -> Path:
        """Folder of the exemplar memory."""
        return self.path / "memory"

    @property
    def features(self) -> Path:
        """Folder of the features that can be computed again; deleted when the run is done."""
        return self.path / "features"

    @property
    def metrics_file(self) -> Path:
        """What was measured, a line a phase."""
        return self.path / "metrics.jsonl"

    @property
    def picture(self) -> Path:
        """Picture of the accuracy per phase."""
        return self.path / "accuracy.png"

    @property
    def sheet(self) -> Path:
        """Picture of stored exemplars."""
        return self.path / "exemplars.png"

    @property
    def page(self) -> Path:
        """Page of stored exemplars."""
        return self.path / "exemplars.html"

    @property
    def is_run(self) -> bool:
        """Whether a run has claimed the folder; another program's config.json is none."""
        file = self.path / "config.json"
        known = self._read_json(file) if file.exists() else None
        return isinstance(known, dict) and {"config", "data"} <= known.keys()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process; the lock goes with the process.

        Yields
        ------
        None
            While it is held.

        Raises
        ------
        DataError
            If the folder cannot be made.
        LockedError
            If another process runs here.
        """
        import fcntl

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a")
        except OSError as error:
            raise DataError(f"{self.path}: cannot make the run folder: {error}; choose another with --out") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise LockedError(
                    f"{self.path}: another process runs in this folder; wait for it or choose another folder"
                ) from error
            yield

    def claim(self, config: TrainConfig, data: Mapping[str, Any]) -> None:
        """Take the folder for a run, or find that it is the folder of the same run.

        Parameters
        ----------
        config : TrainConfig
            The configuration.
        data : mapping
            What describes the data, as JSON values.

        Raises
        ------
        DataError
            If the folder belongs to another run; the message names what differs.
        """
        file = self.path / "config.json"
        if not self.is_run:
            others = sorted(p.name for p in self.path.iterdir() if p.name != ".lock" and not p.name.endswith(".tmp"))
            if others:
                raise DataError(f"{self.path}: expected an empty folder or a run, found {others[:5]}; choose another")
            self._write_json(file, {"config": config.to_json(), "data": dict(data)})
            return
        there, known = self.described()
        differences = there.differences(config)
        differences += [
            f"data {key}: {value!r}, {data.get(key)!r}" for key, value in known.items() if value != data.get(key)
        ]
        if differences:
            raise DataError(
                f"{self.path} holds a run that differs in {'; '.join(differences)} (there, here); "
                "use the same settings to continue it, or another folder"
            )

    def described(self) -> tuple[TrainConfig, dict[str, Any]]:
        """Return what the folder was claimed with.

        Returns
        -------
        config : TrainConfig
            The configuration.
        data : dict
            What describes the data.
        """
        known = self._read_json(self.path / "config.json")
        return TrainConfig.from_json(known["config"]), known["data"]

    def metrics(self) -> list[dict[str, Any]]:
        """Return what was measured, one entry per finished phase."""
        if not self.metrics_file.exists():
            return []
        return [_with_nan(json.loads(line)) for line in self.metrics_file.read_text(encoding="utf-8").splitlines()]

    def add_metrics(self, entry: Mapping[str, Any]) -> None:
        """Add the entry of a phase: this finishes the phase.

        Parameters
        ----------
        entry : mapping
            What was measured, as JSON values; NaN becomes null.
        """
        lines = [*self.metrics(), dict(entry)]
        text = "".join(json.dumps(_without_nan(line), allow_nan=False) + "\n" for line in lines)
        self._write(self.metrics_file, text.encode())

    def checkpoint(self, phase: int) -> dict[str, Tensor] | None:
        """Return what was saved after training a phase.

        Parameters
        ----------
        phase : int
            Phase from 0.

        Returns
        -------
        dict of str to Tensor, or None
            Trained tensors; None when the phase was not trained.
        """
        file = self._state(phase, "tuned.safetensors")
        return load_file(file) if file.exists() else None

    def save_checkpoint(self, phase: int, tensors: Mapping[str, Tensor]) -> None:
        """Save what was trained in a phase; the checkpoint before the last is dropped.

        Parameters
        ----------
        phase : int
            Phase from 0.
        tensors : mapping of str to Tensor
            Trained tensors.
        """
        self.save_tensors(self._state(phase, "tuned.safetensors"), tensors)
        self._state(phase - 2, "tuned.safetensors").unlink(missing_ok=True)

    def save_tensors(self, file: Path, tensors: Mapping[str, Tensor]) -> None:
        """Save tensors to a file.

        Parameters
        ----------
        file : Path
            The file.
        tensors : mapping of str to Tensor
            Tensors.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(file.name + ".tmp")
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        _publish(temporary, file)

    def note(self, phase: int, name: str) -> dict[str, Any] | None:
        """Return a note of a phase.

        Parameters
        ----------
        phase : int
            Phase from 0.
        name : str
            Name of the note.

        Returns
        -------
        dict or None
            The note, if there is one.
        """
        file = self._state(phase, f"{name}.json")
        found: dict[str, Any] | None = self._read_json(file) if file.exists() else None
        return found

    def save_note(self, phase: int, name: str, values: Mapping[str, Any]) -> None:
        """Save a note of a phase.

        Parameters
        ----------
        phase : int
            Phase from 0.
        name : str
            Name of the note.
        values : mapping
            JSON values.
        """
        self._write_json(self._state(phase, f"{name}.json"), values)

    def _state(self, phase: int, name: str) -> Path:
        return self.path / "state" / f"phase{phase}-{name}"

    def _read_json(self, file: Path) -> Any:
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{file}: expected JSON, got {error}; use a new run folder") from error

    def _write_json(self, file: Path, values: Mapping[str, Any]) -> None:
        self._write(file, (json.dumps(values, indent=1) + "\n").encode())

    def _write(self, file: Path, data: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(file.name + ".tmp")
        temporary.write_bytes(data)
        _publish(temporary, file)


def _publish(temporary: Path, file: Path) -> None:
    """Put a file in place, on the disk before it can be seen."""
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    Path(temporary).replace(file)


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_nan(inner) for inner in value]
    return math.nan if value is None else value


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
