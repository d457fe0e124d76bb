"""Class-token attention (exemplar masking, Lee et al. 2024)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exmem.errors import SchemaError
from exmem.masking.attention import attention_rows, capture
from exmem.masking.base import ScorableModel, ScoreMaps
from exmem.tensors import TensorBatch, TokenTensors

__all__ = ["ClsAttention"]


class ClsAttention:
    """Score a token by the attention that the class token pays to it, mean over the heads.

    The image score is the mean over the chosen layers. Text scores, and the attention of text tokens over the image,
    come from the last layer: the lower layers of some backbones hold no text. (Known from the paper: the score is the
    class-token attention. Layer and head reduction are choices.)

    Parameters
    ----------
    layers : sequence of int
        Layers of the image score; negative ones count from the last.

    Raises
    ------
    SchemaError
        If no layer is given.
    """

    def __init__(self, *, layers: Sequence[int] = (-1,)) -> None:
        if not layers:
            raise SchemaError("cls_attention needs at least one layer, got none")
        self.layers = tuple(layers)

    def __call__(self, model: ScorableModel, batch: TensorBatch) -> ScoreMaps:
        """Score a batch by one forward pass.

        Parameters
        ----------
        model : ScorableModel
            A backbone.
        batch : TensorBatch
            Tokens to score.

        Returns
        -------
        ScoreMaps
            Scores of both modalities.

        Raises
        ------
        SchemaError
            If the model lacks a layer.
        """
        taps = model.attention_taps()
        wrong = [layer for layer in self.layers if not -len(taps) <= layer < len(taps)]
        if wrong:
            raise SchemaError(f"layers {wrong} do not exist: the model has {len(taps)} layers")
        last = len(taps) - 1
        chosen = sorted({layer % len(taps) for layer in self.layers})
        with torch.inference_mode(), capture({layer: taps[layer] for layer in {*chosen, last}}) as captured:
            stream = model.embed(batch)
            model.encode(stream)
            image = torch.stack(
                [
                    attention_rows(captured[layer], slice(0, 1), model.layout(stream, layer).keep)[
                        :, 0, model.layout(stream, layer).image
                    ]
                    for layer in chosen
                ]
            ).mean(0)
            layout = model.layout(stream, last)
            rows = attention_rows(captured[last], slice(0, None), layout.keep)
        if layout.text is None:
            raise SchemaError("the last layer of the model holds no text tokens")
        specs = model.token_specs()
        lengths = {name: int(spec.positions) for name, spec in specs.items()}
        placed = {
            "image": _dense(image, batch.tokens.get("image"), lengths["image"]),
            "text": _dense(rows[:, 0, layout.text], batch.tokens.get("text"), lengths["text"]),
        }
        cross = _dense_cross(rows[:, layout.text, layout.image], batch, lengths)
        return ScoreMaps(
            {name: scores for name, (scores, _) in placed.items()},
            {name: valid for name, (_, valid) in placed.items()},
            cross,
        )


def _dense(scores: Tensor, tokens: TokenTensors | None, length: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    out, valid = np.zeros((len(scores), length), np.float32), np.zeros((len(scores), length), np.bool_)
    if tokens is not None:
        keep, positions = tokens.keep.cpu().numpy(), tokens.positions.cpu().numpy()
        rows = np.nonzero(keep)[0]
        out[rows, positions[keep]] = scores.float().cpu().numpy()[keep]
        valid[rows, positions[keep]] = True
    return out, valid


def _dense_cross(cross: Tensor, batch: TensorBatch, lengths: dict[str, int]) -> NDArray[np.float32] | None:
    if "image" not in batch.tokens or "text" not in batch.tokens:
        return None
    image, text = batch.tokens["image"], batch.tokens["text"]
    out = np.zeros((len(cross), lengths["text"], lengths["image"]), np.float32)
    values = cross.float().cpu().numpy()
    for row in range(len(cross)):
        words, patches = text.keep[row].cpu().numpy(), image.keep[row].cpu().numpy()
        places = np.ix_(text.positions[row].cpu().numpy()[words], image.positions[row].cpu().numpy()[patches])
        out[row][places] = values[row][np.ix_(words, patches)]
    return out
