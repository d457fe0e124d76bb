"""Exemplars of each recipe, of the same examples of a data set, as a page shows them side by side."""

import base64
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from exmem import __version__
from exmem.backbones import Backbone
from exmem.errors import ExmemError
from exmem.memory import ExemplarMemory
from exmem.memory.export import is_image
from exmem.recipes import BoundRecipe, Recipe
from exmem.report.tradeoff.cells import Cell
from exmem.report.tradeoff.facts import digest
from exmem.report.tradeoff.files import read_json, write_json
from exmem.report.view.exemplars import Known, Source, exemplar_sheet
from exmem.report.view.images import draw_placed, find_grid, place_tokens, put_together
from exmem.report.view.sheet import Card, Panel, Passage, Piece, Sheet
from exmem.train.batches import images_of
from exmem.train.config import TrainConfig
from exmem.train.data import ImageText
from exmem.train.parts import load_run_backbone, load_run_data

__all__ = ["RecipeSheet", "bounded", "recipe_sheets"]

_SHOWN = 3  # examples, of different classes
_TRAINED = 256  # examples, at most, that codecs are trained on
_FORM = 2  # of the files
_ROOM = 2**40
_MOST_BYTES = 8_000_000  # of all images of a page


class RecipeSheet(NamedTuple):
    """What a recipe stores of some examples of a data set."""

    data: str
    recipe: str
    sheet: Sheet


def recipe_sheets(
    cells: Sequence[Cell], folder: Path, tell: Callable[[str], None] = lambda _: None
) -> tuple[list[RecipeSheet], list[str]]:
    """Make a sheet a data set and recipe of some cells, or find it in a folder; return also what could not be made.

    The examples are the first of some classes, the same for all recipes of a data set. As in a probe, the backbone is
    frozen, so that a scorer looks at an image as it does before anything is tuned.
    """
    first: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        first.setdefault((cell.data, cell.recipe), cell)
    sheets, notes, examples = [], [], _Examples(tell)
    for (data, recipe), cell in first.items():
        config = TrainConfig.from_json(cell.config)
        if config.recipe.is_empty:
            continue
        parts = {key: part for key, part in cell.config["recipe"].items() if key != "name"}
        options = {key: cell.config[key] for key in ("backbone", "data")}
        made_by = [__version__, _FORM, _SHOWN]
        file = folder / f"{digest([parts, options, cell.keys, dict(cell.own), made_by])}.json"
        try:
            known = read_json(file)
            sheet = _read(known) if known else examples.sheet(cell, config)
        except Exception as error:  # a part of one's own may raise anything, and the page is made all the same
            reason = str(error) if isinstance(error, ExmemError) else f"{type(error).__name__}: {error}"
            notes.append(f"No exemplars of {recipe} on {data}: {reason}")
            continue
        if not known:
            write_json(file, _written(sheet))
        sheets.append(RecipeSheet(data, recipe, sheet))
    return sheets, notes


def bounded(sheets: Sequence[RecipeSheet], most: int = _MOST_BYTES) -> tuple[list[RecipeSheet], list[str]]:
    """Return as many sheets as have images of so many bytes between them, and what is left out."""
    total, kept, left_out = 0, [], []
    for sheet in sheets:
        size = sum(len(_encoded(panel.image)) for panel in _images(sheet.sheet))
        if total + size <= most:
            total += size
            kept.append(sheet)
        else:
            left_out.append(f"{sheet.recipe} on {sheet.data}")
    notes = [f"Left out, for the page would be too large: exemplars of {', '.join(left_out)}."] if left_out else []
    return kept, notes


class _Examples:
    """Examples and backbones of data sets, loaded when they are needed first."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._loaded: dict[str, tuple[Backbone, ImageText, NDArray[np.int64]]] = {}

    def sheet(self, cell: Cell, config: TrainConfig) -> Sheet:
        """Store the examples by a recipe, and show what a memory gives back."""
        backbone, train, rows = self._of(cell, config)
        class_names, (images, texts, labels) = list(train.class_names), _rows_of(backbone, train, rows)
        recipe: Recipe = config.recipe.refined(extras=())  # which need a head that has learnt
        bound = BoundRecipe(recipe, backbone, seed=0, num_classes=len(class_names))
        exemplars = samples = bound.make(images, texts, labels)
        if bound.is_trained:
            spread = np.linspace(0, len(train) - 1, min(_TRAINED, len(train))).astype(np.int64)
            samples = bound.make(*_rows_of(backbone, train, spread))
        with tempfile.TemporaryDirectory() as place:
            with bound.create_memory(place, max_bytes=_ROOM, samples=samples, durable=False) as memory:
                slots = memory.add(exemplars).slots
                memory.commit()
            sources = {
                int(slot): Source(*pair) for slot, pair in zip(slots, zip(images, texts, strict=True), strict=True)
            }
            known = Known(class_names, backbone.tokenizer, backbone.max_text, sources, grid=backbone.grid)
            sheet = exemplar_sheet(place, list(sources), known=known)
            with ExemplarMemory.open(place) as memory:
                stored = [_stored(memory, slot, backbone.grid) for slot in sources]
        return Sheet("", {}, (), tuple(map(_plain, sheet.cards, stored)))

    def _of(self, cell: Cell, config: TrainConfig) -> tuple[Backbone, ImageText, NDArray[np.int64]]:
        key = digest([{key: cell.config[key] for key in ("backbone", "data", "tuner")}, cell.folder])
        if key not in self._loaded:
            self._loaded.clear()
            self._tell(f"making exemplars of {cell.data} to show")
            backbone, (train, _) = load_run_backbone(config), load_run_data(config, Path(cell.folder))
            classes = np.unique(train.labels)
            shown = classes[np.linspace(0, len(classes) - 1, min(_SHOWN, len(classes))).astype(np.int64)]
            rows = np.array([np.flatnonzero(train.labels == label)[0] for label in shown], np.int64)
            self._loaded[key] = backbone, train, rows
        return self._loaded[key]


def _rows_of(
    backbone: Backbone, train: ImageText, rows: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], list[str], NDArray[np.int64]]:
    """Return images, texts and labels of rows of the data, as recipes take them."""
    return images_of(backbone, train, rows), [train.texts[row] for row in rows.tolist()], train.labels[rows]


def _stored(memory: ExemplarMemory, slot: int, grid: tuple[int, int]) -> Panel:
    """Show the stored image of an exemplar, all its modalities in one; None where it has none."""
    exemplar, layers, counts = memory.read([slot]).exemplar(0), [], []
    for name, spec in memory.schema.modalities.items():
        if is_image(spec):
            fits = [one for one in (spec.grid, grid) if one is not None and one[0] * one[1] == spec.positions]
            tokens = exemplar.tokens[name]
            layers.append(place_tokens(tokens, spec, fits[0] if fits else find_grid(spec.positions)))
            counts.append((len(tokens), spec.positions))
    if not layers:
        return Panel("no image", None)
    positions = {most for _, most in counts}
    if positions == {1}:
        caption = "whole image"
    elif len(positions) == 1:
        caption = f"{sum(count for count, _ in counts)} of {positions.pop()} patches"
    else:
        caption = " + ".join(f"{count}" for count, _ in counts) + " patches"
    return Panel(caption, draw_placed(put_together(layers)))


def _plain(card: Card, stored: Panel) -> Card:
    """Leave out of a card what tells nothing here, its slot, label and priority; of its images, two are shown."""
    facts = {name: value for name, value in card.facts.items() if name not in {"label", "priority"}}
    return Card(card.title.rpartition(", slot ")[0], facts, (card.panels[0], stored), card.passages)


def _images(sheet: Sheet) -> Iterator[Panel]:
    return (panel for card in sheet.cards for panel in card.panels if panel.image is not None)


def _encoded(image: NDArray[np.uint8] | None) -> str:
    encoded = imagecodecs.webp_encode(np.ascontiguousarray(image), lossless=True)
    return base64.b64encode(encoded).decode("ascii")


def _written(sheet: Sheet) -> dict[str, Any]:
    return {
        "cards": [
            {
                "title": card.title,
                "facts": dict(card.facts),
                "panels": [[one.caption, None if one.image is None else _encoded(one.image)] for one in card.panels],
                "passages": [[one.caption, [[*piece] for piece in map(_pair, one.pieces)]] for one in card.passages],
            }
            for card in sheet.cards
        ]
    }


def _pair(piece: Piece) -> tuple[str, str]:
    return piece.text, piece.state


def _read(document: Mapping[str, Any]) -> Sheet:
    cards = [
        Card(
            card["title"],
            card["facts"],
            tuple(Panel(caption, None if image is None else _decoded(image)) for caption, image in card["panels"]),
            tuple(Passage(caption, tuple(Piece(*piece) for piece in ones)) for caption, ones in card["passages"]),
        )
        for card in document["cards"]
    ]
    return Sheet("", {}, (), tuple(cards))


def _decoded(text: str) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = imagecodecs.webp_decode(base64.b64decode(text))
    return image
