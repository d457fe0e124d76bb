"""What a tuner does after the patch projection, which lies below what is stored, added where the blocks begin."""

from torch import Tensor, nn

from exmem.tokens.tensors import TokenTensors

__all__ = ["Retouched"]


class Retouched:
    """The part of a backbone whose projected patches a tuner may change."""

    def patch_projection(self) -> nn.Module | None:
        """Return what projects patches, or what a tuner put in its place, where all blocks are tuned; else None.

        `embed` runs it without a tuner, so that what it makes stays what it was; `encode` adds what a tuner does with
        what comes out of it (`retouched`). None in families whose tokens go through a norm before the first block.
        """
        return None

    def patch_places(self, image: TokenTensors) -> Tensor:
        """Return what is added to projected patches before the first block, (B, K, D), where they can be retouched.

        Parameters
        ----------
        image : TokenTensors
            Image tokens.
        """
        raise NotImplementedError

    def retouched(self, image: TokenTensors) -> Tensor:
        """Return image tokens (B, K, D) at the first tuned block, with what a tuner does after the patch projection.

        Parameters
        ----------
        image : TokenTensors
            Those of `embed`.
        """
        after = getattr(self.patch_projection(), "after", None)
        if after is None:
            return image.values
        places = self.patch_places(image)
        retouched: Tensor = after(image.values - places) + places
        return retouched
