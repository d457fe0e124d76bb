"""How many examples a second two processes learn from, against one: a thread each, on this machine.

    python -m bench.ranks

A phase of 512 examples in batches of 64, kept hidden tokens at 112 pixels and the last two blocks of the packaged
DINOv2-S beside texts, gradients added up by gloo; runs of one and of two processes in turn, medians of three. Where
other work shares the cores, two processes have less than twice of them.
"""

import json
import os
import subprocess
import sys
import time

import numpy as np
import torch

from exmem.backbones import load_backbone
from exmem.tokens.tensors import TensorBatch
from exmem.train.config import TrainConfig
from exmem.train.hidden import KeptHidden, embedded
from exmem.train.parts import make_learner
from exmem.train.phase import NewExamples, train_phase
from exmem.train.ranks import Ranks

_EXAMPLES, _TURNS = 512, 3


def learnt_per_second() -> float:
    """Examples a second of a phase, by the processes that this one belongs to."""
    torch.set_num_threads(1)
    ranks = Ranks.joined()
    config = TrainConfig.from_json({"recipe": "none", "loop": {"epochs": 1}, "backbone": {"image_size": 112}})
    torch.manual_seed(0)
    backbone = load_backbone("joint", image_size=112, trainable_blocks=2)
    learner = make_learner(config, backbone)
    learner.grow(range(8))
    images = np.random.default_rng(0).integers(0, 256, (64, 112, 112, 3), np.uint8)
    batch = TensorBatch.from_numpy(backbone.tokens(images, ["a red temple with a stone garden"] * 64))
    hidden = KeptHidden(embedded(backbone, lambda _: batch, np.arange(64)), ranks.device)
    rows = np.arange(_EXAMPLES)
    new = NewExamples(rows, rows % 8, lambda chosen: hidden(chosen % 64), None)
    ranks.wait()
    began = time.perf_counter()
    train_phase(learner, config, new, phase=0, teacher={}, held=None, ranks=ranks, report=lambda _: None)
    return _EXAMPLES / (time.perf_counter() - began)


def launched(processes: int) -> float:
    """The same of processes that are begun for it."""
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*words, "-m", "bench.ranks"], capture_output=True, text=True, check=True, env=environment)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    if "LOCAL_RANK" in os.environ:
        rate = learnt_per_second()
        if os.environ["RANK"] == "0":
            print(json.dumps(rate))
        return
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(_TURNS):
        for processes, found in rates.items():
            found.append(launched(processes))
    one, two = (float(np.median(found)) for found in rates.values())
    print(f"one process {one:.1f} examples a second, two {two:.1f}: {two / one:.2f} times as many")


if __name__ == "__main__":
    main()
