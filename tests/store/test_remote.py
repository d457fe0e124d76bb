"""Any Zarr store: in memory, on an S3 server, through fsspec and obstore, inside icechunk; the budget is the same."""

import asyncio
import contextlib

import numpy as np
import pytest
import zarr.storage

from exmem import ExemplarMemory
from exmem.errors import LockedError
from exmem.memory.maintenance import check
from tests.exemplars import assert_same, exemplar, schema

BUDGET = 90_000
BUCKET = "exemplars"


@pytest.fixture(scope="module")
def server():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


KEYS = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}


def memory_store(server, name):
    return zarr.storage.MemoryStore()


def obstore_s3(server, name):
    import boto3
    from obstore.store import S3Store

    names = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=server, **names)
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=BUCKET)
    store = S3Store(BUCKET, prefix=name, endpoint=server, client_options={"allow_http": True}, **KEYS)
    return zarr.storage.ObjectStore(store)


def fsspec_store(server, name):
    return zarr.storage.FsspecStore.from_url(f"memory://{name}", storage_options={"asynchronous": True})


def icechunk_store(server, name):
    import icechunk

    return icechunk.Repository.create(icechunk.in_memory_storage()).writable_session("main").store


STORES = [memory_store, obstore_s3, fsspec_store, icechunk_store]


def stored_bytes(store):
    async def total():
        return sum([await store.getsize(key) async for key in store.list()])

    return asyncio.run(total())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("make", STORES, ids=lambda make: make.__name__)
def test_a_memory_lives_in_any_zarr_store_under_the_same_budget(server, make, request):
    store = make(server, request.node.name.replace("[", "-").strip("]"))
    given = {}
    with ExemplarMemory.create(store, schema=schema("patch_webp"), max_bytes=BUDGET) as memory:
        for start in range(0, 60, 12):
            new = [exemplar(seed, label=seed % 4, priority=-seed) for seed in range(start, start + 12)]
            report = memory.add(new)
            for slot in report.evicted.tolist():
                given.pop(slot)
            given |= {slot: one for slot, one in zip(report.slots.tolist(), new, strict=True) if slot >= 0}
            assert stored_bytes(store) <= BUDGET
            memory.commit()
            assert stored_bytes(store) <= BUDGET
        assert memory.used_bytes == stored_bytes(store)
        with pytest.raises(LockedError):
            ExemplarMemory.open(store, mode="r+")
    assert len(given) < 60, "the budget never mattered"
    memory = ExemplarMemory.open(store)
    assert memory.slots.tolist() == sorted(given)
    for found, slot in zip(memory.read(memory.slots), memory.slots.tolist(), strict=True):
        assert_same(found, given[slot])
    assert check(store) == []
    with ExemplarMemory.open(store, mode="r+") as writer:
        writer.evict(writer.slots[::2])
        writer.resize(60_000)
        assert stored_bytes(store) <= 60_000
    memory.refresh()
    assert memory.slots.tolist() == sorted(given)[1::2][: len(memory)]


def test_shards_of_a_batch_are_fetched_once_and_at_once_and_the_cache_is_bounded(monkeypatch):
    store = zarr.storage.MemoryStore()
    with ExemplarMemory.create(store, schema=schema("raw"), max_bytes="1MB") as memory:
        memory.add([exemplar(seed) for seed in range(60)])
    memory = ExemplarMemory.open(store)
    objects, batches = memory._store.reader._objects, []
    real = objects.views

    def views(keys):
        batches.append(list(keys))
        return real(keys)

    monkeypatch.setattr(objects, "views", views)
    monkeypatch.setattr("exmem.store.mapped._MOST_CACHED_BYTES", 40_000)
    batch = memory.read(memory.slots)
    assert len(batches) == 1
    assert len(set(batches[0])) == len(batches[0]) > 5
    for found, slot in zip(batch, memory.slots.tolist(), strict=True):
        assert_same(found, exemplar(slot))
    held = [len(shard.data) for shard in memory._store.reader.mapped._shards.values()]
    assert 0 < sum(held) <= 40_000
    np.testing.assert_array_equal(memory.read(memory.slots[:5]).labels, 0)
