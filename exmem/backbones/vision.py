"""The parts of a ViT-family vision model of transformers, found by their form rather than by their family."""

import dataclasses
import inspect
import re

import torch
from torch import Tensor, nn

from exmem.errors import SchemaError
from exmem.masking.attention import AttentionTap

__all__ = ["VisionParts"]

_PROJECTIONS = {  # names of the linear layers in the families of transformers
    "query": "query|q_proj",
    "key": "key|k_proj",
    "value": "value|v_proj",
    "output": r"attention\.output\.dense|o_proj|out_proj",
}
_FINAL_NORMS = ("layernorm", "post_layernorm", "norm", "layer_norm")


@dataclasses.dataclass(frozen=True, eq=False)
class VisionParts:
    """What a vision model is made of.

    Parameters
    ----------
    embeddings : Module
        Pixels to tokens.
    projection : Conv2d
        The patch projection inside it.
    before_blocks : Module
        What follows the embeddings (CLIP has a norm there); the identity elsewhere.
    blocks : list of Module
        Transformer blocks.
    norm : Module
        The final norm.
    num_heads : int
        Attention heads.
    """

    embeddings: nn.Module
    projection: nn.Conv2d
    before_blocks: nn.Module
    blocks: list[nn.Module]
    norm: nn.Module
    num_heads: int

    @classmethod
    def of(cls, model: nn.Module) -> "VisionParts":
        """Find the parts of a model.

        Parameters
        ----------
        model : Module
            ViT, DeiT, DINOv2, CLIP vision or one of the same form.

        Returns
        -------
        VisionParts
            Its parts.

        Raises
        ------
        SchemaError
            If it does not have this form.
        """
        embeddings = getattr(model, "embeddings", None)
        convolutions = [m for m in embeddings.modules() if isinstance(m, nn.Conv2d)] if embeddings is not None else []
        lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m)]
        norm = next((getattr(model, name) for name in _FINAL_NORMS if hasattr(model, name)), None)
        heads = getattr(getattr(model, "config", None), "num_attention_heads", None)
        if embeddings is None or len(convolutions) != 1 or not lists or norm is None or heads is None:
            raise SchemaError(
                f"{type(model).__name__} is no ViT-family vision model: expected `embeddings` with one convolution, "
                f"a list of blocks and a final norm ({', '.join(_FINAL_NORMS)})"
            )
        blocks = max(lists, key=len)
        before = getattr(model, "pre_layrnorm", None) or nn.Identity()
        return cls(embeddings, convolutions[0], before, list(blocks), norm, int(heads))

    @property
    def patch(self) -> int:
        """Side of a patch."""
        return int(self.projection.kernel_size[0])

    @property
    def width(self) -> int:
        """Width of the hidden states."""
        return int(self.projection.out_channels)

    def position_table(self, image_size: int) -> Tensor:
        """Return what the embeddings make of a picture of zeros: position embeddings, biases and class token(s).

        Parameters
        ----------
        image_size : int
            Side of the picture; positions are interpolated as the model itself does.

        Returns
        -------
        Tensor, shape (1, P + L, D)
            Class token(s), then one row per patch.

        Raises
        ------
        SchemaError
            If the embeddings return something else than tokens.
        """
        options = {}
        if "interpolate_pos_encoding" in inspect.signature(self.embeddings.forward).parameters:
            options["interpolate_pos_encoding"] = True
        with torch.no_grad():
            zeros = torch.zeros(1, self.projection.in_channels, image_size, image_size)
            table = self.embeddings(zeros, **options)
        if not isinstance(table, Tensor):
            raise SchemaError(
                f"{type(self.embeddings).__name__} returns {type(table).__name__}, expected one token a patch; "
                "use a plain ViT, DeiT, DINOv2 or CLIP vision model"
            )
        return table

    def attention_taps(self) -> list[AttentionTap]:
        """Return the attention projections of every block, as they are now (tuners wrap them)."""
        return [
            AttentionTap(num_heads=self.num_heads, **{kind: _find(block, kind) for kind in _PROJECTIONS})
            for block in self.blocks
        ]


def _find(block: nn.Module, kind: str) -> nn.Module:
    pattern = re.compile(rf"(^|\.)({_PROJECTIONS[kind]})\Z")
    found = [module for name, module in block.named_modules() if pattern.search(name)]
    if len(found) != 1:
        raise SchemaError(f"{type(block).__name__}: expected one {kind} projection, found {len(found)}")
    projection: nn.Module = found[0]
    return projection
