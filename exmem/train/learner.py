"""The model that learns: a backbone that a tuner adapts, a linear head that grows, and nearest class means."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, log_softmax, normalize
from typing_extensions import override

from exmem.backbones import Backbone, Hidden
from exmem.backbones.blocks import scaled
from exmem.errors import DataError
from exmem.train.losses import bias_correction, dark_knowledge, distillation
from exmem.train.method_config import MethodConfig
from exmem.train.tuners import Tuner

__all__ = ["ClassMeans", "Learner"]

_SCALE = 10.0  # of a cosine at first: with 1, as LUCIR has it, a few epochs do not bring it to where classes part


class Learner(nn.Module):
    """A backbone whose tuned blocks move as a tuner says, and a linear head; all else is frozen."""

    scale: nn.Parameter | None

    def __init__(self, backbone: Backbone, tuner: Tuner, *, cosine: bool = False) -> None:
        super().__init__()
        moved, extras = tuner(backbone), tuple(backbone.trainable_extras())
        self.backbone = backbone
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name in moved or name.startswith(extras))
        self.classes: tuple[int, ...] = ()
        self._new = 0  # of the classes, the last ones
        self.weight = nn.Parameter(torch.zeros(0, backbone.feature_dim))
        self.bias = nn.Parameter(torch.zeros(0))
        self.register_parameter("scale", nn.Parameter(torch.tensor(_SCALE)) if cosine else None)
        self.to(backbone.pixel_mean.device)

    @property
    def adapter_bytes(self) -> int:
        """Bytes of the weights of the backbone that move."""
        return sum(value.nbytes for value in self.backbone.parameters() if value.requires_grad)

    def described(self, *, tuned: bool = True) -> str:
        """Say how many weights of the backbone move, none where no phase is tuned."""
        if not tuned:
            return "no weight of the backbone is trained"
        moving = sum(value.numel() for value in self.backbone.parameters() if value.requires_grad)
        every = sum(value.numel() for value in self.backbone.parameters())
        return f"{moving:,} of {every:,} weights of the backbone are trained ({moving / every:.2%})"

    def grow(self, classes: Sequence[int]) -> None:
        """Add outputs for new classes; those of old classes stay as they are, new ones start at zero.

        A cosine has no gradient at zero: there, new weights start at random directions that follow from their classes.
        """
        self.classes, self._new = (*self.classes, *classes), len(classes)
        grown = self.weight.new_zeros(len(classes), self.weight.shape[1])
        self.bias = nn.Parameter(torch.cat([self.bias.detach(), grown[:, 0]]))
        if self.scale is not None:
            for row, label in enumerate(classes):
                grown[row] = torch.randn(grown.shape[1], generator=torch.Generator().manual_seed(label))
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), grown]))

    def features(self, hidden: Hidden) -> Tensor:
        """Return features of the backbone for the classifiers, each scaled to mean 0 and variance 1 (a choice)."""
        return scaled(self.backbone.encode(hidden))

    @override
    def forward(self, hidden: Hidden) -> Tensor:
        """Return the logits (B, C) of all classes seen, in the order of `classes`."""
        return self.classify(self.features(hidden))

    def classify(self, features: Tensor) -> Tensor:
        """Return logits of features: linear, or the cosine times a scale that is trained (LUCIR, Hou et al. 2019)."""
        if self.scale is None:
            return features @ self.weight.T + self.bias
        return self.scale * (normalize(features, dim=-1) @ normalize(self.weight, dim=-1).T)

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """Return logits of features on the CPU that were measured before, on the CPU and without gradient."""
        return self.classify(features.to(self.weight.device)).cpu()

    def true_logits(self, encoded: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the logits of the true classes, which were seen: what a gradient scorer explains."""
        logits = self.classify(scaled(encoded))
        return logits.gather(1, self.targets(labels)[:, None]).sum()

    def difficulty(self, features: Tensor, labels: Tensor) -> dict[str, NDArray[np.float32]]:
        """Measure how hard examples are: `loss`, the cross-entropy, and `entropy` of the prediction, (N,) each.

        The features are on the CPU.
        """
        log_p = log_softmax(self.logits(features), -1)
        loss = cross_entropy(log_p, self.targets(labels).cpu(), reduction="none")
        return {"loss": loss.numpy(), "entropy": -(log_p.exp() * log_p).sum(-1).numpy()}

    def targets(self, labels: Tensor) -> Tensor:
        """Turn classes that were seen into their places among the outputs."""
        places = {label: place for place, label in enumerate(self.classes)}
        return torch.tensor([places[label] for label in labels.tolist()], dtype=torch.int64, device=self.bias.device)

    def tuned(self) -> dict[str, Tensor]:
        """Return copies of what is trained, by name: all that a checkpoint needs beside the frozen weights."""
        return {name: value.detach().clone() for name, value in self.named_parameters() if value.requires_grad}

    def load(self, classes: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
        """Continue from a checkpoint: the classes of its head, and what `tuned` returned.

        DataError if its names or shapes are not those of this learner.
        """
        self.classes = ()
        self.weight = nn.Parameter(self.weight.detach()[:0])
        self.bias = nn.Parameter(self.bias.detach()[:0])
        self.grow(classes)
        trained = {name: value for name, value in self.named_parameters() if value.requires_grad}
        wrong = sorted(
            set(trained) ^ set(tensors) or {n for n, value in trained.items() if value.shape != tensors[n].shape}
        )
        if wrong:
            raise DataError(f"the checkpoint belongs to another model: {wrong[:5]} differ; use a new run folder")
        with torch.no_grad():
            for name, value in trained.items():
                value.copy_(tensors[name])

    def loss(
        self,
        hidden: Hidden,
        labels: Tensor,
        *,
        method: MethodConfig,
        teacher: Mapping[str, Tensor] | None = None,
        replayed: bool = False,
        stored: Tensor | None = None,
    ) -> Tensor:
        """Return cross-entropy, plus weighted distillation on the old classes, or from stored logits.

        Asymmetric, new examples compete with new classes alone (ER-ACE, Caccia et al. 2022, section 4): those of the
        phase, where theirs are those of a batch (a choice). `teacher` is what `tuned` returned before the phase,
        nothing in the first. `stored` are logits (B, C) of replayed exemplars in the order of `classes`.
        """
        logits, targets = self(hidden), self.targets(labels)
        first = len(self.classes) - self._new if method.asymmetric and not replayed else 0
        loss = cross_entropy(logits[:, first:], targets - first, label_smoothing=method.label_smoothing)
        if teacher and method.distill_weight > 0:
            with torch.no_grad():
                expected = functional_call(self, dict(teacher), (hidden,))
            old = distillation(logits[:, : expected.shape[1]], expected, temperature=method.temperature)
            loss = loss + method.distill_weight * old
        if stored is not None and method.dark_weight > 0:
            loss = loss + method.dark_weight * dark_knowledge(logits, stored)
        return loss

    @torch.no_grad()
    def row_losses(self, hidden: Hidden, labels: Tensor) -> Tensor:
        """Return the cross-entropy (B,) of examples, without gradient."""
        return cross_entropy(self(hidden), self.targets(labels), reduction="none")

    @torch.no_grad()
    def correct(self, features: Tensor, labels: Tensor) -> tuple[float, float]:
        """Scale and shift the logits of the newest classes, as fits examples best that were not trained on (BiC).

        Wu et al. 2019, equations 4 and 5, with the two numbers folded into weights and biases; they are returned.
        """
        old = len(self.classes) - self._new
        alpha, beta = bias_correction(self.logits(features), self.targets(labels).cpu(), old=old)
        self.weight[old:] *= alpha
        self.bias[old:] = alpha * self.bias[old:] + beta
        return alpha, beta

    def align(self) -> None:
        """Shorten the weights of the newest classes until their mean norm is that of the others (WA).

        Zhao et al. 2020, equations 7 to 9; biases stay. Shorter ones stay, too (a choice): WA is against a head that is
        biased to new classes, and one that has seen them for a few epochs, beside as many exemplars, is not.
        """
        norms, old = self.weight.detach().norm(dim=1), len(self.classes) - self._new
        if old and self._new and norms[old:].mean() > norms[:old].mean():
            with torch.no_grad():
                self.weight[old:] *= norms[:old].mean() / norms[old:].mean()


class ClassMeans:
    """Nearest class mean (iCaRL, Rebuffi et al. 2017, algorithm 1): the class whose mean feature is nearest.

    The means (C, D) are of L2-normalised features and are normalised again.
    """

    def __init__(self, classes: Sequence[int], means: Tensor) -> None:
        self.classes = tuple(classes)
        self.means = normalize(means, dim=-1)

    @classmethod
    def of(cls, features: Tensor, labels: Tensor) -> "ClassMeans":
        """Average L2-normalised features by class, the classes that are there."""
        rows = normalize(features, dim=-1)
        classes = sorted(set(labels.tolist()))
        means = [rows[labels == label].mean(0) for label in classes]
        return cls(classes, torch.stack(means) if means else features.new_zeros(0, features.shape[1]))

    def merged(self, other: "ClassMeans") -> "ClassMeans":
        """Add the means of other classes."""
        return ClassMeans((*self.classes, *other.classes), torch.cat([self.means, other.means]))

    def predict(self, features: Tensor) -> Tensor:
        """Return the nearest class of those that have a mean; -1 when there is no mean at all."""
        if not self.classes:
            return torch.full((len(features),), -1, dtype=torch.int64)
        nearest = (normalize(features, dim=-1) @ self.means.T).argmax(-1).cpu()
        return torch.tensor(self.classes)[nearest]
