"""TorchRL's compiled part, which the segment trees of priorities are in: its wheel fits one version of torch only.

EXMEM_TORCHRL_EXTENSION may name one that was compiled for the torch that is there, of `torchrl/csrc`: pybind.cpp and
utils.cpp by `g++ -std=c++20 -shared -fPIC -DTORCH_EXTENSION_NAME=_torchrl`, against torch's headers and libraries.
"""

import importlib.util
import os
import sys

import torch  # its libraries have to be there before

__all__ = ["has_trees"]

_PATH = os.environ.get("EXMEM_TORCHRL_EXTENSION")
_NAME = "torchrl._torchrl"

if _PATH and _NAME not in sys.modules:
    _spec = importlib.util.spec_from_file_location(_NAME, _PATH)
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules[_NAME] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_NAME])


def has_trees() -> bool:
    """Whether a PrioritizedSampler can be made."""
    from torchrl.data.replay_buffers.samplers import prioritized

    return torch is not None and prioritized.SumSegmentTreeFp32 is not None
