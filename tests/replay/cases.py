"""A memory of forty exemplars that carry their number."""

import time

from exmem import ExemplarMemory
from tests.exemplars import exemplar, schema


def create(place, count=40, **options):
    """A memory, open for writing and committed, whose exemplars carry their number as `task`; three classes."""
    memory = ExemplarMemory.create(place, schema=schema("raw"), max_bytes="1MB", durable=False, **options)
    memory.add([numbered(number) for number in range(count)])
    memory.commit()
    return memory


def numbered(number):
    return exemplar(number, label=number % 3)


def tasks(batches):
    """Which exemplars came, by the number that each carries."""
    return [batch.extras["task"].tolist() for batch in batches]


def flat(lists):
    return [value for one in lists for value in one]


def note_worker(number):
    """A `worker_init_fn` that can be pickled."""
    assert number in {0, 1}


class SlowFlip:
    """An augmentation that draws and takes its time, so that workers are ahead of what is taken."""

    def __call__(self, batch, *, generator):
        import torch

        time.sleep(0.002)
        chosen = torch.rand(len(batch), generator=generator) < 0.5
        image = batch.tokens["image"]
        values = image.values.clone()
        values[chosen] = values[chosen].flip(3)
        return batch.with_tokens({"image": type(image)(values, image.positions, image.valid)})
