"""A codec and a scorer of one's own, by the names that recipes give them."""

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from exmem.backbones import Backbone, Hidden
from exmem.codecs import CODECS, PayloadCodec, get_codec
from exmem.errors import CodecError
from exmem.masking import ScoreMaps
from exmem.masking.scorers import SCORERS, Scorer
from exmem.recipes import BoundRecipe, PlainImages, Recipe
from exmem.replay.augment import Augmentation
from exmem.tokens.tensors import TensorBatch


class Halves(PayloadCodec):
    """Values as half floats."""

    codec_id: ClassVar[str] = "sample.halves"

    @override
    def token_count(self, payload: bytes | NDArray[np.uint8]) -> int:
        return 2 * len(payload) // self.token_bytes

    @override
    def encode(self, buf: NDArray[Any]) -> bytes:
        return self.check_values(buf).astype("<f2").tobytes()

    @override
    def decode_into(self, payload: bytes | NDArray[np.uint8], out: NDArray[Any]) -> None:
        if 2 * len(payload) != len(out) * self.token_bytes:
            raise CodecError("another number of tokens")
        out[...] = np.frombuffer(payload, "<f2").reshape(out.shape)


def ink(model: Backbone, batch: TensorBatch, *, hidden: Hidden | None = None) -> ScoreMaps:
    image = batch.tokens["image"]
    pixels: Tensor = image.values.float().flatten(2)
    scores = (pixels - pixels.mean((1, 2), keepdim=True)).abs().mean(2)
    return ScoreMaps({"image": scores.numpy()}, {"image": image.valid.numpy()})


class Dim:
    """Darker images."""

    def __call__(self, batch: TensorBatch, *, generator: torch.Generator) -> TensorBatch:
        return batch


scorer: Scorer = ink
augmentation: Augmentation = Dim()
CODECS.add(Halves.codec_id, Halves)
SCORERS.add("ink", ink)


def bound() -> BoundRecipe:
    codec: PayloadCodec = get_codec({"id": Halves.codec_id}, shape=(4,), dtype="float32")
    assert codec.token_bytes == 16
    recipe = Recipe.of("masked").refined(scorer="centre", keep="keep_ratio:ratio=0.25", fill="mean")
    return BoundRecipe(recipe, PlainImages(size=32, patch=8))
