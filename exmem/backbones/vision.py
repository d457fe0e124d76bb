"""A ViT-family vision model of transformers on sparse patches; its parts are found by form rather than by family."""

import dataclasses
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, unfold

from exmem.backbones.attention import AttentionTap
from exmem.backbones.blocks import attention_mask, attention_tap, blocks_of, run_blocks
from exmem.backbones.checks import check_vision_blocks
from exmem.errors import SchemaError
from exmem.tokens.tensors import TokenTensors

__all__ = ["VisionParts", "VisionTower"]

_FINAL_NORMS = ("layernorm", "post_layernorm", "norm", "layer_norm")


@dataclasses.dataclass(frozen=True, eq=False)
class VisionParts:
    """What a vision model is made of.

    `projection` is the patch projection inside `embeddings`; `before_blocks` follows the embeddings: CLIP has a norm
    there, others nothing.
    """

    embeddings: nn.Module
    projection: nn.Conv2d
    before_blocks: nn.Module
    blocks: list[nn.Module]
    norm: nn.Module
    num_heads: int

    @classmethod
    def of(cls, model: nn.Module) -> "VisionParts":
        """Find the parts of a model of the form of ViT, DeiT, DINOv2 or CLIP vision; SchemaError if it has another."""
        embeddings = getattr(model, "embeddings", None)
        convolutions = [m for m in embeddings.modules() if isinstance(m, nn.Conv2d)] if embeddings is not None else []
        blocks = blocks_of(model)
        norm = next((getattr(model, name) for name in _FINAL_NORMS if hasattr(model, name)), None)
        heads = getattr(getattr(model, "config", None), "num_attention_heads", None)
        if embeddings is None or len(convolutions) != 1 or not blocks or norm is None or heads is None:
            raise SchemaError(
                f"{type(model).__name__} is no ViT-family vision model: expected `embeddings` with one convolution, "
                f"a list of blocks and a final norm ({', '.join(_FINAL_NORMS)})"
            )
        before = getattr(model, "pre_layrnorm", None) or nn.Identity()
        return cls(embeddings, convolutions[0], before, blocks, norm, int(heads))

    @property
    def patch(self) -> int:
        """Side of a patch."""
        return int(self.projection.kernel_size[0])

    @property
    def width(self) -> int:
        """Width of the hidden states."""
        return int(self.projection.out_channels)

    def position_table(self, size: tuple[int, int]) -> Tensor:
        """Return what the embeddings make of an image of zeros: position embeddings, biases and class token(s).

        The size is height and width; positions are interpolated as the model itself does. The result is (1, P + L, D),
        class token(s) first. SchemaError if the embeddings return something else than tokens.
        """
        with torch.no_grad():
            zeros = torch.zeros(1, self.projection.in_channels, *size)
            table = self.embeddings(zeros, **_interpolating(self.embeddings))
        if not isinstance(table, Tensor):
            raise SchemaError(
                f"{type(self.embeddings).__name__} returns {type(table).__name__}, expected one token a patch; "
                "use a plain ViT, DeiT, DINOv2 or CLIP vision model"
            )
        return table


class VisionTower(nn.Module):
    """A ViT-family vision model that takes any of the patches of an image, each with its true position.

    The size is height and width of the images, multiples of the patch side. SchemaError if the model is of another
    form, lacks the class token where it must have one, or cannot take sparse tokens.
    """

    base_positions: Tensor

    def __init__(self, model: nn.Module, *, size: tuple[int, int], class_token: bool = True) -> None:
        super().__init__()
        self.parts = VisionParts.of(model)
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # type: ignore[assignment]  # unused, and random where the checkpoint has none
        self.model = model.requires_grad_(False).eval()
        base = self.parts.position_table(size)
        self.num_prefix = base.shape[1] - (size[0] // self.parts.patch) * (size[1] // self.parts.patch)
        if class_token and self.num_prefix < 1:
            raise SchemaError(f"{type(model).__name__} has no class token; use a vision model that has one")
        self.register_buffer("base_positions", base, persistent=False)
        self._try(size)

    @property
    def has_mask_token(self) -> bool:
        """Whether the model has a token for patches of unknown value."""
        return getattr(self.parts.embeddings, "mask_token", None) is not None

    def embed(self, patches: Tensor, image: TokenTensors) -> Tensor:
        """Project patches (B, K, 3 * p * p), add the embeddings of their true positions, put the class token(s) first.

        Where `image` says that a value is unknown, the mask token stands for the patch. The result is (B, P + K, D).
        """
        conv = self.parts.projection
        tokens = linear(patches, conv.weight.flatten(1))  # the bias is part of base_positions
        if image.unknown is not None and self.has_mask_token:
            bias = 0 if conv.bias is None else conv.bias  # the mask token takes the place of patch and bias
            mask_token: Any = self.parts.embeddings.mask_token
            tokens = torch.where(image.unknown.unsqueeze(-1), mask_token.flatten() - bias, tokens)
        table = self.base_positions[0, self.num_prefix :]
        tokens = tokens + table[image.positions] * image.valid.unsqueeze(-1)
        prefix = self.base_positions[:, : self.num_prefix].expand(len(patches), -1, -1)
        hidden: Tensor = self.parts.before_blocks(torch.cat([prefix, tokens], 1))
        return hidden

    def run(self, hidden: Tensor, valid: Tensor, blocks: slice) -> Tensor:
        """Run some blocks over the class token(s) and the patches, (B, P + K, D); `valid` (B, K) is of the patches."""
        mask = attention_mask(valid.new_ones(len(valid), self.num_prefix), valid)
        return run_blocks(self.parts.blocks[blocks], hidden, mask)

    def attention_taps(self) -> list[AttentionTap]:
        """Return the attention projections of every block."""
        return [attention_tap(block, self.parts.num_heads) for block in self.parts.blocks]

    def _try(self, size: tuple[int, int]) -> None:
        """Refuse a model whose blocks make something else of all patches than the model makes of the image."""
        conv = self.parts.projection
        pixels = torch.randn(1, conv.in_channels, *size, generator=torch.Generator().manual_seed(0))
        patches = unfold(pixels, self.parts.patch, stride=self.parts.patch).transpose(1, 2)
        model: Any = self.model
        with torch.no_grad():
            expected = model(pixels, **_interpolating(model)).last_hidden_state

        def sparse() -> tuple[Tensor, Tensor]:
            image = TokenTensors.dense(patches)
            hidden = self.run(self.embed(patches, image), image.valid, slice(None))
            return hidden, self.parts.norm(hidden)

        check_vision_blocks(model, expected, sparse)


def _interpolating(module: nn.Module) -> dict[str, bool]:
    known = inspect.signature(module.forward).parameters
    return {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in known else {}
