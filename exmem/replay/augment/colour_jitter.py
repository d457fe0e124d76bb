"""Brightness, contrast and saturation, the same for a whole exemplar."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor
from typing_extensions import override

from exmem.replay.augment.base import Augmentation, check_share, images_of
from exmem.tokens.tensors import TensorBatch, TokenTensors, uniform

__all__ = ["ColourJitter"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColourJitter(Augmentation):
    """Scale brightness, contrast and saturation by random factors, one of each per exemplar.

    In this order, without rounding in between (a choice). All patches and all scales of an exemplar get the same
    factors, and one mean grey to spread contrast around, so that they still fit together. Padding and tokens of unknown
    value stay zero.

    Parameters
    ----------
    brightness, contrast, saturation : float
        Factors are drawn from 1 - x .. 1 + x; 0..1, 0 turns one off.
    probability : float
        Chance of each exemplar, 0..1.
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    probability: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_share(field.name, getattr(self, field.name))

    @override
    def __call__(self, batch: TensorBatch, *, generator: torch.Generator) -> TensorBatch:
        images = images_of(batch, "colour_jitter")
        if not images:
            return batch
        device = batch.labels.device
        chosen = uniform(len(batch), generator=generator, device=device) < self.probability
        reach = torch.tensor([self.brightness, self.contrast, self.saturation], device=device)
        factors = 1 + reach * (2 * uniform(len(batch), 3, generator=generator, device=device) - 1)
        grey = _mean_grey(images)
        changed = {name: _jittered(tokens, factors, grey, chosen) for name, tokens in images.items()}
        return batch.with_tokens(changed)


def _jittered(tokens: TokenTensors, factors: Tensor, grey: Tensor, chosen: Tensor) -> TokenTensors:
    brightness, contrast, saturation = (factor[:, None, None, None, None] for factor in factors.unbind(1))
    values = tokens.values * brightness
    pivot = grey[:, None, None, None, None] * brightness
    values = pivot + contrast * (values - pivot)
    luma = _luma(values)[..., None]
    values = (luma + saturation * (values - luma)).round().clamp(0, 255).to(torch.uint8)
    changed = (_is_known(tokens) & chosen[:, None])[:, :, None, None, None]
    return dataclasses.replace(tokens, values=torch.where(changed, values, tokens.values))


def _mean_grey(images: Mapping[str, TokenTensors]) -> Tensor:
    """Return the mean luma of all known pixels of each exemplar, (B,)."""
    sums, pixels = [], []
    for tokens in images.values():
        known = _is_known(tokens)
        sums.append((_luma(tokens.values.float()).sum((2, 3)) * known).sum(1))
        pixels.append(known.sum(1) * tokens.values.shape[2] * tokens.values.shape[3])
    return torch.stack(sums).sum(0) / torch.stack(pixels).sum(0).clamp(min=1)


def _luma(values: Tensor) -> Tensor:
    return values @ values.new_tensor(_LUMA)


def _is_known(tokens: TokenTensors) -> Tensor:
    return tokens.valid if tokens.unknown is None else tokens.valid & ~tokens.unknown
