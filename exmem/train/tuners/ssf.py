"""SSF (Lian et al. 2022, arXiv:2210.08823): scale and shift after each operation, as a tuner of peft.

Importing this module enters `SSF` among the types of peft, so that `get_peft_model`, `save_pretrained` and
`PeftModel.from_pretrained` know it.
"""

import dataclasses
from typing import Any, ClassVar

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from typing_extensions import override

from exmem.backbones import Backbone
from exmem.errors import SchemaError
from exmem.train.tuners.base import Tuner, adapted, names_of

__all__ = ["Ssf", "SsfConfig", "SsfLayer", "SsfModel"]

_TYPE, _PREFIX = "SSF", "ssf_"
_DEVIATION = 0.02  # of the initial values, in the authors' code and in the exemplar-masking paper's figure
_KINDS = (nn.Linear, nn.Conv2d, nn.LayerNorm)


@dataclasses.dataclass
class SsfConfig(PeftConfig):
    """Configuration of SSF: names of the modules after which it scales and shifts, linear, convolutional or norms."""

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = _TYPE


class SsfLayer(nn.Module, BaseTunerLayer):
    """A layer and what follows it: scale * y + shift, channel by channel."""

    adapter_layer_names = ("ssf_scale", "ssf_shift")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: SsfConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.ssf_scale = nn.ParameterDict()
        self.ssf_shift = nn.ParameterDict()
        self._active_adapter = adapter_name
        self.merged_adapters: list[str] = []
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: SsfConfig) -> None:
        """Add an adapter: scales from N(1, 0.02), shifts from N(0, 0.02)."""
        layer: Any = self.get_base_layer()
        for parameters, mean in ((self.ssf_scale, 1.0), (self.ssf_shift, 0.0)):
            values = torch.empty(len(layer.weight)).normal_(mean, _DEVIATION)  # on the CPU: the same on each device
            parameters[adapter_name] = nn.Parameter(values.to(layer.weight))
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @override
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        y: Tensor = self.base_layer(x, *args, **kwargs)
        if isinstance(self.get_base_layer(), nn.Conv2d):
            return self.after(y.movedim(-3, -1)).movedim(-1, -3)
        return self.after(y)

    def after(self, y: Tensor) -> Tensor:
        """Scale and shift what the layer made, channels last."""
        if self.disable_adapters or self.merged:
            return y
        for name in self.active_adapters:
            if name in self.ssf_scale:
                y = y * self.ssf_scale[name] + self.ssf_shift[name]
        return y

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Fold scales and shifts into the layer before them (Lian et al. 2022, section 3.2)."""
        for name in check_adapters_to_merge(self, adapter_names):
            if name in self.ssf_scale:
                self._fold(self.ssf_scale[name], self.ssf_shift[name], safe=safe_merge)
                self.merged_adapters.append(name)

    @torch.no_grad()
    def _fold(self, scale: Tensor, shift: Tensor, *, safe: bool) -> None:
        layer: Any = self.get_base_layer()
        weight = layer.weight * _by_row(scale, layer.weight)
        bias = shift.clone() if layer.bias is None else layer.bias * scale + shift
        if safe and not (weight.isfinite().all() and bias.isfinite().all()):
            raise SchemaError("SSF: what is folded is not finite; the adapter is damaged")
        layer.weight.copy_(weight)
        if layer.bias is None:
            layer.bias = nn.Parameter(bias, requires_grad=False)
        else:
            layer.bias.copy_(bias)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take back what was folded, to rounding; a bias that a layer had not stays, as zeros."""
        layer: Any = self.get_base_layer()
        while self.merged_adapters:
            name = self.merged_adapters.pop()
            layer.weight.div_(_by_row(self.ssf_scale[name], layer.weight))
            layer.bias.sub_(self.ssf_shift[name]).div_(self.ssf_scale[name])


def _by_row(scale: Tensor, weight: Tensor) -> Tensor:
    """Shape scales (D,) so that they go with the rows of a weight (D, ...)."""
    return scale.reshape(-1, *[1] * (weight.ndim - 1))


class SsfModel(BaseTuner):
    """A model with SSF after some of its layers."""

    prefix: str = _PREFIX
    tuner_layer_cls = SsfLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}  # type: ignore[misc]  # peft declares it per instance

    @override
    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        assert isinstance(peft_config, SsfConfig)
        if isinstance(target, SsfLayer):
            target.update_layer(adapter_name, peft_config)
            return
        if not isinstance(target, _KINDS):
            known = sorted(kind.__name__ for kind in _KINDS)
            raise SchemaError(f"SSF follows {known}, got {type(target).__name__} at {current_key}")
        layer = SsfLayer(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


# peft's own register_peft_method takes members of its enumeration of types only, which nobody can add to.
_KNOWN: tuple[tuple[dict[Any, Any], object], ...] = (
    (PEFT_TYPE_TO_CONFIG_MAPPING, SsfConfig),
    (PEFT_TYPE_TO_TUNER_MAPPING, SsfModel),
    (PEFT_TYPE_TO_PREFIX_MAPPING, _PREFIX),
)
for _mapping, _entry in _KNOWN:
    _mapping[_TYPE] = _entry


class Ssf(Tuner):
    """Scale and shift after all linear layers and norms of the tuned blocks, and after the final norm.

    Where all blocks are tuned, after the patch embedding too.
    """

    @override
    def __call__(self, backbone: Backbone) -> frozenset[str]:
        modules = [*backbone.trainable_blocks(), *backbone.final_norms()]
        if (projection := backbone.patch_projection()) is not None:
            modules.append(projection)
        return adapted(backbone, SsfConfig(target_modules=names_of(backbone, modules, _KINDS)), _PREFIX)
