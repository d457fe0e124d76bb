"""How a buffer is measured: two of them in one process, in turn, with the same exemplars."""

import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.timing import anonymous_bytes, in_turn, interleaved
from tests.exemplars import patches

__all__ = ["BATCH", "Samples", "Side", "grown", "measured", "ram", "samples", "table"]

BATCH, CLASSES = 32, 10


@dataclasses.dataclass(frozen=True)
class Samples:
    """Images (N, 3, H, W) of uint8, crops of photographs; labels (N,) and logits (N, 10)."""

    images: torch.Tensor
    labels: torch.Tensor
    logits: torch.Tensor


def samples(count: int, size: int) -> Samples:
    """So many crops."""
    crops = [patches(seed, grid=1, patch=size)[0] for seed in range(min(count, 64))]
    images = torch.from_numpy(np.stack([crops[number % len(crops)] for number in range(count)])).permute(0, 3, 1, 2)
    generator = torch.Generator().manual_seed(0)
    return Samples(
        images.contiguous(),
        torch.arange(count) % CLASSES,
        torch.randn(count, CLASSES, generator=generator),
    )


@dataclasses.dataclass(frozen=True)
class Side:
    """One buffer of a peer or of ours.

    `fill` makes one that holds all samples, `draw` returns a batch as a method gets it, `save` and `load` are those
    that its users have, `kept` returns the bytes in which it holds exemplars while it works (RAM, or disk).
    """

    name: str
    fill: Callable[[Samples], Any]
    draw: Callable[[Any, int], torch.Tensor]
    save: Callable[[Any, Path], None]
    load: Callable[[Path], Any]
    kept: Callable[[Any], int]


def measured(sides: list[Side], *, count: int, size: int, rounds: int = 200) -> list[dict[str, Any]]:
    """Bytes held, bytes saved, seconds to draw a batch, to save and to load, of each side; times in turn."""
    given = samples(count, size)
    buffers = [side.fill(given) for side in sides]
    for side, buffer in zip(sides, buffers, strict=True):
        assert side.draw(buffer, BATCH).shape[0] == BATCH
    both = list(zip(sides, buffers, strict=True))
    draws = [lambda _, side=side, buffer=buffer: side.draw(buffer, BATCH) for side, buffer in both]
    drawing = in_turn(draws, range(rounds))
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / str(number) for number in range(len(sides))]
        number = iter(range(10**6))

        def saved(place: int) -> None:
            target = places[place] / str(next(number))
            target.mkdir(parents=True)
            sides[place].save(buffers[place], target)

        saving = interleaved(*[lambda place=place: saved(place) for place in range(len(sides))], rounds=5)
        last = [max(place.iterdir(), key=lambda path: int(path.name)) for place in places]
        loading = interleaved(
            *[lambda side=side, path=path: side.load(path) for side, path in zip(sides, last, strict=True)], rounds=5
        )
        sizes = [sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) for folder in last]
    return [
        {
            "buffer": side.name,
            "count": count,
            "size": size,
            "held_bytes": side.kept(buffer),
            "saved_bytes": saved_bytes,
            "draw_us": 1e6 * draw,
            "save_ms": 1e3 * save,
            "load_ms": 1e3 * load,
        }
        for side, buffer, saved_bytes, draw, save, load in zip(
            sides, buffers, sizes, drawing, saving, loading, strict=True
        )
    ]


def ram(module: str, name: str, *, count: int, size: int) -> int:
    """Bytes of RAM, but files, by which a process of its own grows that fills a side and draws 200 batches."""
    script = (
        "import sys; from bench.buffers.sides import grown; import importlib; "
        f"print(grown(importlib.import_module({module!r}).sides(), {name!r}, {count}, {size}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def grown(sides: list[Side], name: str, count: int, size: int) -> int:
    """Fill and draw here; see `ram`. A first small one loads what has to be loaded."""
    side = next(side for side in sides if side.name == name)
    small = side.fill(samples(BATCH, size))
    side.draw(small, 1)
    given = samples(count, size)
    before = anonymous_bytes()
    buffer = side.fill(given)
    for _ in range(200):
        side.draw(buffer, BATCH)
    return anonymous_bytes() - before


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a table in Markdown."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    for row in rows:
        cells = [f"{row[name]:,.0f}" if isinstance(row[name], float | int) else str(row[name]) for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
