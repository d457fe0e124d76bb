"""`python -m tests.integrations.peers.mammoth_checkpoint MODE`: save and load by mammoth's functions, and compare."""

import sys
from argparse import Namespace
from types import MethodType
from typing import Any

import torch

from tests.integrations.peers.mammoth_peer import prepared


def _filled(buffer: Any, count: int) -> Any:
    generator = torch.Generator().manual_seed(0)
    for start in range(0, count, 10):
        images = torch.randint(0, 256, (10, 3, 32, 32), generator=generator, dtype=torch.uint8).float().div(255)
        buffer.add_data(images, torch.arange(start, start + 10) % 7, torch.randn(10, 4, generator=generator))
    return buffer


def main(mode: str) -> None:
    """Save a model whose buffer holds 10 of 100, and one that saw 500, and load them into others."""
    kept = prepared()
    from models.utils.continual_model import ContinualModel
    from utils.checkpoints import mammoth_load_checkpoint, save_mammoth_checkpoint

    for count in (10, 500):
        arguments = Namespace(
            buffer_size=100, save_checkpoint_mode=mode, savecheck="last", model="er", distributed="no"
        )
        model, other = (torch.nn.Linear(2, 2) for _ in range(2))
        for one in (model, other):
            one.args, one.net, one.buffer, one.device = arguments, torch.nn.Identity(), kept(100), "cpu"
            one.load_buffer = MethodType(ContinualModel.load_buffer, one)
        expected = _filled(model.buffer, count)
        save_mammoth_checkpoint(0, 1, arguments, model, results=[], checkpoint_name=f"checkpoint_{count}")
        if mode == "safe":
            saved = torch.load(f"checkpoint_{count}.pt", weights_only=True)["buffer"]
            assert {"examples", "labels", "logits"} < set(saved)
            assert len(saved["examples"]) == 100
            mammoth_load_checkpoint(f"checkpoint_{count}.pt", other, args=arguments)
        else:  # which mammoth_load_checkpoint cannot read: it loads weights only
            other.load_buffer(torch.load(f"checkpoint_{count}.pt", weights_only=False)["buffer"])
        assert len(other.buffer) == min(count, 100)
        assert other.buffer.num_seen_examples == count
        for one, two in zip(expected.get_all_data(), other.buffer.get_all_data(), strict=True):
            assert torch.equal(one, two)
        for one, two in zip(
            _filled(expected, 600).get_all_data(), _filled(other.buffer, 600).get_all_data(), strict=True
        ):
            assert torch.equal(one, two)


if __name__ == "__main__":
    main(sys.argv[1])
