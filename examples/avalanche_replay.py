"""Avalanche's Naive strategy with replay out of 30 kB on disk: MemoryBuffer in the place of ClassBalancedBuffer."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.supervised import Naive
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from exmem import ExemplarMemory
from exmem.integrations.avalanche import MemoryBuffer

EXEMPLARS = 200


def digits(rows):
    """Handwritten digits as a data set of images (3, 32, 32), uint8: what a transform makes of them is not stored."""
    images = torch.from_numpy(rows.images * 15).byte().repeat_interleave(4, 1).repeat_interleave(4, 2)
    data = TensorDataset(images[:, None].expand(-1, 3, -1, -1), torch.from_numpy(rows.target))
    data.targets = data.tensors[1]
    return data


def scaled(image):
    return image.float() / 255


def train(benchmark, plugins):
    """Learn five experiences of two classes each; the accuracy on all ten."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    options = {"train_mb_size": 32, "train_epochs": 5, "plugins": plugins, "evaluator": None}
    strategy = Naive(model=model, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), **options)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    images, labels = data.tensors
    with torch.no_grad():
        return float((model(scaled(images)).argmax(1) == labels).float().mean())


data = digits(load_digits())
benchmark = nc_benchmark(
    data, data, 5, task_labels=False, seed=0, train_transform=scaled, eval_transform=scaled, shuffle=False
)
print(f"without replay: {train(benchmark, []):.1%}")
with tempfile.TemporaryDirectory() as folder:
    place = Path(folder) / "memory"
    policy = MemoryBuffer(EXEMPLARS, max_bytes="30kB", place=place)  # both limits hold at every instant
    print(f"with replay: {train(benchmark, [ReplayPlugin(EXEMPLARS, storage_policy=policy)]):.1%}")
    policy.close()
    memory = ExemplarMemory.open(place)  # like any other
    print(f"{len(memory)} exemplars, {memory.used_bytes:,} of {memory.max_bytes:,} bytes on disk")
    print("by class:", np.bincount(memory.labels).tolist())
