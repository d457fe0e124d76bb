"""CLIP (Radford et al. 2021): two towers with class token and causal text."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from typing_extensions import override

from exmem.backbones.families.towers import TwoTowers
from exmem.errors import SchemaError

__all__ = ["Clip"]


class Clip(TwoTowers):
    """CLIP on sparse tokens.

    The text tower is causal: a token sees what was kept of those before it. CLIP reads a text at its end-of-text token,
    which is its last one; here it is read at the last token that was kept, which is the same one while the end-of-text
    token is kept, and else the one that has seen all others (a choice).

    Parameters
    ----------
    model : Module
        A `CLIPModel` of transformers, which projects both towers to one space.
    tokenizer, image_size, trainable_blocks, max_text, mean, std
        See `Backbone`.
    """

    is_causal = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        image_size: int | tuple[int, int] = 224,
        trainable_blocks: int = 2,
        max_text: int = 32,
        mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
        std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
    ) -> None:
        if not (hasattr(model, "visual_projection") and hasattr(model, "text_projection")):
            raise SchemaError(f"{type(model).__name__} has no projections of both towers; use a CLIPModel")
        super().__init__(
            model,
            tokenizer,
            image_size=image_size,
            trainable_blocks=trainable_blocks,
            max_text=max_text,
            mean=mean,
            std=std,
        )
        self.image_projection: Any = model.visual_projection.requires_grad_(False)
        self.text_projection: Any = model.text_projection.requires_grad_(False)

    @property
    @override
    def embedding_dim(self) -> int:
        return int(self.image_projection.out_features)

    @override
    def embed_image(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """Project the class token."""
        return self._project(hidden[:, 0])

    @override
    def embed_patches(self, hidden: Tensor) -> Tensor:
        """Project each patch as if it were the class token."""
        return self._project(hidden[:, self.vision.num_prefix :])

    @override
    def embed_words(self, states: Tensor) -> Tensor:
        """Project each text token as if it were the last."""
        projected: Tensor = self.text_projection(states)
        return projected

    def _project(self, hidden: Tensor) -> Tensor:
        projected: Tensor = self.image_projection(self.vision.norm(hidden))
        return projected
