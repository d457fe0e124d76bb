"""PyCIL's and PILOT's exemplars, and ours: a learner that holds them, in the data set in which both peers replay them.

Neither peer saves its exemplars: what is measured for it is `np.savez` of its two arrays, the fastest
that was tried (`torch.save` pickles them, which is slower and a third larger). Ours are saved as they are
stored; measured is a copy of the folder, and opening it and decoding all of them.
"""

import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.buffers.sides import Samples, Side
from exmem.integrations.pilot import byte_memory
from exmem.integrations.pilot.exemplars import LearnerExemplars
from tests.integrations.peers.environment import peer_source, prepare

__all__ = ["sides"]

_generator = np.random.default_rng(0)


def _peer() -> tuple[Any, Any]:
    """PyCIL's learner and data set, from its source."""
    source = peer_source("PyCIL")
    if source is None:
        raise SystemExit("give EXMEM_PEERS, a folder with a clone of https://github.com/G-U-N/PyCIL as PyCIL")
    prepare()
    torch.set_num_threads(1)  # as in the worker processes in which a data set's rows are read
    if str(source) not in sys.path:
        sys.path.insert(0, str(source))
    return importlib.import_module("models.base").BaseLearner, importlib.import_module(
        "utils.data_manager"
    ).DummyDataset


class _Held:
    """A learner, and the data set in which a phase replays what it holds."""

    def __init__(self, learner: Any) -> None:
        self.learner = learner
        data, targets = learner._get_memory()
        self.dataset = _peer()[1](data, targets, _to_tensor, use_path=False)


def _to_tensor(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float().div_(255)


def _learner(kind: type, samples: Samples, recipe: str | None) -> Any:
    args = {
        "memory_size": len(samples.labels),
        "device": ["cpu"],
        "exmem": {} if recipe is None else {"recipe": recipe},
    }
    learner = kind(args)
    learner._known_classes = 10
    order = torch.argsort(samples.labels, stable=True)
    learner._data_memory = samples.images[order].permute(0, 2, 3, 1).contiguous().numpy()
    learner._targets_memory = samples.labels[order].numpy()
    return learner


def _fill(recipe: str | None) -> Callable[[Samples], _Held]:
    base = _peer()[0]
    return lambda samples: _Held(_learner(base if recipe is None else byte_memory(base), samples, recipe))


def _draw(held: _Held, count: int) -> torch.Tensor:
    rows = _generator.integers(0, len(held.dataset), count)
    return torch.stack([held.dataset[row][1] for row in rows.tolist()])


def _save_theirs(held: _Held, folder: Path) -> None:
    np.savez(folder / "exemplars.npz", data=held.learner._data_memory, targets=held.learner._targets_memory)


def _load_theirs(folder: Path) -> Any:
    with np.load(folder / "exemplars.npz") as file:
        return file["data"], file["targets"]


def _save_ours(held: _Held, folder: Path) -> None:
    field = held.learner.exemplars.field
    field.commit()
    shutil.copytree(field.memory.place, folder / "memory", ignore=shutil.ignore_patterns("lock"))


def _load_ours(recipe: str) -> Callable[[Path], Any]:
    def load(folder: Path) -> Any:
        exemplars = LearnerExemplars(10**6, is_fixed=False, max_bytes="1GB", recipe=recipe, place=folder / "memory")
        data = exemplars.data
        exemplars.field.close()
        return data

    return load


def sides() -> list[Side]:
    theirs = Side(
        "PyCIL, PILOT",
        fill=_fill(None),
        draw=_draw,
        save=_save_theirs,
        load=_load_theirs,
        kept=lambda held: held.learner._data_memory.nbytes + held.learner._targets_memory.nbytes,
    )
    ours = [
        Side(
            f"exmem, {recipe}",
            fill=_fill(recipe),
            draw=_draw,
            save=_save_ours,
            load=_load_ours(recipe),
            kept=lambda held: held.learner.exemplars.field.memory.used_bytes,
        )
        for recipe in ("raw", "jpeg")
    ]
    return [theirs, *ours]
