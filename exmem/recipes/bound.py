"""A recipe bound to a backbone: it makes exemplars; and what a memory alone says of restoring them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.backbones import Backbone, Hidden
from exmem.codecs import get_codec
from exmem.errors import InvalidExemplarError, SchemaError
from exmem.masking import KEEP_RULES, TEXT_RULES
from exmem.masking.scorers import SCORERS, Objective, Scorer
from exmem.masking.scorers.attention_pass import chosen_layers
from exmem.memory import ExemplarMemory
from exmem.recipes.frame import Frame
from exmem.recipes.plain import PlainImages
from exmem.recipes.recipe import SCORELESS, Recipe, try_keep
from exmem.recipes.scoring import Masked, Masking
from exmem.registry import Part
from exmem.store import Place
from exmem.tokens import Exemplar, ExtraSpec, Schema, TokenSet, TokenSpec
from exmem.tokens.checks import as_array, floats_of, label_of, mapping_of, shown
from exmem.tokens.tensors import TensorBatch

__all__ = ["BoundRecipe", "Restorer"]

_WRONG = InvalidExemplarError
_MODEL_FREE = frozenset({"centre", "random"})  # scorers that look at places and tokens alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restorer:
    """Turns stored exemplars into the tokens that a backbone sees, or a plain CNN; it needs no backbone.

    Parameters
    ----------
    recipe : Recipe
        How they were made.
    frame : Frame or None
        The patches that images become; None where no image is stored, or none is restored.
    stored : TokenSpec, optional
        The image tokens of a memory that records no recipe: they come out as they are.
    """

    recipe: Recipe
    frame: Frame | None
    stored: TokenSpec | None = None

    @classmethod
    def of(cls, memory: ExemplarMemory) -> "Restorer":
        """Read it from a memory.

        Parameters
        ----------
        memory : ExemplarMemory
            Any memory; one that records no recipe holds what is seen, so nothing is restored.

        Returns
        -------
        Restorer
            Its restorer.

        Raises
        ------
        SchemaError
            If what is recorded is no recipe of this version.
        """
        document, specs = memory.schema.recipe, memory.schema.modalities
        if document is None:
            return cls(recipe=Recipe(name="as stored", image=Part("patches")), frame=None, stored=specs.get("image"))
        try:
            if set(document) != {"recipe", "frame"}:
                raise SchemaError(f"expected a record of 'recipe' and 'frame', got {shown(dict(document))}")
            recipe = _restored_by(document["recipe"])
            frame = None if document["frame"] is None else Frame.from_json(document["frame"])
            _check_stored(recipe, frame, specs)
        except SchemaError as error:
            raise SchemaError(f"{memory.location} records a recipe that does not fit this version: {error}") from error
        return cls(recipe=recipe, frame=frame)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the image tokens that come out; None where there are none, or their places not known."""
        if self.frame is not None:
            return self.frame.grid
        if self.stored is None or self.stored.dtype != "uint8" or self.stored.shape[2:] != (3,):
            return None  # these are no image patches
        side = math.isqrt(self.stored.positions)
        return self.stored.grid or ((side, side) if side * side == self.stored.positions else None)

    @property
    def length(self) -> int | None:
        """Positions of the image tokens that come out; None where there are none."""
        if self.frame is not None:
            return self.frame.length
        return None if self.stored is None else self.stored.positions

    def __call__(self, batch: TensorBatch) -> TensorBatch:
        """Restore a batch.

        Parameters
        ----------
        batch : TensorBatch
            Stored exemplars.

        Returns
        -------
        TensorBatch
            Their images as patches of the frame; what was dropped stays away, a thumbnail stays beside them for the
            fill of that name.
        """
        if self.frame is None:
            return batch
        return dataclasses.replace(batch, tokens=self.recipe.form().restore(batch.tokens, self.frame))

    def to_json(self) -> dict[str, Any]:
        """Return what a memory records."""
        return {"recipe": self.recipe.to_json(), "frame": None if self.frame is None else self.frame.to_json()}


class BoundRecipe:
    """A recipe that makes exemplars with a backbone, or of plain images.

    Parameters
    ----------
    recipe : Recipe or str
        What is made, or its name.
    backbone : Backbone or PlainImages
        Says how tokens look, and scores them.
    objective : callable, optional
        What `grad_attention` explains.
    seed : int
        Seed of `random` scores, where the recipe names none.
    num_classes : int
        Classes of the stored logits.

    Raises
    ------
    SchemaError
        If the backbone sees nothing of what the recipe stores, cannot score, lacks a mask token, or an option does not
        fit it.
    """

    def __init__(
        self,
        recipe: "Recipe | str",
        backbone: Backbone | PlainImages,
        *,
        objective: Objective | None = None,
        seed: int = 0,
        num_classes: int = 0,
    ) -> None:
        if not isinstance(backbone, Backbone | PlainImages):
            raise SchemaError(f"expected a Backbone or PlainImages, got {shown(backbone)}")
        recipe = Recipe.of(recipe)
        self.recipe, self.backbone, self._form = recipe, backbone, recipe.form()
        specs = backbone.token_specs()
        if recipe.is_empty:
            raise SchemaError(f"recipe {recipe.name!r} stores nothing; choose one that stores an image or a text")
        if recipe.stores_image and "image" not in specs:
            raise SchemaError(f"recipe {recipe.name!r} stores images, and this learner sees none; use recipe 'text'")
        if not recipe.stores_image and "text" not in specs:
            raise SchemaError(f"recipe {recipe.name!r} stores texts alone, and this learner sees none; use another")
        if recipe.fill.name == "mask_token" and not backbone.has_mask_token:
            raise SchemaError(f"fill 'mask_token': {type(backbone).__name__} has none here; choose another fill")
        frame = Frame(grid=backbone.grid, patch=backbone.patch) if recipe.stores_image else None
        self.restore = Restorer(recipe=recipe, frame=frame)
        self._codec = {"id": recipe.codec.name, **recipe.codec.kwargs}
        self.schema = self._schema(specs, num_classes)
        self.masking = self._masking(objective, seed)

    def _schema(self, specs: Mapping[str, TokenSpec], num_classes: int) -> Schema:
        modalities: dict[str, TokenSpec] = {}
        if self.restore.frame is not None:
            modalities.update(self._form.specs(self.restore.frame, self._codec))
            for spec in modalities.values():  # an option of the codec out of its range is told here
                assert isinstance(spec.codec, Mapping), "a TokenSpec makes one of a name"
                get_codec(spec.codec, shape=spec.shape, dtype=spec.dtype)
        if self.recipe.text.name != "none" and "text" in specs:
            modalities["text"] = specs["text"]
        sizes = {"features": self.backbone.feature_dim, "logits": num_classes}
        if "logits" in self.recipe.extras and num_classes < 1:
            raise SchemaError("a recipe with logits needs to know how many: bind it with num_classes=")
        if "features" in self.recipe.extras and not sizes["features"]:
            raise SchemaError("plain images have no features; leave them out of the extras, or bind to a backbone")
        extras = {name: ExtraSpec(shape=(sizes[name],)) for name in self.recipe.extras}
        return Schema(modalities, extras, self.restore.to_json())

    def _masking(self, objective: Objective | None, seed: int) -> Masking:
        recipe, scores_image = self.recipe, "scorer" in self._form.uses
        scorer: Scorer | None = None
        if scores_image or (recipe.text.name not in SCORELESS and "text" in self.backbone.token_specs()):
            given = {"objective": objective, "seed": seed}
            options = {name: given[name] for name in SCORERS.options(recipe.scorer.name) if name in given}
            scorer = SCORERS.make(recipe.scorer.name, **{**options, **recipe.scorer.kwargs})
            if isinstance(self.backbone, PlainImages):
                if recipe.scorer.name not in _MODEL_FREE:
                    raise SchemaError(
                        f"scorer {recipe.scorer.name!r} needs a backbone; of plain images use {sorted(_MODEL_FREE)}"
                    )
            elif "layers" in recipe.scorer.kwargs:
                chosen_layers(recipe.scorer.kwargs["layers"], len(self.backbone.attention_taps()))
        keep_rule, codec = None, None
        if scores_image:
            keep_rule = KEEP_RULES.make(recipe.keep.name, **recipe.keep.kwargs)
            spec = self.backbone.token_specs()["image"]
            if "encoded_bytes" in KEEP_RULES.options(recipe.keep.name):
                codec = get_codec(self._codec, shape=spec.shape, dtype=spec.dtype)
            try_keep(recipe.keep, spec.positions)
        text_rule = None
        if recipe.text.name != "none" and "text" in self.backbone.token_specs():
            text_rule = TEXT_RULES.make(recipe.text.name, **recipe.text.kwargs)
        return Masking(backbone=self.backbone, scorer=scorer, keep_rule=keep_rule, text_rule=text_rule, codec=codec)

    def create_memory(self, place: Place, *, max_bytes: int | str, **options: Any) -> ExemplarMemory:
        """Make an empty memory of its exemplars, which records the recipe.

        Parameters
        ----------
        place : path or zarr store
            A folder that is missing or empty, or a Zarr store.
        max_bytes : int or str
            The budget.
        **options : object
            More options of `ExemplarMemory.create`.

        Returns
        -------
        ExemplarMemory
            The memory, open for writing.
        """
        return ExemplarMemory.create(place, schema=self.schema, max_bytes=max_bytes, **options)

    def make(
        self,
        images: NDArray[np.uint8],
        texts: Sequence[str],
        labels: ArrayLike,
        priorities: ArrayLike | None = None,
        *,
        extras: Mapping[str, ArrayLike] | None = None,
        hidden: Hidden | None = None,
        scores: NDArray[np.float32] | None = None,
    ) -> list[Exemplar]:
        """Make exemplars of images and texts.

        Parameters
        ----------
        images : array-like or Tensor, shape (B, H, W, 3), uint8
            Images of the size of the backbone.
        texts : sequence of str
            Their texts.
        labels : array-like or Tensor, shape (B,), integer
            Their classes.
        priorities : array-like or Tensor, shape (B,), optional
            Their ranks; all 0 when left out.
        extras : mapping of str to array-like, shape (B, ...), optional
            Those of the recipe.
        hidden : Hidden, optional
            What the trunk made of them, where it is known; scorers that look above it then need no pass of it.
        scores : ndarray, shape (B, L), float32, optional
            Their patches' scores, where `masking.is_fixed` and they are known.

        Returns
        -------
        list of Exemplar
            One each.

        Raises
        ------
        InvalidExemplarError
            If images are of another size or dtype, a label is no integer, the extras are not those of the recipe, or
            the lengths differ.
        """
        pixels = self._images(images)
        classes = np.array([label_of(label, "label", error=_WRONG) for label in _listed(labels, "labels")], np.int64)
        ranks = (
            np.zeros(len(classes))
            if priorities is None
            else floats_of(as_array(priorities), "priorities", error=_WRONG)
        )
        given = {name: as_array(values) for name, values in mapping_of(extras or {}, "extras", error=_WRONG).items()}
        if set(given) != set(self.recipe.extras):
            raise InvalidExemplarError(f"expected the extras {list(self.recipe.extras)}, got {sorted(map(str, given))}")
        words = _listed(texts, "texts")
        if not all(isinstance(text, str) for text in words):
            raise InvalidExemplarError(f"expected a text an image, empty where there is none, got {shown(texts)}")
        lengths = {"images": len(pixels), "texts": len(words), "labels": len(classes), "priorities": len(ranks)}
        lengths |= {name: len(values) if values.ndim else 0 for name, values in given.items()}
        known_scores = None if scores is None else as_array(scores).astype(np.float32)
        if known_scores is not None:
            lengths["scores"] = len(known_scores)
        if len(set(lengths.values())) > 1:
            raise InvalidExemplarError(f"expected as many of each, got {lengths}")
        if not len(pixels):
            return []
        masked = self.masking(pixels, words, classes, hidden=hidden, scores=known_scores)
        return [
            Exemplar(
                self._tokens(image, masked, row),
                label=int(classes[row]),
                priority=float(ranks[row]),
                extras={name: values[row] for name, values in given.items()},
            )
            for row, image in enumerate(pixels)
        ]

    def _images(self, images: Any) -> NDArray[np.uint8]:
        """Return images as an array of the size that the recipe was bound to; any size where none is stored."""
        pixels, frame = as_array(images), self.restore.frame
        if frame is None and pixels.ndim >= 1:
            return pixels
        height, width = frame.size if frame is not None else (0, 0)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (height, width, 3):
            raise InvalidExemplarError(
                f"expected images (B, {height}, {width}, 3) of uint8, got {pixels.shape} of {pixels.dtype}"
            )
        return pixels

    def _tokens(self, image: NDArray[np.uint8], masked: Masked, row: int) -> dict[str, TokenSet]:
        tokens: dict[str, TokenSet] = {}
        if self.restore.frame is not None:
            tokens = self._form.make(image, masked, row, frame=self.restore.frame, codec=self._codec)
        if "text" in masked.keep and "text" not in tokens:
            tokens["text"] = masked.words(row)
        return tokens


def _restored_by(document: Any) -> Recipe:
    """Read a recorded recipe; what scored and kept may be parts that are not here, for restoring needs none of them.

    It is a mapping and no name of a file, which a stranger's memory might have read.
    """
    fields = dict(mapping_of(document, "recipe"))
    for name, registry in (("scorer", SCORERS), ("keep", KEEP_RULES), ("text", TEXT_RULES)):
        if name in fields and Part.of(fields[name]).name not in registry:
            del fields[name]
    stored = Recipe.from_json({name: fields[name] for name in ("image", "text") if name in fields})
    for name in stored.unused:  # earlier versions recorded those too
        fields.pop(name, None)
    return Recipe.from_json(fields)


def _listed(values: Any, what: str) -> list[Any]:
    """Return a sequence or an array as a list; a text is none."""
    if isinstance(values, str | bytes) or not hasattr(values, "__len__") or not hasattr(values, "__getitem__"):
        raise InvalidExemplarError(f"{what}: expected one an image, got {shown(values)}")
    return [*values]


def _check_stored(recipe: Recipe, frame: Frame | None, specs: Mapping[str, TokenSpec]) -> None:
    """Refuse a record whose image form does not store such modalities: what is allocated follows from the schema."""
    form = recipe.form()
    if recipe.stores_image != (frame is not None):
        raise SchemaError(f"image {str(recipe.image)!r} with the frame {frame}; both or neither say what is stored")
    if frame is None:
        return
    for name, expected in form.specs(frame, {"id": recipe.codec.name, **recipe.codec.kwargs}).items():
        spec = specs.get(name)
        held = None if spec is None else (spec.positions, spec.shape, spec.dtype)
        if held != (expected.positions, expected.shape, expected.dtype):
            raise SchemaError(
                f"image {str(recipe.image)!r} stores {name!r} as {(expected.positions, expected.shape)}, got {held}"
            )
