"""Masked exemplars in a training loop of one's own: a CNN, two phases of digits, one strict budget of bytes."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from exmem.recipes import BoundRecipe, PlainImages, Recipe
from exmem.replay import replay_loader
from exmem.selection import herding

torch.manual_seed(0)
digits = load_digits()
pixels = (digits.images * 15).astype(np.uint8).repeat(4, 1).repeat(4, 2)
images, labels = np.stack([pixels] * 3, -1), torch.from_numpy(digits.target)  # (N, 32, 32, 3)
as_input = torch.from_numpy(images).permute(0, 3, 1, 2)
trunk = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten())
model = nn.Sequential(trunk, nn.Linear(32 * 36, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

recipe = Recipe.of("masked").refined(scorer="centre", keep="keep_ratio:ratio=0.5", fill="mean")
bound = BoundRecipe(recipe, PlainImages(size=32, patch=8))

with tempfile.TemporaryDirectory() as folder, bound.create_memory(Path(folder) / "m", max_bytes="60kB") as memory:
    for phase, classes in enumerate([range(5), range(5, 10)]):
        new = np.flatnonzero(np.isin(digits.target, list(classes)))
        replayed = iter(replay_loader(memory, batch=32, sampler="balanced", endless=True)) if len(memory) else None
        for step in range(150):
            chosen = np.random.default_rng([phase, step]).choice(new, 32)
            inputs, targets = as_input[chosen], labels[chosen]
            if replayed:
                old = next(replayed)
                inputs, targets = torch.cat([inputs, old.images()]), torch.cat([targets, old.labels])
            loss = nn.functional.cross_entropy(model(inputs / 255), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        features = trunk(as_input[new] / 255).detach().numpy()
        for label in classes:
            best = new[digits.target[new] == label][herding(features[digits.target[new] == label], count=40)]
            memory.add(bound.make(images[best], None, digits.target[best], priorities=-np.arange(len(best))))
        memory.commit()
        with torch.no_grad():
            right = model(as_input / 255).argmax(1) == labels
        by_phase = ", ".join(f"{right[labels // 5 == past].float().mean():.1%}" for past in range(phase + 1))
        used = f"{len(memory)} exemplars, {memory.used_bytes:,} of {memory.max_bytes:,} bytes"
        print(f"phase {phase}: right of the digits of each phase: {by_phase}; {used}")
