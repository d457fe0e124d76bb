"""A sheet of one image and text: what every scorer makes of them."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from exmem.backbones import Backbone
from exmem.codecs import get_codec
from exmem.masking import border_share, keep_all_text, keep_text_of_lost_patches, mean_threshold
from exmem.masking.scorers import SCORERS
from exmem.recipes import Masked, Masking
from exmem.report.view.images import draw_heat, draw_placed, place_tokens
from exmem.report.view.sheet import Card, Panel, Passage, Piece, Sheet
from exmem.report.view.words import mark_text
from exmem.tokens import Exemplar, TokenSet

__all__ = ["score_sheet"]


def score_sheet(
    backbone: Backbone,
    image: NDArray[np.uint8],
    text: str,
    *,
    layers: Sequence[int] | None = None,
    quality: int = 75,
    facts: Mapping[str, str] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Sheet:
    """Show what every scorer of the registry makes of one image and its text, side by side.

    Image tokens are kept by `mean_threshold`, text tokens by `keep_text_of_lost_patches`: the paper's rules.

    Parameters
    ----------
    backbone : Backbone
        What scores.
    image : ndarray, shape (image_size, image_size, 3), uint8
        As the backbone sees it.
    text : str
        What belongs to it.
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
        One card for the whole image, and one a scorer in the order of their names.
    """
    example = _Example(backbone, image, text, quality)
    tokens = backbone.tokens(image[None], [text])
    whole = tokens.exemplar(0)
    whole_bytes, drawn = example.stored(whole)
    about = {"kept": f"{len(whole.tokens['image'])} patches", "bytes": f"{whole_bytes:,}"}
    panels = Panel("whole image", image), Panel(f"all patches, JPEG quality {quality}", drawn)
    patches = len(whole.tokens["image"])
    measures = {"patches": patches, "kept_patches": patches, "border_ratio": None, "stored_bytes": whole_bytes}
    cards = [Card("everything", about, panels, (example.passage(whole),), measures)]
    for name in sorted(SCORERS):
        option = inspect.signature(SCORERS[name]).parameters.get("layers")
        options = {} if option is None else {"layers": option.default if layers is None else tuple(layers)}
        relates = {"image", "text"} <= backbone.token_specs().keys()
        masking = Masking(
            backbone=backbone,
            scorer=SCORERS.make(name, **options),
            keep_rule=mean_threshold,
            text_rule=keep_text_of_lost_patches if relates else keep_all_text,
        )
        masked = masking(image[None], [text], np.zeros(1, np.int64))
        about = {key: "all" if chosen is None else ", ".join(map(str, chosen)) for key, chosen in options.items()}
        cards.append(example.card(name, masked, whole_bytes, about))
        if advance is not None:
            advance(1)
    notes = (
        "Kept are the patches that score above their mean (mean_threshold); the line runs around them.",
        "Scores: dark is the lowest of the image, light the highest 2%.",
        "Hatched in grey: dropped. Black is black in the image. What is kept is shown as it is decoded.",
        "Words: green is kept, struck out is lost. Kept is what the scorer puts above the mean of the words, and what "
        "belongs to the dropped patches more than the mean (lost_patches).",
        f"Bytes: the payload of patch_jpeg at quality {quality}; the header that all exemplars share is not in it.",
    )
    return Sheet("Scores", dict(facts or {}), notes, tuple(cards))


@dataclasses.dataclass(frozen=True, eq=False)
class _Example:
    """One image and text, and what is stored of them."""

    backbone: Backbone
    image: NDArray[np.uint8]
    text: str
    quality: int

    def card(self, title: str, masked: Masked, whole_bytes: int, about: Mapping[str, str]) -> Card:
        tokens = {"image": TokenSet.kept(masked.tokens.tokens["image"].values[0], masked.keep["image"][0])}
        if "text" in masked.keep:
            tokens["text"] = masked.words(0)
        exemplar, maps = Exemplar(tokens, label=0), masked.maps
        keep = np.zeros(maps.scores["image"].shape[1], np.bool_)
        keep[exemplar.tokens["image"].positions] = True
        size, drawn = self.stored(exemplar)
        border = border_share(keep[None], self.backbone.grid)
        facts = {
            **about,
            "kept": f"{keep.sum()} of {len(keep)} patches, {keep.mean():.0%}",
            "at the border": f"{border.kept[0]:.0%} of the kept patches, {border.grid:.0%} of all",
            "bytes": f"{size:,}, {size / whole_bytes:.0%} of all patches",
        }
        if maps.text_to_image is None and "text" in exemplar.tokens:
            facts["text"] = "kept whole: this scorer does not relate words and patches"
        heat = draw_heat(maps.scores["image"][0], self.backbone.grid, self.image, keep=keep)
        panels = Panel("scores", heat), Panel("kept", drawn)
        measures = {
            "patches": len(keep),
            "kept_patches": int(keep.sum()),
            "border_ratio": float(border.kept[0]),
            "stored_bytes": size,
        }
        return Card(title, facts, panels, (self.passage(exemplar),), measures)

    def stored(self, exemplar: Exemplar) -> tuple[int, NDArray[np.uint8]]:
        """Return the bytes of the patches as patch_jpeg, and what is decoded of them, drawn."""
        image, spec = exemplar.tokens["image"], self.backbone.token_specs()["image"]
        codec = get_codec({"id": "patch_jpeg", "quality": self.quality}, shape=spec.shape, dtype="uint8")
        payload, decoded = codec.encode(image.values), np.empty_like(image.values)
        codec.decode_into(payload, decoded)
        placed = place_tokens(TokenSet(image.positions, decoded), spec, self.backbone.grid)
        return len(payload), draw_placed(placed)

    def passage(self, exemplar: Exemplar) -> Passage:
        """Return the marked text."""
        if "text" not in exemplar.tokens:
            return Passage("text: this backbone sees none", (Piece(self.text, "lost"),))
        text, every = exemplar.tokens["text"], len(self.backbone.tokenize([self.text]).row(0))
        marked = mark_text(self.text, text, self.backbone.tokenizer, self.backbone.max_text)
        return Passage(f"text: {len(text)} of {every} tokens", marked)
