"""A ViT-family vision model of transformers on sparse patches; its parts are found by form rather than by family."""

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, unfold
from typing_extensions import override

from exmem.backbones.attention import AttentionTap, SequenceLayout
from exmem.backbones.blocks import attention_mask, attention_tap, blocks_of, run_blocks, tuned_from
from exmem.backbones.checks import check_vision_blocks
from exmem.backbones.contract import Backbone
from exmem.backbones.hidden import Hidden
from exmem.errors import SchemaError
from exmem.tokens.tensors import TensorBatch, TokenTensors

__all__ = ["VisionBackbone", "VisionParts", "VisionTower"]

_FINAL_NORMS = ("layernorm", "post_layernorm", "norm", "layer_norm")


@dataclasses.dataclass(frozen=True, eq=False)
class VisionParts:
    """What a vision model is made of.

    `projection` is the patch projection inside `embeddings`, by a name under which a tuner may put another module;
    `before_blocks` follows the embeddings: CLIP has a norm
    there, others nothing. `norm` is the name of the final norm: a tuner may put another module in its place.
    """

    embeddings: nn.Module
    projection: nn.Conv2d
    projection_name: str
    before_blocks: nn.Module
    blocks: list[nn.Module]
    norm: str
    num_heads: int

    @classmethod
    def of(cls, model: nn.Module) -> "VisionParts":
        """Find the parts of a model of the form of ViT, DeiT, DINOv2 or CLIP vision; SchemaError if it has another."""
        embeddings = getattr(model, "embeddings", None)
        inner = embeddings.named_modules() if embeddings is not None else ()
        convolutions = [(name, module) for name, module in inner if isinstance(module, nn.Conv2d)]
        blocks = blocks_of(model)
        norm = next((name for name in _FINAL_NORMS if hasattr(model, name)), None)
        heads = getattr(getattr(model, "config", None), "num_attention_heads", None)
        if embeddings is None or len(convolutions) != 1 or not blocks or norm is None or heads is None:
            raise SchemaError(
                f"{type(model).__name__} is no ViT-family vision model: expected `embeddings` with one convolution, "
                f"a list of blocks and a final norm ({', '.join(_FINAL_NORMS)})"
            )
        before = getattr(model, "pre_layrnorm", None) or nn.Identity()
        name, projection = convolutions[0]
        return cls(embeddings, projection, name, before, blocks, norm, int(heads))

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
        self.parts: VisionParts = VisionParts.of(model)
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # type: ignore[assignment]  # unused, and random where the checkpoint has none
        self.model = model.requires_grad_(False).eval()
        base = self.parts.position_table(size)  # of zeros: with the bias of the projection
        self.num_prefix: int = base.shape[1] - (size[0] // self.parts.patch) * (size[1] // self.parts.patch)
        if class_token and self.num_prefix < 1:
            raise SchemaError(f"{type(model).__name__} has no class token; use a vision model that has one")
        if self.parts.projection.bias is not None:
            base[:, self.num_prefix :] -= self.parts.projection.bias.detach()
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
        tokens = linear(patches, conv.weight.flatten(1), conv.bias)
        if image.unknown is not None and self.has_mask_token:
            mask_token: Any = self.parts.embeddings.mask_token
            tokens = torch.where(image.unknown.unsqueeze(-1), mask_token.flatten(), tokens)
        tokens = tokens + self.places(image) * image.valid.unsqueeze(-1)
        prefix = self.base_positions[:, : self.num_prefix].expand(len(patches), -1, -1)
        hidden: Tensor = self.parts.before_blocks(torch.cat([prefix, tokens], 1))
        return hidden

    def places(self, image: TokenTensors) -> Tensor:
        """Return what is added to projected patches by their positions, (B, K, D)."""
        return self.base_positions[0, self.num_prefix :][image.positions]

    def grey(self) -> Tensor:
        """Return what enters the first block for an image of zeros, (1, P + L, D)."""
        bias = self.parts.projection.bias
        patches = self.base_positions[:, self.num_prefix :] + (0 if bias is None else bias)
        hidden: Tensor = self.parts.before_blocks(torch.cat([self.base_positions[:, : self.num_prefix], patches], 1))
        return hidden

    def run(self, hidden: Tensor, valid: Tensor, blocks: slice) -> Tensor:
        """Run some blocks over the class token(s) and the patches, (B, P + K, D); `valid` (B, K) is of the patches."""
        mask = attention_mask(valid.new_ones(len(valid), self.num_prefix), valid)
        return run_blocks(self.parts.blocks[blocks], hidden, mask)

    def norm(self, hidden: Tensor) -> Tensor:
        """Return hidden states after the final norm."""
        normed: Tensor = self.final_norm(hidden)
        return normed

    @property
    def final_norm(self) -> nn.Module:
        """The final norm, or what a tuner put in its place."""
        norm: nn.Module = getattr(self.model, self.parts.norm)
        return norm

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
            return hidden, self.norm(hidden)

        check_vision_blocks(model, expected, sparse)


class VisionBackbone(Backbone):
    """What backbones share whose images go through a vision model of their own, of which the last blocks are tuned."""

    has_class_token: ClassVar[bool] = True

    def __init__(
        self,
        vision: nn.Module,
        *,
        image_size: int | tuple[int, int],
        trainable_blocks: int,
        max_text: int,
        tokenizer: Any,
        mean: Sequence[float],
        std: Sequence[float],
        encoder: nn.Module | None = None,
    ) -> None:
        parts = VisionParts.of(vision)
        first = tuned_from(parts.blocks, trainable_blocks)
        super().__init__(
            image_size=image_size,
            patch=parts.patch,
            max_text=max_text,
            tokenizer=tokenizer,
            width=parts.width,
            mean=mean,
            std=std,
            encoder=encoder,
        )
        self.vision: VisionTower = VisionTower(vision, size=self.image_sides, class_token=self.has_class_token)
        self.first_trainable = first
        self.eval()

    @override
    def patch_projection(self) -> nn.Module | None:
        parts = self.vision.parts
        linear_from_there = self.first_trainable == 0 and isinstance(parts.before_blocks, nn.Identity)
        return parts.embeddings.get_submodule(parts.projection_name) if linear_from_there else None

    @override
    def patch_places(self, image: TokenTensors) -> Tensor:
        return self.vision.places(image)

    def embed_frozen(self, batch: TensorBatch, *, gradient: bool, until: int | None) -> tuple[Tensor, TokenTensors]:
        """Run the frozen vision blocks, all or those above the layer of a batch: class token(s) (B, P, D), and patches.

        Parameters
        ----------
        batch : TensorBatch
            Its `image` is looked at, and its `prefix` where it is of a layer.
        gradient : bool
            Whether gradients with respect to what enters the first block can be asked for.
        until : int, optional
            See `embed`.
        """
        last, first = self.first_trainable if until is None else until, self.vision.num_prefix
        image, hidden = self._of_layer(batch, last) if batch.layer is not None else self._of_patches(batch)
        if gradient:
            hidden.requires_grad_()
        hidden = self.vision.run(hidden, image.valid, slice(batch.layer or 0, last))
        return hidden[:, :first], TokenTensors(hidden[:, first:], image.positions, image.valid)

    def _of_patches(self, batch: TensorBatch) -> tuple[TokenTensors, Tensor]:
        image = self.modality(batch, "image")
        return image, self.vision.embed(self.normalise(image.values), image)

    def _of_layer(self, batch: TensorBatch, last: int) -> tuple[TokenTensors, Tensor]:
        """Return image tokens of a layer, and the sequence of them and the prefix."""
        assert batch.layer is not None
        if batch.layer > last:
            raise SchemaError(
                f"the hidden tokens went through {batch.layer} blocks, and the blocks from {last} on are tuned: they "
                "are stale; use a backbone that tunes fewer blocks"
            )
        image, prefix = (batch.tokens[name].to(self.pixel_mean.device) for name in ("image", "prefix"))
        if (prefix.values.shape[1], image.values.shape[2]) != (self.vision.num_prefix, self.width):
            raise SchemaError(
                f"expected hidden tokens of width {self.width} with {self.vision.num_prefix} prefix tokens, got "
                f"{tuple(image.values.shape)} with {prefix.values.shape[1]}; another backbone made them"
            )
        values = torch.cat([prefix.values, image.values], 1).to(self.pixel_mean.dtype)  # that of the weights
        return image, values

    @property
    @override
    def num_prefix(self) -> int:
        return self.vision.num_prefix

    @override
    def trunk_weights(self, layer: int) -> dict[str, Tensor]:
        parts: dict[str, nn.Module] = {"embeddings": self.vision.parts.embeddings}
        parts |= {f"blocks.{number}": block for number, block in enumerate(self.vision.parts.blocks[:layer])}
        return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}

    @property
    @override
    def has_mask_token(self) -> bool:
        """Whether the model has one: DINOv2 does, ViT where it was made with `use_mask_token`."""
        return self.vision.has_mask_token

    @property
    @override
    def text_is_separate(self) -> bool:
        return True

    @override
    def trainable_blocks(self) -> list[nn.Module]:
        return self.vision.parts.blocks[self.first_trainable :]

    @override
    def final_norms(self) -> list[nn.Module]:
        return [self.vision.final_norm]

    @override
    def attention_taps(self) -> list[AttentionTap]:
        return self.vision.attention_taps()

    @override
    def layout(self, trunk: Hidden, layer: int) -> SequenceLayout:
        first = self.vision.num_prefix
        valid = torch.cat([trunk.image.valid.new_ones(len(trunk), first), trunk.image.valid], 1)
        return SequenceLayout(slice(first, None), None, valid, slice(0, 1) if self.has_class_token else None)


def _interpolating(module: nn.Module) -> dict[str, bool]:
    known = inspect.signature(module.forward).parameters
    return {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in known else {}
