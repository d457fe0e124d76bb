"""From stored exemplars to what a model takes, as the memory alone says it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from exmem.errors import SchemaError
from exmem.masking import KEEP_RULES, TEXT_RULES
from exmem.masking.scorers import SCORERS
from exmem.memory import ExemplarMemory
from exmem.recipes.frame import Frame
from exmem.recipes.recipe import Recipe
from exmem.registry import Part
from exmem.tokens import TokenSpec
from exmem.tokens.checks import mapping_of, shown
from exmem.tokens.tensors import TensorBatch

__all__ = ["Restorer"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restorer:
    """Turns stored exemplars into what a backbone takes, or a plain CNN; it needs no backbone.

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
            if not {"recipe", "frame"} <= set(document) <= {"recipe", "frame", "weights"}:
                raise SchemaError(f"expected a record of 'recipe', 'frame' and 'weights', got {shown(dict(document))}")
            recipe = _restored_by(document["recipe"])
            frame = None if document["frame"] is None else Frame.from_json(document["frame"])
            _check_stored(recipe, frame, specs)
            if not isinstance(document.get("weights", ""), str):
                raise SchemaError(f"expected the weights as text, got {shown(document['weights'])}")
        except SchemaError as error:
            raise SchemaError(f"{memory.location} records a recipe that does not fit this version: {error}") from error
        return cls(recipe=recipe, frame=frame)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the patches that come out; None where there are none, or their places are not known."""
        if self.frame is not None:
            return self.frame.grid if self.recipe.level == "pixels" else None
        if self.stored is None or self.stored.dtype != "uint8" or self.stored.shape[2:] != (3,):
            return None  # these are no image patches
        side = math.isqrt(self.stored.positions)
        return self.stored.grid or ((side, side) if side * side == self.stored.positions else None)

    @property
    def length(self) -> int | None:
        """Positions of the patches that come out; None where there are none."""
        if self.frame is not None:
            return self.frame.length if self.recipe.level == "pixels" else None
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
            fill of that name. Hidden tokens as `prefix` and `image` of a layer; features as they are.
        """
        if self.frame is None:
            return batch
        tokens = self.recipe.form().restore(batch.tokens, self.frame)
        return dataclasses.replace(batch, tokens=tokens, layer=self.frame.layer)

    def to_json(self) -> dict[str, Any]:
        """Return what a memory records."""
        return {"recipe": self.recipe.to_json(), "frame": None if self.frame is None else self.frame.to_json()}


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


def _check_stored(recipe: Recipe, frame: Frame | None, specs: Mapping[str, TokenSpec]) -> None:
    """Refuse a record whose image form does not store such modalities: what is allocated follows from the schema."""
    form = recipe.form()
    if (recipe.level == "none") != (frame is None):
        raise SchemaError(f"image {str(recipe.image)!r} with the frame {frame}; both or neither say what is stored")
    if frame is None:
        return
    layer = recipe.image.kwargs.get("layer", frame.layer)
    if (recipe.level == "hidden") != (frame.layer is not None) or layer not in {None, frame.layer}:
        raise SchemaError(f"image {str(recipe.image)!r} with tokens of the layer {frame.layer}")
    for name, expected in form.specs(frame, {"id": recipe.codec.name, **recipe.codec.kwargs}).items():
        spec = specs.get(name)
        held = None if spec is None else (spec.positions, spec.shape, spec.dtype)
        if held != (expected.positions, expected.shape, expected.dtype):
            raise SchemaError(
                f"image {str(recipe.image)!r} stores {name!r} as {(expected.positions, expected.shape)}, got {held}"
            )
