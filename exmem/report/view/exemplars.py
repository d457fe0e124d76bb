"""A sheet of stored exemplars: what is stored of each, beside what it was made of where that is known."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.errors import CorruptExemplarError, SchemaError, UnknownSlotError
from exmem.memory import ExemplarMemory
from exmem.memory.export import is_image
from exmem.report.view.images import Placed, draw_heat, draw_placed, find_grid, place_tokens, put_together
from exmem.report.view.sheet import Card, Panel, Passage, Piece, Sheet
from exmem.report.view.words import mark_ids, mark_text, mark_tokens
from exmem.store import Place, format_bytes
from exmem.tokens import Exemplar, Schema, TokenSet, TokenSpec

__all__ = ["Known", "Source", "choose_slots", "exemplar_sheet", "slots_of_classes"]

_LISTED = 12  # names in a message


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What an exemplar was made of.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        The image as the backbone saw it.
    text : str
        The whole text.
    scores : ndarray, shape (L,), float32, or None
        Score of each patch.
    grid : tuple of int
        Rows and columns of the scored patches.
    """

    image: NDArray[np.uint8]
    text: str
    scores: NDArray[np.float32] | None = None
    grid: tuple[int, int] = (1, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """What is known of a memory beside what it holds.

    Parameters
    ----------
    class_names : sequence of str
        Name of each class; for others the names that the memory was annotated with are taken.
    tokenizer : object, optional
        Tokenizer of the modality `text`.
    max_text : int
        Most text tokens.
    sources : mapping of int to Source
        Slot -> what the exemplar was made of; empty when none is known.
    facts : mapping of str to str
        What is told of the whole: name -> value.
    notes : sequence of str
        What is not known and why.
    grid : tuple of int, optional
        Rows and columns of the backbone's patches.
    """

    class_names: Sequence[str] = ()
    tokenizer: Any = None
    max_text: int = 0
    sources: Mapping[int, Source] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()
    grid: tuple[int, int] | None = None


def choose_slots(memory: ExemplarMemory, *, most: int, among: Collection[int] | None = None) -> list[int]:
    """Choose exemplars to show: the first of each class, then the second of each, and so on.

    Parameters
    ----------
    memory : ExemplarMemory
        Where they are stored.
    most : int
        Exemplars, at most; classes are chosen evenly where there are more.
    among : collection of int, optional
        Slots to choose from; all when left out.

    Returns
    -------
    list of int
        Slots, by class and slot.

    Raises
    ------
    SchemaError
        If `most` is below 1.
    """
    if most < 1:
        raise SchemaError(f"most must be 1 or more, got {most}")
    allowed = set(memory.slots.tolist()) if among is None else set(among)
    of_class: dict[int, list[int]] = {}
    for slot, label in zip(memory.slots.tolist(), memory.labels.tolist(), strict=True):
        if slot in allowed:
            of_class.setdefault(label, []).append(slot)
    labels = sorted(of_class)
    if len(labels) > most:
        labels = [labels[at] for at in np.linspace(0, len(labels) - 1, most).astype(np.int64).tolist()]
    turns = [(turn, label, slot) for label in labels for turn, slot in enumerate(of_class[label])]
    return [slot for _, slot in sorted((label, slot) for _, label, slot in sorted(turns)[:most])]


def slots_of_classes(memory: ExemplarMemory, wanted: Sequence[str], class_names: Sequence[str] = ()) -> list[int]:
    """Return the slots of classes by a name of theirs, given here or annotated, or else by their number.

    Parameters
    ----------
    memory : ExemplarMemory
        Any memory.
    wanted : sequence of str
        Names or numbers of classes.
    class_names : sequence of str
        Name of each class from 0, such as a run knows them.

    Returns
    -------
    list of int
        Their slots.

    Raises
    ------
    SchemaError
        If no exemplar is of such a class; the message lists the classes that are there.
    """
    shown, annotated = _names(memory, class_names), memory.class_names
    labels = set[int]()
    for name in wanted:
        named = [label for label in shown if name in {shown[label], annotated.get(label)}]
        named = named or [label for label in shown if name == str(label)]
        if not named:
            raise SchemaError(f"no exemplar is of the class {name!r}; there are {_listed([*shown.values()])}")
        labels.update(named)
    return [slot for slot, label in zip(memory.slots.tolist(), memory.labels.tolist(), strict=True) if label in labels]


def exemplar_sheet(
    place: Place,
    slots: Sequence[int],
    *,
    known: Known | None = None,
    grid: tuple[int, int] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Sheet:
    """Show exemplars of any memory.

    Parameters
    ----------
    place : path or zarr store
        Where the memory lies.
    slots : sequence of int
        Exemplars, in the order of the sheet.
    known : Known, optional
        What is known beside it.
    grid : tuple of int, optional
        Rows and columns of patches, for modalities with that many positions; as square as can be when left out.
    advance : callable, optional
        Told after each exemplar how many were done.

    Returns
    -------
    Sheet
        One card an exemplar; a damaged one says so.

    Raises
    ------
    UnknownSlotError
        If a slot holds no exemplar; the message lists some that do.
    SchemaError
        If no modality has as many positions as `grid`.
    """
    known = known or Known()
    with ExemplarMemory.open(place) as memory:
        held = memory.slots.tolist()
        unknown = sorted(set(slots) - set(held))
        if unknown:
            raise UnknownSlotError(
                f"no exemplar is in the slots {_listed(unknown)}; {len(held)} slots hold one: {_listed(held)}"
            )
        names, grids = _names(memory, known.class_names), _grids(memory.schema, grid, known.grid)
        parts = memory.sizes_by_part(slots)
        cards = []
        for at, slot in enumerate(slots):
            sizes = {name: int(values[at]) for name, values in parts.items()}
            try:
                cards.append(_card(memory, slot, sizes, known=known, names=names, grids=grids))
            except CorruptExemplarError as error:
                damage = {"damaged": str(error)}
                cards.append(Card(f"slot {slot}", damage, measures={"slot": slot, "part_bytes": sizes} | damage))
            if advance is not None:
                advance(1)
        budget = f"{memory.used_bytes:,} of {memory.max_bytes:,} ({format_bytes(memory.max_bytes)})"
        facts = {
            "memory": memory.location,
            "exemplars": f"{len(slots)} of {len(held)} are shown, of {len(names)} classes",
            "bytes": budget,
            **known.facts,
        }
        notes = [*known.notes, *_notes(memory.schema, grids, known, all_shown=len(slots) == len(held))]
        return Sheet("Stored exemplars", facts, tuple(notes), tuple(cards))


def _grids(schema: Schema, asked: tuple[int, int] | None, known: tuple[int, int] | None) -> dict[str, tuple[int, int]]:
    # The grid of each modality that can be drawn.
    images = {name: spec.positions for name, spec in schema.modalities.items() if is_image(spec)}
    if asked is not None and asked[0] * asked[1] not in images.values():
        raise SchemaError(f"no modality of patches has {asked[0]} x {asked[1]} positions; there are {images}")
    grids = {}
    for name, positions in images.items():
        given = [grid for grid in (asked, schema.modalities[name].grid, known) if grid is not None]
        grids[name] = next((grid for grid in given if grid[0] * grid[1] == positions), find_grid(positions))
    return grids


def _notes(schema: Schema, grids: Mapping[str, tuple[int, int]], known: Known, *, all_shown: bool) -> list[str]:
    notes = []
    if grids:
        notes.append("Hatched in grey: nothing is stored there. Black is what was stored as black.")
    notes += [
        f"{name}: {rows * columns} positions are no square; drawn as {rows} x {columns}, --grid says otherwise."
        for name, (rows, columns) in grids.items()
        if rows != columns and schema.modalities[name].grid is None
    ]
    if any(source.scores is not None for source in known.sources.values()):
        notes.append(
            "Scores: dark is the lowest of the image, light the highest 2%; the line runs around what image holds."
        )
    if known.sources or (known.tokenizer is not None and "text" in schema.modalities):
        notes.append("Words: green is stored, struck out is lost.")
    notes.append("Bytes: payloads, checksums, index entries and rows; rows before they are compressed together.")
    if not all_shown:
        notes.append("Other exemplars: --slots, --class or --most.")
    return notes


def _card(
    memory: ExemplarMemory,
    slot: int,
    sizes: Mapping[str, int],
    *,
    known: Known,
    names: Mapping[int, str],
    grids: Mapping[str, tuple[int, int]],
) -> Card:
    exemplar = memory.read([slot]).exemplar(0)
    source, modalities = known.sources.get(slot), memory.schema.modalities
    placed = {name: place_tokens(exemplar.tokens[name], modalities[name], grid) for name, grid in grids.items()}
    panels = [Panel("original", source.image if source else None)] if known.sources else []
    layers = _layers(placed)
    if layers:
        panels.append(Panel(" over ".join(layers), draw_placed(put_together([placed[name] for name in layers]))))
    for name, image in placed.items():
        panels.append(Panel(f"{name}: {_count(exemplar.tokens[name], modalities[name])}", draw_placed(image)))
    if any(other.scores is not None for other in known.sources.values()):
        panels.append(
            Panel("scores", _heat(exemplar, source, modalities["image"].positions if "image" in grids else 0))
        )
    passages, facts = [], {"label": str(exemplar.label), "priority": f"{exemplar.priority + 0.0:g}"}
    facts["bytes"] = f"{sum(sizes.values()):,} = " + " + ".join(f"{name} {size:,}" for name, size in sizes.items())
    for name, tokens in exemplar.tokens.items():
        if name in grids:
            continue
        if tuple(modalities[name].shape) == () and tokens.values.dtype.kind in "iu":
            passages.append(_passage(name, tokens, modalities[name], source, known))
        else:
            facts[f"tokens of {name}"] = f"{_count(tokens, modalities[name])}, {_numbers(tokens.values)}"
    if source is not None and "text" not in modalities:
        passages.append(Passage("text: not stored", (Piece(source.text, "lost"),)))
    facts |= {f"extra {name}": _numbers(np.asarray(value)) for name, value in exemplar.extras.items()}
    measures = {
        "slot": slot,
        "label": exemplar.label,
        "class": names[exemplar.label],
        "priority": exemplar.priority,
        "stored_bytes": sum(sizes.values()),
        "part_bytes": dict(sizes),
        "tokens": {name: len(tokens) for name, tokens in exemplar.tokens.items()},
        "damaged": None,
    }
    return Card(f"{names[exemplar.label]}, slot {slot}", facts, tuple(panels), tuple(passages), measures)


def _layers(placed: Mapping[str, Placed]) -> list[str]:
    """Return modalities that show one image at several resolutions, finest first; empty when there are none."""
    shapes = {name: image.kept.shape for name, image in placed.items()}
    ratios = {height / width for height, width in shapes.values()}
    if len(placed) < 2 or len(ratios) > 1 or len(set(shapes.values())) < len(placed):
        return []
    return sorted(placed, key=lambda name: -placed[name].kept.size)


def _heat(exemplar: Exemplar, source: Source | None, positions: int) -> NDArray[np.uint8] | None:
    if source is None or source.scores is None:
        return None
    keep = None
    if positions == len(source.scores):
        keep = np.zeros(positions, np.bool_)
        keep[exemplar.tokens["image"].positions] = True
    return draw_heat(source.scores, source.grid, source.image, keep=keep)


def _passage(name: str, tokens: TokenSet, spec: TokenSpec, source: Source | None, known: Known) -> Passage:
    caption = f"{name}: {len(tokens)} tokens"
    if name != "text" or known.tokenizer is None:
        return Passage(f"{name}: {_count(tokens, spec)}, as numbers", mark_ids(tokens))
    if source is None:
        return Passage(caption, mark_tokens(tokens, known.tokenizer))
    return Passage(caption, mark_text(source.text, tokens, known.tokenizer, known.max_text))


def _count(tokens: TokenSet, spec: TokenSpec) -> str:
    return f"{len(tokens)} of {spec.positions}"


def _names(memory: ExemplarMemory, class_names: Sequence[str]) -> dict[int, str]:
    """Return the name of each class that is held, by label: as given here, else as annotated, else a number."""
    names = memory.class_names | dict(enumerate(class_names))
    return {label: names.get(label, f"class {label}") for label in sorted(set(memory.labels.tolist()))}


def _numbers(values: NDArray[Any]) -> str:
    if values.ndim == 0:
        return f"{values.item():g} ({values.dtype})" if values.dtype.kind == "f" else f"{values} ({values.dtype})"
    about = f"{' x '.join(map(str, values.shape))} {values.dtype}"
    if values.size == 0:
        return about
    wide = values.astype(np.float64)
    with np.errstate(invalid="ignore"):  # the mean of both infinities is NaN, and shown as such
        return f"{about}, min {wide.min():.4g}, mean {wide.mean():.4g}, max {wide.max():.4g}"


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values[:_LISTED])) + (", ..." if len(values) > _LISTED else "")
