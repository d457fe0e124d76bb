"""What has to be known of data and backbones before cells can be told apart; found once, and kept in the folder."""

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from exmem.backbones import Backbone
from exmem.recipes import BoundRecipe, Recipe
from exmem.report.tradeoff.budgets import Sizes
from exmem.report.tradeoff.files import read_json, write_json
from exmem.train.batches import images_of
from exmem.train.config import TrainConfig
from exmem.train.data import ImageText
from exmem.train.data.layouts.places import is_hub, whole_path
from exmem.train.parts import columns_of, load_run_backbone, load_run_data, make_learner
from exmem.train.reading import plain

__all__ = ["DataFacts", "Facts", "digest"]

_RAW = 64  # examples of which raw exemplars are made
_ROOM = 2**40


def digest(document: Any) -> str:
    """Name plain values in twelve letters, whatever the order of their keys."""
    text = json.dumps(document, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """Keys of the content of the two splits, and how many classes they have."""

    train: str
    test: str
    classes: int


class Facts:
    """What is known of data and backbones, in memory and in a folder that all processes share."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder, self._tell = folder, tell
        self._data: dict[str, DataFacts] = {}
        self._sizes: dict[str, Sizes] = {}
        self._loaded: dict[str, tuple[ImageText, ImageText]] = {}
        self._weights: dict[tuple[str | None, ...], str] = {}

    def data(self, config: TrainConfig, folder: Path) -> DataFacts:
        """Return what is known of a folder of data; its files are read again where one of them has changed."""
        layout, skips = config.data.layout, config.data.skip_bad
        name = digest([str(whole_path(folder)), dataclasses.asdict(columns_of(config)), str(layout), skips])
        if name not in self._data:
            file, stamp = self._folder / f"data-{name}.json", _stamp(folder)
            known = read_json(file)
            if not known or stamp is None or known["stamp"] != stamp:
                self._tell(f"reading {folder}")
                train, test = self._loaded.setdefault(name, load_run_data(config, folder))
                found = DataFacts(train.key(), test.key(), len(train.class_names))
                known = {"stamp": stamp, "facts": dataclasses.asdict(found)}
                write_json(file, known)
            self._data[name] = DataFacts(**known["facts"])
        return self._data[name]

    def weights(self, config: TrainConfig) -> str:
        """Name the content of those weights of a backbone that lie in folders; empty where none do."""
        names = config.backbone.names
        if names not in self._weights:
            folders = [Path(name) for name in names if name is not None and Path(name).is_dir()]
            files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
            contents = [(file.name, _content(file)) for file in files]
            self._weights[names] = digest(contents) if contents else ""
        return self._weights[names]

    def sizes(self, config: TrainConfig, folder: Path) -> Sizes:
        """Return what budgets are counted in, for the data, the backbone and what the method tunes of it."""
        facts, whole = self.data(config, folder), config.to_json()
        parts = {"backbone": whole["backbone"], "modalities": config.data.modalities, "blocks": config.tuner.blocks}
        tuned = config.tuned_phases != "none"
        name = digest([dataclasses.asdict(facts), parts, plain(config.tuner.adapter), tuned, self.weights(config)])
        if name not in self._sizes:
            file = self._folder / f"sizes-{name}.json"
            known = read_json(file)
            if not known:
                self._tell(f"measuring raw exemplars of {folder}")
                known = dataclasses.asdict(_measured(config, load_run_data(config, folder)[0]))
                write_json(file, known)
            self._sizes[name] = Sizes(**known)
        return self._sizes[name]


def _content(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").hexdigest()


def _stamp(place: Path) -> list[int] | None:
    """Return number, bytes and latest change of the files below a folder, or beside a table; None of a hub's."""
    if is_hub(place):
        return None
    folder = place if place.is_dir() else place.parent
    found = [Path(place, name).stat() for place, _, names in os.walk(folder, followlinks=True) for name in names]
    return [len(found), sum(one.st_size for one in found), max((one.st_mtime_ns for one in found), default=0)]


def _measured(config: TrainConfig, train: ImageText) -> Sizes:
    backbone, classes = load_run_backbone(config), len(train.class_names)
    whole = _bytes_of(backbone)
    raw = _raw_bytes(backbone, train)
    tuned = 0
    if config.tuned_phases != "none":
        learner = make_learner(config, backbone)
        learner.grow(range(classes))
        tuned = sum(tensor.numel() * tensor.element_size() for tensor in learner.tuned().values())
    return Sizes(raw, classes, {"tuned": tuned, "whole": whole + tuned})


def _raw_bytes(backbone: Backbone, train: ImageText) -> float:
    """Return the mean size of raw exemplars of the first examples in a memory."""
    bound = BoundRecipe(Recipe.of("raw" if "image" in backbone.token_specs() else "text"), backbone)
    rows = np.arange(min(_RAW, len(train)))
    images, texts = images_of(backbone, train, rows), list(train.texts[: len(rows)])
    with tempfile.TemporaryDirectory() as place, bound.create_memory(place, max_bytes=_ROOM, durable=False) as memory:
        return float(memory.encode(bound.make(images, texts, train.labels[rows])).sizes.mean())


def _bytes_of(backbone: Backbone) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in backbone.state_dict().values())
