"""A memory on S3: two writers exclude each other, a reader follows, a mirror fetches what is new."""

import logging
import tempfile
from pathlib import Path

import boto3
import numpy as np
from moto.server import ThreadedMotoServer
from obstore.store import S3Store
from zarr.storage import ObjectStore

from exmem import ExemplarMemory, Schema
from exmem.errors import LockedError
from exmem.store.mirror import mirror

SCHEMA = Schema.images(size=32, patch=8, codec="raw")


def examples(phase):
    """Stand-ins for 40 images as patches (40, 16, 8, 8, 3), and their classes."""
    rng = np.random.default_rng(phase)
    return {"image": rng.integers(0, 256, (40, 16, 8, 8, 3), np.uint8)}, np.arange(40) % 4 + 4 * phase


# A server on this machine stands in for S3. With a bucket of one's own go without it, `endpoint` and `client_options`;
# the keys then come from the environment, too.
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
endpoint = "http://{}:{}".format(*server.get_host_and_port())
names = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
boto3.client("s3", endpoint_url=endpoint, **names).create_bucket(Bucket="exemplars")

keys = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}
options = {"endpoint": endpoint, "client_options": {"allow_http": True}}
place = ObjectStore(S3Store("exemplars", prefix="run-1", **keys, **options))

with tempfile.TemporaryDirectory() as folder, ExemplarMemory.create(place, schema=SCHEMA, max_bytes="170kB") as memory:
    memory.add_batch(*examples(phase=0))
    memory.commit()  # a conditional put: it fails if another process has taken the lock
    print(f"on S3: {len(memory)} exemplars, {memory.used_bytes:,} of {memory.max_bytes:,} bytes")
    try:
        ExemplarMemory.open(place, mode="r+")
    except LockedError as error:
        print("a second writer is refused:", error)

    copy = Path(folder) / "copy"
    print(f"mirror: {mirror(place, copy)} objects fetched")
    reader = ExemplarMemory.open(place)  # as on another machine
    memory.add_batch(*examples(phase=1))
    memory.commit()
    print("a reader holds its snapshot, of classes", np.unique(reader.labels).tolist())
    reader.refresh()
    print("when it follows, each class has its share:", dict(enumerate(np.bincount(reader.labels).tolist())))

    print(f"mirror: {mirror(place, copy)} objects fetched, which are new")
    local = ExemplarMemory.open(copy).sample(8, seed=0)
    remote = reader.sample(8, seed=0)
    same = np.array_equal(local.tokens["image"].values, remote.tokens["image"].values)
    print("the copy draws the same batch:", same)
server.stop()
