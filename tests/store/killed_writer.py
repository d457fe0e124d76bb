"""A process that changes a memory at random until it is killed."""

import random

from exmem import ExemplarMemory
from tests.exemplars import exemplar

POOL = [exemplar(seed, label=seed % 4) for seed in range(60)]  # made once, before the processes fork


def write_until_killed(folder: str, seed: int, budget: int, opened) -> None:
    rng = random.Random(seed)
    memory = ExemplarMemory.open(folder, mode="r+", threads=1)
    opened.set()
    while True:
        kind = rng.random()
        if kind < 0.6:
            memory.add([rng.choice(POOL) for _ in range(rng.randrange(1, 6))])
            if rng.random() < 0.8:
                memory.commit()
            else:
                memory.discard()
        elif kind < 0.75 and len(memory):
            memory.evict(rng.sample(memory.slots.tolist(), min(3, len(memory))))
        elif kind < 0.85 and len(memory):
            memory.update(rng.sample(memory.slots.tolist(), min(3, len(memory))), priority=rng.random())
        elif kind < 0.9:
            memory.compact()
        else:
            memory.weigh({rng.randrange(200): rng.choice([0.5, 1, 3])})
            memory.resize(rng.choice([40_000, 50_000, budget]))
