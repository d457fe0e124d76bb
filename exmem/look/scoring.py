"""A sheet of one picture and text: what every scorer makes of them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exmem.backbones import Backbone
from exmem.codecs import get_codec
from exmem.look.pictures import draw_heat, draw_placed, place_tokens
from exmem.look.sheet import Card, Panel, Passage, Sheet
from exmem.look.words import mark_text
from exmem.masking import SCORERS, get_scorer, keep_all_text, keep_text_of_lost_patches, mean_threshold
from exmem.recipes import MaskedTokens
from exmem.tensors import TensorBatch
from exmem.tokens import Exemplar

__all__ = ["score_sheet", "takes_layers"]


def takes_layers(scorer: str) -> bool:
    """Say whether a scorer has the option `layers`.

    Parameters
    ----------
    scorer : str
        A key of `SCORERS`.

    Returns
    -------
    bool
        True for a scorer of chosen layers.
    """
    return "layers" in inspect.signature(SCORERS[scorer]).parameters


def score_sheet(
    backbone: Backbone,
    picture: NDArray[np.uint8],
    text: str,
    *,
    layers: Sequence[int] | None = None,
    quality: int = 75,
    facts: Mapping[str, str] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Sheet:
    """Show what every scorer of the registry makes of one picture and its text, side by side.

    Image tokens are kept by `mean_threshold`, text tokens by `keep_text_of_lost_patches`: the paper's rules.

    Parameters
    ----------
    backbone : Backbone
        The backbone.
    picture : ndarray, shape (image_size, image_size, 3), uint8
        The picture.
    text : str
        Its text.
    layers : sequence of int, optional
        Layers of those scorers that take layers; their own when left out.
    quality : int
        JPEG quality of the kept patches.
    facts : mapping of str to str, optional
        What is told of the whole: name -> value.
    advance : callable, optional
        Told after each scorer how many were done.

    Returns
    -------
    Sheet
        One card for the whole picture, and one a scorer in the order of their names.
    """
    tokens = backbone.tokens(picture[None], [text])
    whole = tokens.exemplar(0)
    whole_bytes = _image_bytes(whole, quality)
    first = Card(
        "everything",
        {"kept": f"{len(whole.tokens['image'])} patches", "bytes": f"{whole_bytes:,}"},
        (Panel("picture", picture), Panel("kept", _drawn(backbone, whole))),
        (_passage(backbone, text, whole, whole),),
    )
    cards = [first]
    for name in sorted(SCORERS):
        options: dict[str, Any] = {"layers": tuple(layers)} if layers is not None and takes_layers(name) else {}
        maps = get_scorer(name, **options)(backbone, TensorBatch.from_numpy(tokens))
        knows_text = maps.text_to_image is not None
        recipe = MaskedTokens(
            backbone,
            scorer=lambda model, batch, maps=maps: maps,
            keep_rule=mean_threshold,
            text_rule=keep_text_of_lost_patches if knows_text else keep_all_text,
            quality=quality,
        )
        (kept,) = recipe.make(picture[None], [text], tokens.labels, np.zeros(1))
        keep = np.zeros(maps.scores["image"].shape[1], np.bool_)
        keep[kept.tokens["image"].positions] = True
        size = _image_bytes(kept, quality)
        about = {"layers": ", ".join(map(str, layers))} if layers is not None and "layers" in options else {}
        about["kept"] = f"{keep.sum()} of {len(keep)} patches, {keep.mean():.0%}"
        about["bytes"] = f"{size:,}, {size / whole_bytes:.0%} of the whole"
        if not knows_text:
            about["text"] = "kept whole: this scorer does not relate words and patches"
        heat = draw_heat(maps.scores["image"][0], backbone.grid, picture, keep=keep)
        panels = (Panel("scores", heat), Panel("kept", _drawn(backbone, kept)))
        cards.append(Card(name, about, panels, (_passage(backbone, text, kept, whole),)))
        if advance is not None:
            advance(1)
    notes = (
        "Kept are the patches that score above their mean (mean_threshold); the line runs around them.",
        "Scores: dark is the lowest of the picture, light the highest 2 %.",
        "Hatched in grey: dropped. Black is black in the picture.",
        "Words: green is kept, struck out is lost. Kept is what the scorer puts above the mean of the words, and what "
        "belongs to the dropped patches more than the mean (lost_patches).",
        f"Bytes: the payload of patch_jpeg at quality {quality}; the header that all exemplars share is not in it.",
    )
    return Sheet("Scores", dict(facts or {}), notes, tuple(cards))


def _drawn(backbone: Backbone, exemplar: Exemplar) -> NDArray[np.uint8]:
    return draw_placed(place_tokens(exemplar.tokens["image"], backbone.token_specs()["image"], backbone.grid))


def _passage(backbone: Backbone, text: str, kept: Exemplar, whole: Exemplar) -> Passage:
    caption = f"text: {len(kept.tokens['text'])} of {len(whole.tokens['text'])} tokens"
    return Passage(caption, mark_text(text, kept.tokens["text"], backbone.tokenizer, backbone.max_text))


def _image_bytes(exemplar: Exemplar, quality: int) -> int:
    values = exemplar.tokens["image"].values
    codec = get_codec({"id": "patch_jpeg", "quality": quality}, shape=values.shape[1:], dtype="uint8")
    return len(codec.encode(values))
