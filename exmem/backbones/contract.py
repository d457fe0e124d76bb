"""What every backbone can do, and what all of them share."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from exmem.backbones.attention import AttentionTap, SequenceLayout, Similarity
from exmem.backbones.blocks import projection
from exmem.backbones.checks import channel_values, check_max_text
from exmem.backbones.hidden import Hidden
from exmem.backbones.modes import keep_frozen_still
from exmem.backbones.retouched import Retouched
from exmem.errors import SchemaError
from exmem.tokens import PaddedTokens, TokenBatch, TokenSpec
from exmem.tokens.checks import shown, whole_number
from exmem.tokens.patches import cut_patches
from exmem.tokens.tensors import TensorBatch, TokenTensors

__all__ = ["Backbone"]


class Backbone(nn.Module, Retouched, abc.ABC):
    """A transformer over image tokens, text tokens or both, in one sequence or in two towers.

    `embed` runs the frozen part; its result does not change while the backbone is tuned and can be kept. `encode` runs
    the trainable blocks. Tokens may be any subset of the dense sequences, with true positions.

    Every family takes `trainable_blocks` too: the last blocks, of each tower, that are tuned; the others are frozen. It
    refuses (SchemaError) a model that has fewer blocks, fewer text positions than `max_text`, no class token where it
    reads one, or no way to take sparse tokens.

    Parameters
    ----------
    image_size : int or tuple of int
        Side of square images in pixels, or height and width; multiples of the patch side, else SchemaError.
    patch : int
        Side of a patch in pixels.
    max_text : int
        Most text tokens, special ones included.
    tokenizer : object or None
        A tokenizer of transformers; None for a backbone that sees no text.
    width : int
        Width D of the hidden states.
    mean, std : sequence of float
        Normalisation of pixels 0..1, one value per channel; `from_pretrained` takes the model's own, else ImageNet's.
    encoder : Module, optional
        What embeds texts; `max_text` must not be more than it has positions for.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    first_trainable: int  # index of the first block that `encode` runs

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int],
        patch: int,
        max_text: int,
        tokenizer: Any,
        width: int,
        mean: Sequence[float],
        std: Sequence[float],
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        sides = image_size if isinstance(image_size, list | tuple) else (image_size, image_size)
        if len(sides) != 2:
            raise SchemaError(f"image_size must be a side, or height and width, got {shown(image_size)}")
        sides = whole_number(sides[0], "image_size", least=1), whole_number(sides[1], "image_size", least=1)
        if any(side % patch for side in sides):
            raise SchemaError(f"image_size {image_size} is no multiple of the patch side {patch}; choose one that is")
        self.image_sides = sides
        self.patch, self.max_text, self.width = patch, whole_number(max_text, "max_text"), width
        if encoder is not None:
            check_max_text(encoder, self.max_text)
        self.tokenizer = tokenizer
        self._made = self.modalities
        self.register_buffer("pixel_mean", channel_values(mean, "mean"), persistent=False)
        self.register_buffer("pixel_std", channel_values(std, "std"), persistent=False)
        if not (self.pixel_std > 0).all():
            raise SchemaError(f"std must be three numbers above 0, got {shown(std)}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that this family sees; others in a batch are ignored."""
        return "image", "text"

    def restrict(self, *modalities: str) -> None:
        """Make tokens of some modalities only from now on; features have no part for the others.

        Parameters
        ----------
        *modalities : str
            One or more of `modalities`; SchemaError for any other.
        """
        if not modalities or not {*modalities} <= {*self.modalities}:
            raise SchemaError(f"{type(self).__name__} sees {list(self.modalities)}, got {list(modalities)}")
        self._made = tuple(name for name in self.modalities if name in modalities)

    @property
    def feature_dim(self) -> int:
        """Length of a feature: class token, and mean token of each modality that is seen."""
        return (1 + len(self._made)) * self.width

    def joined(self, *first: Tensor, **by_modality: Tensor) -> Tensor:
        """Return a feature: what comes first, and the parts (B, D) of the modalities that are seen.

        Parameters
        ----------
        *first : Tensor
            Parts of all of them.
        **by_modality : Tensor
            Parts of one each.
        """
        return torch.cat([*first, *(by_modality[name] for name in self._made)], 1)

    @property
    def image_size(self) -> int:
        """Side of the square images; SchemaError if they are no squares: `image_sides` has height and width."""
        height, width = self.image_sides
        if height != width:
            raise SchemaError(f"the images of this backbone are {height} x {width}, no squares; use image_sides")
        return height

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_sides[0] // self.patch, self.image_sides[1] // self.patch

    @property
    def num_prefix(self) -> int | None:
        """Prefix tokens of the images; None where the frozen part has no tower for images alone."""
        return None

    def trunk_weights(self, layer: int) -> dict[str, Tensor]:
        """Return by name the weights that make hidden tokens of a layer; none where they are of no layer.

        Parameters
        ----------
        layer : int
            Blocks of the image that they go through.
        """
        return {}

    @property
    def has_mask_token(self) -> bool:
        """Whether image tokens of unknown value can be embedded (`TokenTensors.unknown`)."""
        return False

    def token_specs(self) -> dict[str, TokenSpec]:
        """Return how the tokens of this backbone look, by modality."""
        specs = {}
        if "image" in self._made:
            shape = (self.patch, self.patch, 3)
            specs["image"] = TokenSpec(positions=int(np.prod(self.grid)), shape=shape, codec="patch_jpeg")
        if "text" in self._made:
            specs["text"] = TokenSpec(positions=self.max_text, dtype="int32")
        return specs

    def tokens(self, images: NDArray[np.uint8], texts: Sequence[str]) -> TokenBatch:
        """Cut images into patches and texts into tokens, as far as this backbone sees them; labels are 0.

        All tokens are kept, special text tokens too.

        Parameters
        ----------
        images : ndarray, shape (B, H, W, 3), uint8
            Images of `image_sides`.
        texts : sequence of str
            One per image; cut after `max_text` tokens.
        """
        tokens = {}
        if "image" in self._made:
            patches = cut_patches(images, self.patch)
            positions = np.broadcast_to(np.arange(patches.shape[1]), patches.shape[:2]).copy()
            tokens["image"] = PaddedTokens(patches, positions, np.ones(patches.shape[:2], np.bool_))
        if "text" in self._made:
            tokens["text"] = self.tokenize(texts)
        return TokenBatch(tokens, np.zeros(len(images), np.int64))

    def tokenize(self, texts: Sequence[str]) -> PaddedTokens:
        """Cut texts into token ids, int32; only for a backbone that sees text.

        Parameters
        ----------
        texts : sequence of str
            Cut after `max_text` tokens.
        """
        id_lists = self.tokenizer(list(texts), truncation=True, max_length=self.max_text)["input_ids"] if texts else []
        longest = max(map(len, id_lists), default=0)
        ids = np.zeros((len(id_lists), longest), np.int32)
        valid = np.zeros((len(id_lists), longest), np.bool_)
        for row, tokens in enumerate(id_lists):
            ids[row, : len(tokens)], valid[row, : len(tokens)] = tokens, True
        return PaddedTokens(ids, np.where(valid, np.arange(longest), 0), valid)

    def count_cut(self, texts: Sequence[str]) -> int:
        """Count the texts of more than `max_text` tokens, which `tokenize` cuts; only for a backbone that sees text.

        Parameters
        ----------
        texts : sequence of str
            Whole texts.
        """
        known = dict.fromkeys(texts)
        lists = self.tokenizer([*known], truncation=True, max_length=self.max_text + 1)["input_ids"] if known else []
        cut = {text for text, tokens in zip(known, lists, strict=True) if len(tokens) > self.max_text}
        return sum(text in cut for text in texts)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokenizer's special tokens; none without a tokenizer."""
        return frozenset(self.tokenizer.all_special_ids) if self.tokenizer is not None else frozenset()

    @abc.abstractmethod
    def embed(self, batch: TensorBatch, *, gradient: bool = False, until: int | None = None) -> Hidden:
        """Run the frozen part.

        Parameters
        ----------
        batch : TensorBatch
            `image` and `text`; a missing modality counts as empty, one that this backbone does not see is ignored.
            Where the image tokens are those of a layer (`TensorBatch.layer`), with `prefix`, only blocks above it are
            run; SchemaError if these are tuned, or there is no tower for images alone.
        gradient : bool
            Whether gradients are recorded, for scorers that need them; its weights stay as they are either way.
        until : int, optional
            Blocks of the image that are run; all frozen ones when left out.
        """

    @abc.abstractmethod
    def encode(self, trunk: Hidden) -> Tensor:
        """Run the trainable blocks and return features (B, feature_dim).

        They are the class token, and the mean token of each modality that is seen, after the final norm; zeros for one
        without tokens (a choice). Two-tower backbones say their own.

        Parameters
        ----------
        trunk : Hidden
            What `embed` returned.
        """

    @override
    def forward(self, batch: TensorBatch) -> Tensor:
        """Embed and encode."""
        return self.encode(self.embed(batch))

    @override
    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode of what is tuned; what is frozen stays in evaluation."""
        super().train(mode)
        keep_frozen_still(self)
        return self

    @property
    def num_frozen_blocks(self) -> int:
        """Blocks that `embed` runs."""
        return self.first_trainable

    @property
    def first_tuned_layer(self) -> int:
        """Index into `attention_taps` of the first layer that `encode` runs; `embed` runs those before it."""
        return self.first_trainable

    @property
    @abc.abstractmethod
    def text_is_separate(self) -> bool:
        """Whether `embed` keeps image and text apart, so that texts may be exchanged."""

    @abc.abstractmethod
    def trainable_blocks(self) -> list[nn.Module]:
        """Return the blocks that `encode` runs."""

    @abc.abstractmethod
    def attention_taps(self) -> list[AttentionTap]:
        """Return the attention projections of every layer whose attention scores tokens, first to last."""

    @abc.abstractmethod
    def layout(self, trunk: Hidden, layer: int) -> SequenceLayout:
        """Say where the image and text tokens stand in the sequence of a layer.

        Parameters
        ----------
        trunk : Hidden
            What `embed` returned.
        layer : int
            Index into `attention_taps`, from 0.
        """

    def similarity(self, batch: TensorBatch, trunk: Hidden) -> Similarity | None:
        """Score texts by their similarity to images; hooks on projections see this pass too.

        None where image and text share the last layer, whose attention says more.

        Parameters
        ----------
        batch : TensorBatch
            What was embedded.
        trunk : Hidden
            What `embed` returned for it.
        """
        return None

    def lora_targets(self) -> list[str]:
        """Return the names of the linear layers that LoRA adapts: query and value of the trainable blocks."""
        wanted = {id(projection(block, kind)) for block in self.trainable_blocks() for kind in ("query", "value")}
        return [name for name, module in self.named_modules() if id(module) in wanted]

    def final_norms(self) -> list[nn.Module]:
        """Return the norms that follow the last blocks; none in some families."""
        return []

    def trainable_extras(self) -> list[str]:
        """Return the names of the modules that are trained in full beside LoRA; none in most families."""
        return []

    def normalise(self, patches: Tensor) -> Tensor:
        """Turn uint8 patches into what the patch projection takes: (B, K, 3 * p * p), channels first.

        Parameters
        ----------
        patches : Tensor, shape (B, K, p, p, 3), uint8
            Pixels 0..255.
        """
        values = (patches.to(self.pixel_mean.dtype) / 255 - self.pixel_mean) / self.pixel_std
        return values.permute(0, 1, 4, 2, 3).flatten(2)

    def modality(self, batch: TensorBatch, name: str) -> TokenTensors:
        """Return a modality of a batch on this backbone's device, empty when it is missing.

        Parameters
        ----------
        batch : TensorBatch
            Where it is looked up; text tokens of unknown value become the tokenizer's mask token here.
        name : str
            `image` or `text`; SchemaError if values of it are unknown and there is no mask token for them.
        """
        if "features" in batch.tokens:
            raise SchemaError("this batch holds features, which a classifier takes: batch.tokens['features']")
        if name not in batch.tokens:
            return self.no_tokens(name, len(batch))
        tokens = batch.tokens[name].to(self.pixel_mean.device)
        if tokens.unknown is None:
            return tokens
        if name == "text":
            return dataclasses.replace(tokens, values=self._with_mask_id(tokens.values, tokens.unknown))
        if not self.has_mask_token and bool((tokens.unknown & tokens.valid).any()):
            raise SchemaError(
                f"{type(self).__name__} has no mask token for image tokens of unknown value; use a fill that gives "
                "them a value (zero, mean, thumbnail) or leaves them out (drop)"
            )
        return tokens

    def no_layers(self, batch: TensorBatch, until: int | None) -> None:
        """Refuse hidden tokens of images (SchemaError), for a backbone that has no tower for images alone.

        Parameters
        ----------
        batch, until
            See `embed`.
        """
        if batch.layer is not None or until is not None:
            raise SchemaError(
                f"{type(self).__name__} has no tower for images alone, so it takes no hidden tokens of them; use "
                "joint, vit, dinov2, clip or siglip"
            )

    def no_tokens(self, name: str, rows: int) -> TokenTensors:
        """Return a modality without tokens.

        Parameters
        ----------
        name : str
            `image` or `text`.
        rows : int
            Length B of the batch.
        """
        device = self.pixel_mean.device
        shape = (rows, 0, self.patch, self.patch, 3) if name == "image" else (rows, 0)
        dtype = torch.uint8 if name == "image" else torch.int32
        none = torch.zeros(rows, 0, dtype=torch.int64, device=device)
        return TokenTensors(torch.zeros(shape, dtype=dtype, device=device), none, none.bool())

    def _with_mask_id(self, ids: Tensor, unknown: Tensor) -> Tensor:
        mask_id = self.tokenizer.mask_token_id
        if mask_id is None:
            raise SchemaError(
                f"the tokenizer of {type(self).__name__} has no mask token for text tokens of unknown value; "
                "leave them out (drop)"
            )
        return ids.masked_fill(unknown, mask_id)
