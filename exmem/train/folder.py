"""The folder of a run: configuration, metrics, checkpoints and the memory; each file whole or not at all."""

import contextlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from exmem.errors import DataError, LockedError, SchemaError

if TYPE_CHECKING:
    from torch import Tensor

    from exmem.train.config import TrainConfig

__all__ = ["RunFolder", "names_in"]

_LOCK = ".lock"
_OF_WINDOWS = {"Thumbs.db", "desktop.ini"}


def names_in(folder: Path) -> list[str]:
    """Return what somebody put into a folder, sorted: no hidden file, and none that Windows leaves where it looked."""
    names = (path.name for path in folder.iterdir())
    return sorted(name for name in names if not name.startswith(".") and name not in _OF_WINDOWS)


class RunFolder:
    """Where a run keeps what it needs to go on after a kill, and what it measured; made when a run locks it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def memory(self) -> Path:
        """Folder of the exemplar memory."""
        return self.path / "memory"

    @property
    def metrics_file(self) -> Path:
        """What was measured, a line a phase."""
        return self.path / "metrics.jsonl"

    @property
    def scenario_file(self) -> Path:
        """Classes of each phase by name, as `data.scenario` takes it."""
        return self.path / "scenario.json"

    @property
    def accuracy_image(self) -> Path:
        """Image of the accuracy per phase."""
        return self.path / "accuracy.png"

    @property
    def matrix_image(self) -> Path:
        """Image of the accuracy on the classes of each phase, after each phase."""
        return self.path / "matrix.png"

    @property
    def bytes_image(self) -> Path:
        """Image of the bytes that each class takes."""
        return self.path / "bytes.png"

    @property
    def summary(self) -> Path:
        """What the run came to, in Markdown."""
        return self.path / "summary.md"

    @property
    def sheet(self) -> Path:
        """Image of stored exemplars."""
        return self.path / "exemplars.png"

    @property
    def page(self) -> Path:
        """Page of stored exemplars."""
        return self.path / "exemplars.html"

    @property
    def is_run(self) -> bool:
        """Whether a run has claimed the folder; another program's run.json is none."""
        file = self.path / "run.json"
        known = self._read_json(file) if file.exists() else None
        return isinstance(known, dict) and {"config", "data"} <= known.keys()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process; DataError if it cannot be made, LockedError if another process runs here.

        Where the file system has no locks (NFS without its lock service) a lock file stands in; a warning says so, for
        one that a killed run leaves has to be removed by hand.
        """
        import filelock  # what a run left is read without it

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = _taken(filelock.FileLock(self.path / _LOCK, timeout=0))
        except filelock.Timeout as error:
            left = "" if error.lock_file.endswith(_LOCK) else f", or remove {error.lock_file} if there is none"
            raise LockedError(
                f"{self.path}: another process runs in this folder; wait for it{left}, or choose another folder"
            ) from error
        except OSError as error:
            raise DataError(f"{self.path}: cannot make the run folder: {error}; choose another with --out") from error
        try:
            yield
        finally:
            lock.release()

    def claim(self, config: "TrainConfig", data: Mapping[str, Any], scenario: Mapping[str, Any] | None = None) -> bool:
        """Take the folder for a run, or find that it is the folder of the same run; say if it was configured anew.

        A run that has finished no phase takes another configuration and begins anew; one that has is refused with what
        differs (DataError). The scenario is what a file of it holds, and is kept as one.
        """
        document = {"config": config.to_json(), "data": dict(data)}
        if not self.is_run:
            others = [name for name in names_in(self.path) if not name.endswith(".tmp")]
            if others:
                raise DataError(f"{self.path}: expected an empty folder or a run, found {others[:5]}; choose another")
            self._write_claim(document, scenario)
            return False
        try:
            claimed, known = self.described()
            differences = claimed.differences(config)
        except SchemaError as error:  # of another version
            known, differences = {}, [f"its configuration, which is none of this version ({error})"]
        differences += [f"the {key} data" for key, value in known.items() if value != data.get(key)]
        held = self._read_json(self.scenario_file) if self.scenario_file.exists() else scenario
        if scenario is not None and not (isinstance(held, dict) and held.get("phases") == scenario["phases"]):
            differences.append(f"the classes of its phases ({self.scenario_file.name})")
        if not differences:
            self._write_claim(document, scenario)  # what may change
            return False
        if self.metrics():
            raise DataError(
                f"{self.path} holds a run that differs in {'; '.join(differences)} (there, here); "
                "use the same settings and data to continue it, or another folder"
            )
        for folder in (self.memory, self.path / "state"):
            _remove(folder)
        self._write_claim(document, scenario)
        return True

    def _write_claim(self, document: Mapping[str, Any], scenario: Mapping[str, Any] | None) -> None:
        """Write what the run is, and its configuration and scenario as `exmem train` takes them."""
        from exmem.recipes.recipe import document_text

        self._write_json(self.path / "run.json", document)
        self.write_text(self.path / "config.yaml", document_text(document["config"], ".yaml"))
        if scenario is not None:
            self._write_json(self.scenario_file, scenario)

    def write_text(self, file: Path, text: str) -> None:
        """Write a file, whole or not at all."""
        self._write(file, text.encode())

    def document(self) -> dict[str, Any]:
        """Return `config` and `data` as the folder holds them, unread: this needs no torch."""
        document: dict[str, Any] = self._read_json(self.path / "run.json")
        return document

    def described(self) -> "tuple[TrainConfig, dict[str, Any]]":
        """Return the configuration that the folder was claimed with, and what describes the data."""
        known = self.document()
        from exmem.train.config import TrainConfig  # needs torch, which most questions about a run do not

        try:
            return TrainConfig.from_json(known["config"]), known["data"]
        except SchemaError as error:
            remedy = "use the version of exmem that the run is of, or install the package that has the part"
            raise SchemaError(f"{self.path}: {error}; {remedy}") from error

    def metrics(self) -> list[dict[str, Any]]:
        """Return what was measured, one entry per finished phase."""
        if not self.metrics_file.exists():
            return []
        entries: list[dict[str, Any]] = []
        for number, line in enumerate(self.metrics_file.read_text(encoding="utf-8").splitlines(), 1):
            try:
                entry = _with_nan(json.loads(line))
                if not isinstance(entry, dict) or entry.get("phase") != len(entries):
                    raise ValueError(f"it is none of phase {number}")
            except ValueError as error:
                raise DataError(
                    f"{self.metrics_file}, line {number}: expected the measures of a phase as JSON ({error}); remove "
                    "it and the lines after it, and run again"
                ) from error
            entries.append(entry)
        return entries

    def add_metrics(self, entry: Mapping[str, Any]) -> None:
        """Add the entry of a phase, JSON values (NaN becomes null): this finishes the phase."""
        lines = [*self.metrics(), dict(entry)]
        text = "".join(json.dumps(_without_nan(line), allow_nan=False) + "\n" for line in lines)
        self._write(self.metrics_file, text.encode())

    def hidden(self, phase: int) -> Path:
        """File of the hidden tokens of the exemplars that a phase added; they can be computed again."""
        return self._state(phase, "hidden.safetensors")

    def checkpoint(self, phase: int) -> "dict[str, Tensor] | None":
        """Return the tensors that were saved after training a phase; None when it was not trained."""
        file = self._state(phase, "tuned.safetensors")
        return _tensors_of(file) if file.exists() else None

    def save_checkpoint(self, phase: int, tensors: "Mapping[str, Tensor]", losses: Sequence[float] = ()) -> None:
        """Save the tensors that were trained in a phase, and its losses; the checkpoint before the last is dropped."""
        self.save_note(phase, "losses", {"losses": list(losses)})
        self.save_tensors(self._state(phase, "tuned.safetensors"), tensors)
        self._state(phase - 2, "tuned.safetensors").unlink(missing_ok=True)

    def losses(self, phase: int) -> list[float]:
        """Return the losses that were saved with the checkpoint of a phase."""
        return list((self.note(phase, "losses") or {}).get("losses", []))

    def head(self, phase: int) -> "dict[str, Tensor]":
        """Return what the head carried out of a phase; DataError if it is gone."""
        file = self._state(phase, "head.safetensors")
        if not file.exists():
            raise DataError(f"{file}: what the head learnt is gone; use a new run folder")
        return _tensors_of(file)

    def save_head(self, phase: int, tensors: "Mapping[str, Tensor]") -> None:
        """Save what the head carries out of a phase; that of the phase before the last is dropped."""
        self.save_tensors(self._state(phase, "head.safetensors"), tensors)
        self._state(phase - 2, "head.safetensors").unlink(missing_ok=True)

    def save_tensors(self, file: Path, tensors: "Mapping[str, Tensor]") -> None:
        """Save tensors to a file, whole or not at all."""
        from safetensors.torch import save  # `save_file` has errors of its own for a full disk

        self._write(file, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))

    def note(self, phase: int, name: str) -> dict[str, Any] | None:
        """Return a note of a phase, None if there is none."""
        file = self._state(phase, f"{name}.json")
        note: dict[str, Any] | None = self._read_json(file) if file.exists() else None
        return note

    def save_note(self, phase: int, name: str, values: Mapping[str, Any]) -> None:
        """Save a note of a phase, JSON values."""
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


def _tensors_of(file: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file}: expected tensors, got damaged ones ({error}); use a new run folder") from error


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{folder}: cannot be removed to begin anew: {error}; choose another run folder") from error


def _taken(lock: "filelock.BaseFileLock") -> "filelock.BaseFileLock":
    """Acquire a lock, or a lock file where the file system knows no locks."""
    import filelock

    try:
        lock.acquire()
    except (NotImplementedError, OSError) as error:
        if isinstance(error, filelock.Timeout | PermissionError) or not Path(lock.lock_file).parent.is_dir():
            raise
        soft = filelock.SoftFileLock(f"{lock.lock_file}ed", timeout=0)
        soft.acquire()
        warnings.warn(f"{soft.lock_file}: no locks here ({error}); remove it if a killed run leaves it", stacklevel=4)
        return soft
    return lock


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
