"""The contract of tuners: which weights of a backbone move."""

from collections.abc import Iterable
from typing import Any, Protocol

from peft import PeftConfig, inject_adapter_in_model
from torch import nn

from exmem.backbones import Backbone

__all__ = ["Tuner", "adapted", "names_of"]


class Tuner(Protocol):
    """Prepares a fresh backbone, in place, and says which of its parameters move.

    It touches nothing below the tuned blocks: what is stored of the frozen trunk stays what the trunk makes.
    """

    def __call__(self, backbone: Backbone) -> frozenset[str]:
        """Put adapters in, and return the names of the parameters that move."""
        ...


def adapted(backbone: Backbone, config: PeftConfig, prefix: str) -> frozenset[str]:
    """Inject adapters of peft, whose parameters have this prefix in their names."""
    inject_adapter_in_model(config, backbone)
    return frozenset(name for name, _ in backbone.named_parameters() if prefix in name)


def names_of(backbone: Backbone, modules: Iterable[nn.Module], kinds: "type[Any] | tuple[type[Any], ...]") -> list[str]:
    """Return the names of all modules of some kinds that are, or lie in, these."""
    wanted = {id(inner) for module in modules for inner in module.modules() if isinstance(inner, kinds)}
    return [name for name, module in backbone.named_modules() if id(module) in wanted]
