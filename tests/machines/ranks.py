"""What the ranks of `test_object_store_ranks.py` do; `python -m torch.distributed.run` starts them."""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import obstore
import torch.distributed as dist
import zarr.storage
from obstore.store import S3Store

from exmem import ExemplarMemory
from exmem.errors import LockedError
from exmem.replay import replay_loader
from exmem.store.objects.conditional import ConditionalObjects
from tests.store.made import NUMBERS, numbered

BUCKET = "ranks"
FIRST, SECOND = range(48), range(48, 80)  # exemplars of two commits
DRAWS = {"batch": 4, "seed": 3}


def place(address: str, name: str) -> zarr.storage.ObjectStore:
    """A folder of the bucket."""
    keys = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}
    store = S3Store(BUCKET, prefix=name, endpoint=address, client_options={"allow_http": True}, **keys)
    return zarr.storage.ObjectStore(store)


def drawn(loader) -> list[list[list[int]]]:
    """The batches of a pass: slots, labels and values; values of an exemplar are all the same."""
    batches = []
    for batch in loader:
        values = batch.tokens["t"].values
        assert (values == values[:, :1]).all()
        batches.append([batch.slots.tolist(), batch.labels.tolist(), values[:, 0].tolist()])
    return batches


def refusal(store: zarr.storage.ObjectStore) -> str:
    """Why the memory cannot be opened for writing; empty where it can."""
    try:
        ExemplarMemory.open(store, mode="r+", threads=1).close()
    except LockedError as error:
        return str(error)
    return ""


def added(memory: ExemplarMemory, numbers: range) -> None:
    memory.add([numbered(number, label=number % 4) for number in numbers])


def follow(store: zarr.storage.ObjectStore, folder: Path, rank: int, ranks: int) -> dict:
    """Rank 0 writes in two phases; each rank draws its share after each of them, and the whole pass beside it."""
    writer = None
    if rank == 0:
        writer = ExemplarMemory.create(store, schema=NUMBERS, max_bytes="1MB", threads=1)
        added(writer, FIRST)
        writer.commit()
    dist.barrier()
    loader = replay_loader(store, share=(rank, ranks), **DRAWS)
    told = {"passes": [drawn(loader)], "whole": [drawn(replay_loader(store, **DRAWS))]}
    if rank == 0:
        added(writer, SECOND)
    else:
        told["refusal"] = refusal(store)
    dist.barrier()
    told["uncommitted"] = len(ExemplarMemory.open(store, threads=1))
    dist.barrier()
    if rank == 0:
        writer.commit()
    dist.barrier()
    told["passes"].append(drawn(loader))
    whole = replay_loader(store, **DRAWS)
    whole.set_epoch(1)
    told["whole"].append(drawn(whole))
    dist.barrier()
    if rank == 0:
        writer.close()
    dist.barrier()
    if rank != 0:
        told["refusal_afterwards"] = refusal(store)
    return told


def die(store: zarr.storage.ObjectStore, folder: Path) -> None:
    """Write, and be killed when the segments of a commit are there and the document is not."""
    writer = ExemplarMemory.create(store, schema=NUMBERS, max_bytes="1MB", threads=1)
    added(writer, FIRST)
    writer.commit()
    (folder / "writer").write_text(str(os.getpid()))
    dist.barrier()
    while not (folder / "reader").exists():
        time.sleep(0.01)
    ConditionalObjects.commit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    added(writer, SECOND)
    writer.commit()


def outlive(store: zarr.storage.ObjectStore, folder: Path, rank: int, ranks: int) -> dict:
    """Read while the writer lives, and when it is dead."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends all ranks when one dies
    dist.barrier()
    loader = replay_loader(store, **DRAWS)
    before = drawn(loader)
    (folder / "reader").touch()
    with contextlib.suppress(ProcessLookupError):  # torchrun waits for it, so it is no zombie for long
        while True:
            os.kill(int((folder / "writer").read_text()), 0)
            time.sleep(0.01)
    return {"before": before, "after": drawn(loader), "left": stored_bytes(store)}


def stored_bytes(store: zarr.storage.ObjectStore) -> int:
    return sum(meta["size"] for metas in obstore.list(store.store) for meta in metas)


def go_on(store: zarr.storage.ObjectStore, folder: Path, rank: int, ranks: int) -> dict:
    """Begin again: the next rank 0 writes what was lost, with others beside it."""
    told = {"found": len(ExemplarMemory.open(store, threads=1))}
    dist.barrier()
    if rank == 0:
        with ExemplarMemory.open(store, mode="r+", threads=1) as writer:
            told["left"] = stored_bytes(store)  # what the dead one had put is gone
            added(writer, SECOND)
    dist.barrier()
    return told | {"passes": [drawn(replay_loader(store, **DRAWS))]}


def main() -> None:
    task, address, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    store = place(address, folder.name)
    if task == "die" and rank == 0:
        die(store, folder)
        raise AssertionError("it was not killed")
    told = {"follow": follow, "die": outlive, "go_on": go_on}[task](store, folder, rank, ranks)
    (folder / f"{task}-{rank}.json").write_text(json.dumps(told))
    if task != "die":
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
