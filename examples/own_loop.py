"""The memory in a training loop of one's own: two phases, one strict budget, replay in whole batches."""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.selection import herding

digits = load_digits()
schema = Schema({"image": TokenSpec(positions=1, shape=(8, 8), dtype="uint8", codec="lossless")})
model = SGDClassifier(random_state=0)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "memory"
    with ExemplarMemory.create(path, schema=schema, max_bytes="40kB") as memory:
        for phase, classes in enumerate([range(5), range(5, 10)]):
            rows = np.flatnonzero(np.isin(digits.target, list(classes)))
            inputs, labels = digits.data[rows], digits.target[rows]
            if len(memory):
                old = memory.read(memory.slots)
                inputs = np.concatenate([inputs, old.tokens["image"].values.reshape(len(old), -1)])
                labels = np.concatenate([labels, old.labels])
            for _ in range(20):
                model.partial_fit(inputs, labels, classes=np.arange(10))
            for label in classes:
                own = np.flatnonzero(digits.target == label)
                best = own[herding(digits.data[own], count=40)]
                images = digits.images[best].astype(np.uint8)
                memory.add(
                    [
                        Exemplar({"image": TokenSet.dense(image[None])}, label=label, priority=-rank)
                        for rank, image in enumerate(images)
                    ]
                )
            memory.commit()
            seen = digits.target < 5 * (phase + 1)
            print(
                f"phase {phase}: accuracy {model.score(digits.data[seen], digits.target[seen]):.1%}, "
                f"{len(memory)} exemplars, {memory.used_bytes:,} of {memory.max_bytes:,} bytes"
            )
