"""Replay in a loop of one's own, and the trainer."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sample.own_parts import bound
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from exmem import ExemplarMemory
from exmem.integrations.phases import PhaseReplay
from exmem.recipes import Recipe
from exmem.replay import ReplayBatch, ReplayDataset, replay_loader
from exmem.train.config import BackboneConfig, DataConfig, LoopConfig, MethodConfig, TrainConfig
from exmem.train.data import ImageText, load_data
from exmem.train.metrics import average_incremental_accuracy, forgetting
from exmem.train.predictor import Predictor


def learn(model: nn.Module, place: Path) -> float:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    total = 0.0
    for batch in replay_loader(place, batch=8, sampler="balanced", num_workers=0, seed=0):
        assert isinstance(batch, ReplayBatch)
        images: Tensor = batch.images(fill="mean")
        loss = nn.functional.cross_entropy(model(images.float()), batch.labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # of torch
        optimizer.step()  # pyright: ignore[reportUnknownMemberType]  # of torch
        total += loss.item()
    return total


def beside(place: Path, new: Dataset[tuple[Any, ...]]) -> ConcatDataset[tuple[Any, ...]]:
    return ConcatDataset([ReplayDataset(place), new])


def store(place: Path, images: NDArray[np.uint8], labels: list[int]) -> ExemplarMemory:
    recipe = bound()
    memory = recipe.create_memory(place, max_bytes="1MB")
    memory.add(recipe.make(images, [""] * len(labels), labels))
    memory.commit()
    return memory


def phases(memory: ExemplarMemory, rows: list[dict[str, object]], loader: DataLoader[object]) -> None:
    replay = PhaseReplay(memory, rows, phase=0).into(loader)
    replay.add()


def config() -> TrainConfig:
    made = TrainConfig(
        recipe=Recipe.of("features"),
        max_bytes="250kB",
        data=DataConfig(first_classes=6, increments=(4,)),
        backbone=BackboneConfig(family="vit", vision="folder", image_size=112),
        method=MethodConfig(distill_weight=0.0),
        loop=LoopConfig(epochs=1),
    )
    return TrainConfig.from_json(made.to_json())


def measured(run: Path, data: Path, per_phase: list[float], by_phase: list[list[float]]) -> list[float]:
    test: ImageText = load_data(data)[1]
    predicted: NDArray[np.int64] = Predictor(run).predict(test)
    right = [int(one) == int(other) for one, other in zip(predicted, test.labels, strict=True)]
    return [sum(right) / len(right), average_incremental_accuracy(per_phase), forgetting(by_phase)]
