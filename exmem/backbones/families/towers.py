"""What backbones with one tower for images and one for texts share (CLIP, SigLIP)."""

import abc
import os
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from typing_extensions import override

from exmem.backbones.attention import Similarity
from exmem.backbones.blocks import tuned_from
from exmem.backbones.hidden import Hidden
from exmem.backbones.loading import pixel_statistics, pretrained
from exmem.backbones.text import TextTower
from exmem.backbones.vision import VisionBackbone
from exmem.errors import SchemaError
from exmem.tokens.tensors import TensorBatch, TokenTensors

__all__ = ["TwoTowers"]


class TwoTowers(VisionBackbone):
    """Image and text meet only in the space that both embeddings are projected to.

    Choices of ours: the last `trainable_blocks` of each tower are tuned, what lies below is frozen, and so are the
    projections. A feature is the image embedding and the text embedding, as the model itself projects them, unscaled.
    SchemaError if the model has no `vision_model` and `text_model` that fit.
    """

    is_causal: ClassVar[bool]
    temperature: Tensor

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        image_size: int | tuple[int, int],
        trainable_blocks: int,
        max_text: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        if not (hasattr(model, "vision_model") and hasattr(model, "text_model")):
            raise SchemaError(f"{type(model).__name__} has no two towers: expected `vision_model` and `text_model`")
        super().__init__(
            model.vision_model,
            image_size=image_size,
            trainable_blocks=trainable_blocks,
            max_text=max_text,
            tokenizer=tokenizer,
            mean=mean,
            std=std,
            encoder=model.text_model,
        )
        self.text: TextTower = TextTower(model.text_model, causal=self.is_causal)
        self.first_text: int = tuned_from(self.text.blocks, trainable_blocks)
        self.register_buffer("temperature", model.logit_scale.detach().exp().flatten()[0], persistent=False)
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        image_size: int | tuple[int, int] = 224,
        trainable_blocks: int = 2,
        max_text: int = 32,
    ) -> Self:
        """Load weights and tokenizer from a hub name such as `openai/clip-vit-base-patch32`, or from a local folder.

        Parameters
        ----------
        name : str or path
            Hub name or local folder.
        image_size, trainable_blocks, max_text
            As for the class.
        """
        from transformers import AutoModel, AutoTokenizer

        mean, std = pixel_statistics(name)
        return cls(
            pretrained(AutoModel, name, dtype=torch.float32),
            pretrained(AutoTokenizer, name),
            image_size=image_size,
            trainable_blocks=trainable_blocks,
            max_text=max_text,
            mean=mean,
            std=std,
        )

    @property
    @abc.abstractmethod
    def embedding_dim(self) -> int:
        """Width S of the space that both modalities share."""

    @abc.abstractmethod
    def embed_image(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Project images, (B, P + K, D) out of the last vision block, to the shared space, (B, S)."""

    @abc.abstractmethod
    def embed_patches(self, hidden: Tensor) -> Tensor:
        """Project patches, (B, P + K, D) out of the last vision block, to the shared space one by one, (B, K, S)."""

    @abc.abstractmethod
    def embed_words(self, states: Tensor) -> Tensor:
        """Project text states (B, T, E), after the final norm, to the shared space one by one, (B, T, S)."""

    def text_sequence(self, text: TokenTensors) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids, `valid` and positions, (B, T) each, of what the text tower is given for the kept tokens.

        Parameters
        ----------
        text : TokenTensors
            Token ids that were kept.
        """
        return text.values.long(), text.valid, text.positions

    @override
    def embed(self, batch: TensorBatch, *, gradient: bool = False, until: int | None = None) -> Hidden:
        with torch.set_grad_enabled(gradient):
            prefix, image = self.embed_frozen(batch, gradient=gradient, until=until)
            ids, valid, positions = self.text_sequence(self.modality(batch, "text"))
            states = self.text.embed(ids, positions)
            if gradient:
                states.requires_grad_()
            states = self.text.run(states, valid, positions, slice(self.first_text))
        return Hidden(prefix, image, TokenTensors(states, positions, valid))

    @override
    def encode(self, trunk: Hidden) -> Tensor:
        """Run the tuned blocks of both towers.

        The feature is (B, 2 * S): image embedding and text embedding, or the one that is seen; zeros for a modality
        without tokens (a choice).
        """
        image = self.embed_image(self._encode_image(trunk), trunk.image.valid)
        words = self.embed_words(self._encode_text(trunk))
        text = _at_last(words, trunk.text.valid, trunk.text.positions)
        return self.joined(image=image * trunk.image.valid.any(1, keepdim=True), text=text)

    @override
    def similarity(self, batch: TensorBatch, trunk: Hidden) -> Similarity:
        """Score texts by their similarity to images, 0 where there is no token; runs the tuned blocks once more.

        Choices of ours: a text token counts as much as its projection is like the image embedding (cosine). It belongs
        to the patches by a softmax over the cosines with the projected patches, and a patch to the text tokens by a
        softmax over the same cosines, both at the temperature that the model was trained with.
        """
        text, hidden = self.modality(batch, "text"), self._encode_image(trunk)
        image = normalize(self.embed_image(hidden, trunk.image.valid), dim=-1)
        patches = normalize(self.embed_patches(hidden), dim=-1)
        words = normalize(self._words_of(self.embed_words(self._encode_text(trunk)), text), dim=-1)
        importance = torch.einsum("btd,bd->bt", words, image).masked_fill(~text.valid, 0)
        logits = self.temperature * (words @ patches.transpose(1, 2))
        both = text.valid.unsqueeze(2) & trunk.image.valid.unsqueeze(1)
        logits = logits.masked_fill(~both, torch.finfo(logits.dtype).min)
        to_image, to_text = (torch.softmax(logits, axis).masked_fill(~both, 0) for axis in (2, 1))
        return Similarity(importance, to_image, to_text.transpose(1, 2))

    @property
    @override
    def feature_dim(self) -> int:
        """Length of a feature: image embedding and text embedding, those that are seen."""
        return len(self._made) * self.embedding_dim

    @property
    @override
    def num_frozen_blocks(self) -> int:
        """First blocks of both towers, which are not tuned."""
        return self.first_trainable + self.first_text

    @override
    def trainable_blocks(self) -> list[nn.Module]:
        return super().trainable_blocks() + self.text.blocks[self.first_text :]

    @override
    def final_norms(self) -> list[nn.Module]:
        of_text = getattr(self.text.model, "final_layer_norm", None)
        return [*super().final_norms(), *([] if of_text is None else [of_text])]

    def _encode_image(self, trunk: Hidden) -> Tensor:
        hidden = torch.cat([trunk.prefix, self.retouched(trunk.image)], 1)
        return self.vision.run(hidden, trunk.image.valid, slice(self.first_trainable, None))

    def _encode_text(self, trunk: Hidden) -> Tensor:
        blocks = slice(self.first_text, None)
        return self.text.norm(self.text.run(trunk.text.values, trunk.text.valid, trunk.text.positions, blocks))

    def _words_of(self, words: Tensor, text: TokenTensors) -> Tensor:
        """Return the tokens of a batch out of all that the text tower saw."""
        return words


def _at_last(words: Tensor, valid: Tensor, positions: Tensor) -> Tensor:
    """Return the word with the highest position of each row, zeros where there is none."""
    if not words.shape[1]:
        return words.new_zeros(len(words), words.shape[2])
    last = positions.masked_fill(~valid, -1).argmax(1)
    return words[torch.arange(len(words), device=words.device), last] * valid.any(1, keepdim=True)
