"""Two processes that train together (DDP, gloo): one memory, equal shares without overlap, and rank 0 writes."""

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from exmem import ExemplarMemory, Schema, TokenSpec
from exmem.replay import replay_loader

RANKS, PHASES = 2, 3
SCHEMA = Schema({"features": TokenSpec(positions=1, shape=(32,), dtype="float32", codec="float16")})


def examples(phase, count):
    """Stand-ins for features of two new classes, (count, 1, 32), and their labels."""
    features = np.random.default_rng(phase).normal(size=(count, 1, 32)).astype(np.float32)
    return {"features": features}, np.arange(count) % 2 + 2 * phase


def train(rank, folder):
    # Under torchrun these come from the environment: dist.init_process_group("gloo"); rank = dist.get_rank()
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(32, 2 * PHASES + 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    place = Path(folder) / "memory"
    if rank == 0:
        memory = ExemplarMemory.create(place, schema=SCHEMA, max_bytes="100kB")
        memory.add_batch(*examples(0, 100))
        memory.commit()
    dist.barrier()  # all draw from what is committed now
    loader = replay_loader(place, batch=16, share=(rank, RANKS), seed=0)
    for phase in range(1, PHASES + 1):
        drawn = []
        for batch in loader:
            if rank == 0:
                memory.add_batch(*examples(phase, 20))  # drawn by nobody before it is committed
            loss = torch.nn.functional.cross_entropy(model(batch.tokens["features"].values[:, 0]), batch.labels)
            optimizer.zero_grad()
            loss.backward()  # all ranks have as many batches, so none waits for the other
            optimizer.step()
            drawn += batch.slots.tolist()
        if rank == 0:
            memory.commit()
        shares = [None] * RANKS
        dist.all_gather_object(shares, drawn)  # waits for all, as a barrier does
        if rank == 0:
            sizes, both = [len(share) for share in shares], set.intersection(*map(set, shares))
            print(f"phase {phase}: shares of {sizes}, {len(both)} in both; {len(memory)} exemplars are committed now")
    if rank == 0:
        memory.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        torch.multiprocessing.spawn(train, (name,), nprocs=RANKS)
