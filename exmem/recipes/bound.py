"""A recipe bound to a backbone: it makes exemplars, and the memory that holds them."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exmem.backbones import Backbone, Hidden
from exmem.backbones.modes import evaluating
from exmem.codecs import get_codec
from exmem.errors import CodecError, DataWarning, InvalidExemplarError, SchemaError
from exmem.masking import KEEP_RULES, TEXT_RULES
from exmem.masking.scorers import SCORERS, Objective, Scorer
from exmem.masking.scorers.attention_pass import chosen_layers
from exmem.memory import ExemplarMemory
from exmem.recipes.levels import at_level, frame_of, pruned, weights_key
from exmem.recipes.plain import PlainImages
from exmem.recipes.recipe import SCORELESS, Recipe, try_keep
from exmem.recipes.restorer import Restorer
from exmem.recipes.scoring import Masked, Masking
from exmem.recipes.training import check_trained, is_trained, train_codec, try_training
from exmem.store import Place
from exmem.tokens import Exemplar, ExtraSpec, Schema, TokenSet, TokenSpec
from exmem.tokens.checks import as_array, floats_of, label_of, listed, mapping_of, shown
from exmem.tokens.sets import exemplars_in

__all__ = ["BoundRecipe"]

_WRONG = InvalidExemplarError
_INTO_MODEL = "layers"  # the option of every scorer that looks into a backbone; others look at places and tokens alone


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
        self.recipe: Recipe = recipe
        self.backbone: Backbone | PlainImages = backbone
        self._form = recipe.form()
        specs = backbone.token_specs()
        if recipe.is_empty:
            raise SchemaError(f"recipe {recipe.name!r} stores nothing; choose one that stores an image or a text")
        if recipe.level in {"pixels", "hidden"} and "image" not in specs:
            raise SchemaError(f"recipe {recipe.name!r} stores images, and this learner sees none; use recipe 'text'")
        if recipe.level == "none" and "text" not in specs:
            raise SchemaError(f"recipe {recipe.name!r} stores texts alone, and this learner sees none; use another")
        if recipe.fill.name == "mask_token" and not backbone.has_mask_token:
            raise SchemaError(f"fill 'mask_token': {type(backbone).__name__} has none here; choose another fill")
        self.restore: Restorer = Restorer(recipe=recipe, frame=frame_of(recipe, backbone))
        self._codec = {"id": recipe.codec.name, **recipe.codec.kwargs}
        self.schema: Schema = self._schema(specs, num_classes)
        self.masking: Masking = self._masking(objective, seed)

    def _schema(self, specs: Mapping[str, TokenSpec], num_classes: int) -> Schema:
        modalities: dict[str, TokenSpec] = {}
        if self.restore.frame is not None:
            modalities.update(self._form.specs(self.restore.frame, self._codec))
            for spec in modalities.values():
                self._try_codec(spec)
        if self.recipe.text.name != "none" and "text" in specs:
            modalities["text"] = specs["text"]
        sizes = {"features": self.backbone.feature_dim, "logits": num_classes}
        if "logits" in self.recipe.extras and num_classes < 1:
            raise SchemaError("a recipe with logits needs to know how many: bind it with num_classes=")
        if "features" in self.recipe.extras and not sizes["features"]:
            raise SchemaError("plain images have no features; leave them out of the extras, or bind to a backbone")
        extras = {name: ExtraSpec(shape=(sizes[name],)) for name in self.recipe.extras}
        return Schema(modalities, extras, self.restore.to_json())

    def _try_codec(self, spec: TokenSpec) -> None:
        """Make a codec, or train it on noise, so that an option that does not fit the tokens is told here."""
        if not self.is_trained:
            assert isinstance(spec.codec, Mapping), "a TokenSpec makes one of a name"
            get_codec(spec.codec, shape=spec.shape, dtype=spec.dtype)
            return
        try:
            try_training(self.recipe.codec, spec)
        except CodecError as error:
            raise SchemaError(f"recipe {self.recipe.name!r}: {error}") from error

    def _masking(self, objective: Objective | None, seed: int) -> Masking:
        recipe, scores_image = self.recipe, "scorer" in self._form.uses
        scorer: Scorer | None = None
        if scores_image or (recipe.text.name not in SCORELESS and "text" in self.backbone.token_specs()):
            given = {"objective": objective, "seed": seed}
            options = {name: given[name] for name in SCORERS.options(recipe.scorer.name) if name in given}
            scorer = SCORERS.make(recipe.scorer.name, **{**options, **recipe.scorer.kwargs})
            if isinstance(self.backbone, PlainImages):
                if _INTO_MODEL in SCORERS.options(recipe.scorer.name):
                    raise SchemaError(
                        f"scorer {recipe.scorer.name!r} needs a backbone; of plain images use 'centre', 'random', or "
                        "one of your own that looks at the tokens alone"
                    )
            elif "layers" in recipe.scorer.kwargs:
                chosen_layers(recipe.scorer.kwargs["layers"], len(self.backbone.attention_taps()))
        keep_rule, codec = None, None
        if scores_image:
            keep_rule = KEEP_RULES.make(recipe.keep.name, **recipe.keep.kwargs)
            spec = self.backbone.token_specs()["image"]
            measures = "encoded_bytes" in KEEP_RULES.options(recipe.keep.name)
            if measures and recipe.level == "hidden":
                raise SchemaError(
                    f"keep {recipe.keep.name!r} measures patches, not hidden tokens; choose top_k or another"
                )
            if measures:
                codec = get_codec(self._codec, shape=spec.shape, dtype=spec.dtype)
            try_keep(recipe.keep, spec.positions)
        text_rule = None
        if recipe.text.name != "none" and "text" in self.backbone.token_specs():
            text_rule = TEXT_RULES.make(recipe.text.name, **recipe.text.kwargs)
        return Masking(backbone=self.backbone, scorer=scorer, keep_rule=keep_rule, text_rule=text_rule, codec=codec)

    @property
    def is_trained(self) -> bool:
        """Whether the codec is trained on exemplars, which `create_memory` then needs."""
        return is_trained(self.recipe.codec)

    def create_memory(
        self,
        place: Place,
        *,
        max_bytes: int | str,
        samples: Sequence[Exemplar] = (),
        codec: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ExemplarMemory:
        """Make an empty memory of its exemplars, which records the recipe.

        Parameters
        ----------
        place : path or zarr store
            A folder that is missing or empty, or a Zarr store.
        max_bytes : int or str
            The budget.
        samples : sequence of Exemplar
            Exemplars that `make` returned, for a codec that is trained (`is_trained`); its tables count.
        codec : mapping, optional
            What training on these samples came to before.
        **options : object
            More options of `ExemplarMemory.create`.

        Returns
        -------
        ExemplarMemory
            The memory, open for writing.

        Raises
        ------
        SchemaError
            If a codec is trained and there are no samples.
        CodecError
            If there are too few.
        """
        schema = self.schema_for(samples, codec=codec)
        return ExemplarMemory.create(place, schema=schema, max_bytes=max_bytes, **options)

    def schema_for(self, samples: Sequence[Exemplar] = (), *, codec: Mapping[str, Any] | None = None) -> Schema:
        """Return the schema of a memory, with its codec trained on samples where it is one that is trained.

        Parameters
        ----------
        samples : sequence of Exemplar
            As for `create_memory`, which also says what is raised.
        codec : mapping, optional
            As for `create_memory`.

        Returns
        -------
        Schema
            It records the recipe, and the weights that made what is stored where that matters.
        """
        samples = exemplars_in(samples)
        if codec is not None:
            check_trained(self.recipe.codec, codec)
        if self.is_trained and not samples:
            raise SchemaError(f"codec {self.recipe.codec.name!r} is trained: give samples=, exemplars of this recipe")
        modalities = dict(self.schema.modalities)
        trained = self._form.specs(self.restore.frame, self._codec) if self.is_trained and self.restore.frame else {}
        if lacking := [name for name in trained if any(name not in exemplar.tokens for exemplar in samples)]:
            raise InvalidExemplarError(
                f"samples: expected exemplars of this recipe, with {lacking}; make them with make()"
            )
        every = [exemplar.tokens[name].values for name in trained for exemplar in samples]
        if every:  # one table for all modalities: their tokens are of one space
            config = train_codec(self.recipe.codec, np.concatenate(every)) if codec is None else dict(codec)
            modalities |= {name: dataclasses.replace(modalities[name], codec=config) for name in trained}
        record = self.restore.to_json()
        if self.recipe.level in {"hidden", "features"}:
            record["weights"] = self._weights_key()
        return Schema(modalities, self.schema.extras, record)

    def check(self, memory: ExemplarMemory) -> None:
        """Refuse, or warn of, a memory that this backbone cannot replay or no longer can.

        Parameters
        ----------
        memory : ExemplarMemory
            A memory that `create_memory` made.

        Raises
        ------
        SchemaError
            If it holds hidden tokens that other weights made: those of another backbone, or of blocks that were tuned.

        Warns
        -----
        DataWarning
            If it holds features, and the backbone was tuned since it was made: they are stale.
        """
        if not isinstance(memory, ExemplarMemory):
            raise SchemaError(f"expected an open ExemplarMemory, got {shown(memory)}")
        recorded, mine = memory.schema.recipe or {}, self.restore.to_json()
        if recorded.get("frame") != mine["frame"]:
            raise SchemaError(
                f"{memory.location}: holds exemplars of {shown(recorded.get('frame'))}, this recipe makes those of "
                f"{shown(mine['frame'])}; use the recipe and the backbone that made them"
            )
        if recorded.get("weights") == self._weights_key():
            return
        if self.recipe.level == "features":
            told = "features of a backbone that was tuned since: they are stale, and a head fitted on them is wrong"
            warnings.warn(f"{memory.location}: holds {told}", DataWarning, stacklevel=2)
            return
        raise SchemaError(
            f"{memory.location}: holds hidden tokens that other weights made than those below layer "
            f"{self.restore.frame and self.restore.frame.layer} of this backbone; use the backbone that made them"
        )

    def _weights_key(self) -> str | None:
        frame = self.restore.frame
        if frame is None or isinstance(self.backbone, PlainImages) or self.recipe.level not in {"hidden", "features"}:
            return None
        return weights_key(self.backbone, frame)

    def make(
        self,
        images: NDArray[np.uint8],
        texts: Sequence[str] | None,
        labels: ArrayLike,
        priorities: ArrayLike | None = None,
        *,
        extras: Mapping[str, ArrayLike] | None = None,
        hidden: Hidden | None = None,
        scores: NDArray[np.float32] | None = None,
        features: NDArray[np.float32] | None = None,
    ) -> list[Exemplar]:
        """Make exemplars of images and texts.

        Parameters
        ----------
        images : array-like or Tensor, shape (B, H, W, 3), uint8
            Images of the size of the backbone.
        texts : sequence of str or None
            Their texts; None where there are none.
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
        features : ndarray, shape (B, D), float32, optional
            Their features, where they are known and the recipe stores them.

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
        classes = np.array([label_of(label, "label", error=_WRONG) for label in listed(labels, "labels")], np.int64)
        given_ranks = np.zeros(len(classes)) if priorities is None else as_array(priorities)
        ranks = floats_of(given_ranks, "priorities", error=_WRONG)
        given = {name: as_array(values) for name, values in mapping_of(extras or {}, "extras", error=_WRONG).items()}
        if set(given) != set(self.recipe.extras):
            raise InvalidExemplarError(f"expected the extras {list(self.recipe.extras)}, got {sorted(map(str, given))}")
        words = [""] * len(pixels) if texts is None else listed(texts, "texts")
        if not all(isinstance(text, str) for text in words):
            raise InvalidExemplarError(f"expected a text an image, empty where there is none, got {shown(texts)}")
        lengths = {"images": len(pixels), "texts": len(words), "labels": len(classes), "priorities": len(ranks)}
        lengths |= {name: len(values) if values.ndim else 0 for name, values in given.items()}
        known_scores = None if scores is None else as_array(scores).astype(np.float32)
        of_model = {"scores": known_scores, "features": features, "hidden": hidden}
        lengths |= {name: len(values) for name, values in of_model.items() if values is not None}
        if len(set(lengths.values())) > 1:
            raise InvalidExemplarError(f"expected as many of each, got {lengths}")
        if not len(pixels):
            return []
        known = None if features is None else self._features(features)
        with evaluating(self.backbone):  # dropout is no part of what is stored
            masked = self.masking(pixels, words, classes, hidden=hidden, scores=known_scores)
            masked = at_level(self.recipe, self.restore.frame, self.backbone, masked, hidden=hidden, features=known)
        return [
            Exemplar(
                self._tokens(image, masked, row),
                label=int(classes[row]),
                priority=float(ranks[row]),
                extras={name: values[row] for name, values in given.items()},
            )
            for row, image in enumerate(pixels)
        ]

    def pruned(self, hidden: Hidden, scores: NDArray[np.float32]) -> Hidden:
        """Drop the image tokens that the recipe would not store, so that a model sees as many as it replays.

        Parameters
        ----------
        hidden : Hidden
            Hidden tokens of N examples, all of each image.
        scores : ndarray, shape (N, L), float32
            Scores of the patches.

        Returns
        -------
        Hidden
            Those that are kept.

        Raises
        ------
        SchemaError
            If the recipe drops no tokens, or its keep rule measures patches.
        """
        rule, frame, given = self.masking.keep_rule, self.restore.frame, as_array(scores)
        if rule is None or frame is None or self.masking.codec is not None:
            raise SchemaError(f"recipe {self.recipe.name!r} has no keep rule for hidden tokens; choose one with top_k")
        if given.shape != (len(hidden), frame.length):
            raise SchemaError(f"scores: expected shape {(len(hidden), frame.length)}, got {given.shape}")
        return pruned(self.recipe, hidden, rule(scores, valid=np.ones(scores.shape, np.bool_)), scores)

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

    def _features(self, features: Any) -> NDArray[np.float32]:
        """Return features as an array, finite and as wide as those of the backbone."""
        values, width = as_array(features), self.backbone.feature_dim
        if values.ndim != 2 or values.shape[1] != width or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise InvalidExemplarError(
                f"features: expected finite floats (B, {width}), got {values.dtype} of shape {values.shape}"
            )
        return values.astype(np.float32)

    def _tokens(self, image: NDArray[np.uint8], masked: Masked, row: int) -> dict[str, TokenSet]:
        tokens: dict[str, TokenSet] = {}
        if self.restore.frame is not None:
            tokens = self._form.make(image, masked, row, frame=self.restore.frame, codec=self._codec)
        if "text" in masked.keep and "text" not in tokens:
            tokens["text"] = masked.words(row)
        return tokens
