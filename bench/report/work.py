"""What a worker process does; the backbone and the data are loaded once in each."""

from pathlib import Path
from typing import Any

import torch

from bench.report import probe, trained
from bench.report.gallery import draw_gallery
from bench.report.rows import Row
from exmem.backbones import Joint
from exmem.backbones.packaged import dinov2_small, minilm
from exmem.cli.demo.stickers import StickersConfig, build_stickers
from exmem.train.data import load_imagefolder

PROBE_DATA = StickersConfig(num_classes=22, max_train=70, max_test=25)  # that of the demo
TRAINED_DATA = StickersConfig(num_classes=10, max_train=26, max_test=20)

_state: dict[str, Any] = {}


def start(out: Path) -> None:
    torch.set_num_threads(1)
    _state["out"] = out
    _state["weights"] = dinov2_small(), minilm()


def draw(path: Path) -> None:
    backbone = Joint.from_pretrained(*_state["weights"], image_size=112, trainable_blocks=1)
    draw_gallery(backbone, load_imagefolder(build_stickers(PROBE_DATA))[0], path)


def probe_rows(rows: list[Row]) -> list[dict[str, Any]]:
    if "probe" not in _state:
        backbone = Joint.from_pretrained(*_state["weights"], image_size=112, trainable_blocks=1)
        _state["probe"] = probe.Probe(backbone, *load_imagefolder(build_stickers(PROBE_DATA)))
    return [entry for row in rows for entry in _state["probe"].run(row)]


def trained_cells(cells: list[tuple[Row, int, int, str]]) -> list[dict[str, Any]]:
    if "data" not in _state:
        _state["data"] = load_imagefolder(build_stickers(TRAINED_DATA))
    options = {"data": _state["data"], "folder": _state["out"]}
    return [trained.run(*cell, **options) for cell in cells]
