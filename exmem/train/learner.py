"""The model that learns: a backbone tuned by LoRA, a linear head that grows, and nearest class means."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, kl_div, layer_norm, log_softmax, normalize, softmax

from exmem.backbones import Backbone, Hidden
from exmem.errors import DataError

__all__ = ["ClassMeans", "Learner", "distillation"]


class Learner(nn.Module):
    """A backbone with adapters and a linear head; everything else is frozen.

    Parameters
    ----------
    backbone : Backbone
        The backbone; LoRA is injected into its tuned blocks.
    rank : int
        Rank of LoRA.
    alpha : int
        Scale of LoRA.
    """

    def __init__(self, backbone: Backbone, *, rank: int, alpha: int) -> None:
        super().__init__()
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=backbone.lora_targets())
        inject_adapter_in_model(config, backbone)  # in place
        self.backbone = backbone
        extras = tuple(backbone.trainable_extras())
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_("lora_" in name or name.startswith(extras))
        self.classes: tuple[int, ...] = ()
        self.weight = nn.Parameter(torch.zeros(0, backbone.feature_dim))
        self.bias = nn.Parameter(torch.zeros(0))
        self.to(backbone.pixel_mean.device)

    def grow(self, classes: Sequence[int]) -> None:
        """Add outputs for new classes; those of old classes stay as they are, new ones start at zero.

        Parameters
        ----------
        classes : sequence of int
            New classes.
        """
        self.classes = (*self.classes, *classes)
        grown = self.weight.new_zeros(len(classes), self.weight.shape[1])
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), grown]))
        self.bias = nn.Parameter(torch.cat([self.bias.detach(), grown[:, 0]]))

    def features(self, hidden: Hidden) -> Tensor:
        """Return features for the classifiers.

        Parameters
        ----------
        hidden : Hidden
            A batch.

        Returns
        -------
        Tensor, shape (B, D)
            Features of the backbone, each scaled to mean 0 and variance 1 (a choice).
        """
        encoded = self.backbone.encode(hidden)
        return layer_norm(encoded, encoded.shape[-1:])

    def forward(self, hidden: Hidden) -> Tensor:
        """Return the logits of all classes seen.

        Parameters
        ----------
        hidden : Hidden
            A batch.

        Returns
        -------
        Tensor, shape (B, C)
            Logits, in the order of `classes`.
        """
        return self.features(hidden) @ self.weight.T + self.bias

    def logits(self, features: Tensor) -> Tensor:
        """Return logits of features that were measured before.

        Parameters
        ----------
        features : Tensor, shape (B, D)
            What `features` returned, on the CPU.

        Returns
        -------
        Tensor, shape (B, C)
            Logits, in the order of `classes`, without gradient.
        """
        return features @ self.weight.detach().cpu().T + self.bias.detach().cpu()

    def true_logits(self, encoded: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the logits of the true classes: what a gradient scorer explains.

        Parameters
        ----------
        encoded : Tensor, shape (B, D)
            What the backbone's `encode` returned.
        labels : Tensor, shape (B,), int64
            Classes that were seen.

        Returns
        -------
        Tensor, shape ()
            The sum.
        """
        logits = layer_norm(encoded, encoded.shape[-1:]) @ self.weight.T + self.bias
        return logits.gather(1, self.targets(labels)[:, None]).sum()

    def difficulty(self, features: Tensor, labels: Tensor) -> dict[str, NDArray[np.float32]]:
        """Measure how hard examples are.

        Parameters
        ----------
        features : Tensor, shape (N, D)
            Their features, on the CPU.
        labels : Tensor, shape (N,), int64
            Their classes.

        Returns
        -------
        dict of str to ndarray, shape (N,), float32
            `loss`, the cross-entropy, and `entropy` of the prediction.
        """
        log_p = log_softmax(self.logits(features), -1)
        loss = cross_entropy(log_p, self.targets(labels).cpu(), reduction="none")
        return {"loss": loss.numpy(), "entropy": -(log_p.exp() * log_p).sum(-1).numpy()}

    def targets(self, labels: Tensor) -> Tensor:
        """Turn classes into places among the outputs.

        Parameters
        ----------
        labels : Tensor, shape (B,), int64
            Classes that were seen.

        Returns
        -------
        Tensor, shape (B,), int64
            Their places.
        """
        places = {label: place for place, label in enumerate(self.classes)}
        return torch.tensor([places[label] for label in labels.tolist()], dtype=torch.int64, device=self.bias.device)

    def tuned(self) -> dict[str, Tensor]:
        """Return copies of what is trained, by name: all that a checkpoint needs beside the frozen weights."""
        return {name: value.detach().clone() for name, value in self.named_parameters() if value.requires_grad}

    def load(self, classes: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
        """Continue from a checkpoint.

        Parameters
        ----------
        classes : sequence of int
            Classes of its head.
        tensors : mapping of str to Tensor
            What `tuned` returned.

        Raises
        ------
        DataError
            If its names or shapes are not those of this learner.
        """
        self.classes = ()
        self.weight = nn.Parameter(self.weight.detach()[:0])
        self.bias = nn.Parameter(self.bias.detach()[:0])
        self.grow(classes)
        mine = {name: value for name, value in self.named_parameters() if value.requires_grad}
        wrong = sorted(set(mine) ^ set(tensors) or {n for n, value in mine.items() if value.shape != tensors[n].shape})
        if wrong:
            raise DataError(f"the checkpoint belongs to another model: {wrong[:5]} differ; use a new run folder")
        with torch.no_grad():
            for name, value in mine.items():
                value.copy_(tensors[name])

    def loss(
        self, hidden: Hidden, labels: Tensor, *, teacher: Mapping[str, Tensor], weight: float, temperature: float
    ) -> Tensor:
        """Return cross-entropy over all classes seen, plus distillation on the old ones.

        Parameters
        ----------
        hidden : Hidden
            New and replayed examples.
        labels : Tensor, shape (B,), int64
            Their classes.
        teacher : mapping of str to Tensor
            What `tuned` returned before the phase; empty in the first phase.
        weight : float
            Weight of the distillation.
        temperature : float
            Temperature of the distillation.

        Returns
        -------
        Tensor, shape ()
            The loss.
        """
        logits = self(hidden)
        loss = cross_entropy(logits, self.targets(labels))
        if teacher and weight > 0:
            with torch.no_grad():
                expected = functional_call(self, dict(teacher), (hidden,))
            loss = loss + weight * distillation(logits[:, : expected.shape[1]], expected, temperature=temperature)
        return loss


def distillation(logits: Tensor, expected: Tensor, *, temperature: float) -> Tensor:
    """Return how far predictions are from those of the model before (Hinton et al. 2015; Li & Hoiem 2016).

    Parameters
    ----------
    logits : Tensor, shape (B, C)
        Logits of the old classes now.
    expected : Tensor, shape (B, C)
        Logits before.
    temperature : float
        Both are divided by it; the result is multiplied by its square.

    Returns
    -------
    Tensor, shape ()
        Kullback-Leibler divergence, mean over the batch.
    """
    now, before = log_softmax(logits / temperature, -1), softmax(expected / temperature, -1)
    return kl_div(now, before, reduction="batchmean") * temperature**2


class ClassMeans:
    """Nearest class mean (iCaRL, Rebuffi et al. 2017, algorithm 1): the class whose mean feature is nearest.

    Parameters
    ----------
    classes : sequence of int
        Classes.
    means : Tensor, shape (C, D)
        Means of their L2-normalised features; normalised again here.
    """

    def __init__(self, classes: Sequence[int], means: Tensor) -> None:
        self.classes = tuple(classes)
        self.means = normalize(means, dim=-1)

    @classmethod
    def of(cls, features: Tensor, labels: Tensor) -> "ClassMeans":
        """Average features by class.

        Parameters
        ----------
        features : Tensor, shape (N, D)
            Features of exemplars.
        labels : Tensor, shape (N,), int64
            Their classes.

        Returns
        -------
        ClassMeans
            Means of the classes that are there.
        """
        rows = normalize(features, dim=-1)
        classes = sorted(set(labels.tolist()))
        means = [rows[labels == label].mean(0) for label in classes]
        return cls(classes, torch.stack(means) if means else features.new_zeros(0, features.shape[1]))

    def merged(self, other: "ClassMeans") -> "ClassMeans":
        """Add the classes of another set of means.

        Parameters
        ----------
        other : ClassMeans
            Means of other classes.

        Returns
        -------
        ClassMeans
            Both.
        """
        return ClassMeans((*self.classes, *other.classes), torch.cat([self.means, other.means]))

    def predict(self, features: Tensor) -> Tensor:
        """Return the nearest class; only classes that have a mean can be predicted.

        Parameters
        ----------
        features : Tensor, shape (B, D)
            Features.

        Returns
        -------
        Tensor, shape (B,), int64
            Classes; -1 when there is no mean at all.
        """
        if not self.classes:
            return torch.full((len(features),), -1, dtype=torch.int64)
        nearest = (normalize(features, dim=-1) @ self.means.T).argmax(-1).cpu()
        return torch.tensor(self.classes)[nearest]
