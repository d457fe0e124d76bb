"""One writer, many readers, in processes of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from exmem import ExemplarMemory
from exmem.errors import LockedError
from tests.exemplars import exemplar, folder_bytes, schema

HEAD = "import random, sys, time\nsys.path.insert(0, {root!r})\n"
READER = """
import numpy as np
from exmem import ExemplarMemory
from exmem.errors import StaleSnapshotError
from tests.exemplars import assert_same, exemplar
rng = random.Random({seed})
memory = ExemplarMemory.open({folder!r}, threads=1)
print("open", flush=True)
end, right, stale = time.monotonic() + {seconds}, 0, 0
while time.monotonic() < end:
    if not len(memory):
        memory.refresh()
        continue
    slots = [int(slot) for slot in rng.choices(memory.slots.tolist(), k=4)]
    try:
        batch = memory.read(slots)
    except StaleSnapshotError:
        stale += 1
        memory.refresh()
        continue
    for found in batch:
        expected = exemplar(int(found.extras["task"]), label=found.label, priority=found.priority)
        assert_same(found, expected)
        right += 1
    if rng.random() < 0.05:
        memory.refresh()
print(right, stale)
"""
WRITER = """
from exmem import ExemplarMemory
from tests.exemplars import exemplar
rng = random.Random(7)
end, turns = time.monotonic() + {seconds}, 0
with ExemplarMemory.open({folder!r}, mode="r+", threads=1, durable=False) as memory:
    print("open", flush=True)
    while time.monotonic() < end:
        new = [exemplar(rng.randrange(100), label=rng.randrange(4), priority=float(turns)) for _ in range(4)]
        memory.add(new)
        memory.commit()
        if rng.random() < 0.3 and len(memory) > 8:
            memory.evict(rng.sample(memory.slots.tolist(), 4))
        turns += 1
print(turns)
"""


def start(request, script, **values):
    code = (HEAD + script).format(root=str(request.config.rootpath), **values)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def opened(process):
    assert process.stdout.readline() == "open\n", process.communicate()
    return process


def test_readers_read_right_or_are_told_to_refresh_while_a_writer_adds_and_evicts(tmp_path, request):
    readers, seconds = int(request.config.getoption("--readers")), float(request.config.getoption("--seconds"))
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=schema("lossless"), max_bytes="150kB", durable=False) as memory:
        memory.add([exemplar(seed, label=seed % 4) for seed in range(20)])
    writer = opened(start(request, WRITER, folder=str(folder), seconds=seconds + 2 + readers / 2))
    crowd = [start(request, READER, folder=str(folder), seed=seed, seconds=seconds) for seed in range(readers)]
    right = stale = 0
    for reader in crowd:
        told, errors = reader.communicate(timeout=seconds + 120)
        assert reader.returncode == 0, errors
        counts = told.split("\n")[1].split()
        right, stale = right + int(counts[0]), stale + int(counts[1])
    told, errors = writer.communicate(timeout=seconds + 120)
    assert writer.returncode == 0, errors
    assert int(told) > 10
    assert right > 20 * readers
    assert stale > 0, "no reader ever met an eviction: the test shows nothing"
    assert folder_bytes(folder) <= 150_000


HOLDER = """
from exmem import ExemplarMemory
memory = ExemplarMemory.open({folder!r}, mode="r+", threads=1)
print("open", flush=True)
time.sleep(600)
"""
RIVAL = """
from exmem import ExemplarMemory
from exmem.errors import LockedError
print("open", flush=True)
sys.stdin.readline()
try:
    memory = ExemplarMemory.open({folder!r}, mode="r+", threads=1)
except LockedError:
    print("refused", flush=True)
else:
    print("holds", flush=True)
    time.sleep(2)
"""


@pytest.fixture
def folder(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=schema("lossless"), max_bytes="150kB", durable=False) as memory:
        memory.add([exemplar(1)])
    return tmp_path / "m"


def test_a_second_writer_is_refused_until_the_first_dies_and_takes_over_then(request, folder):
    holder = opened(start(request, HOLDER, folder=str(folder)))
    with pytest.raises(LockedError, match=rf"process {holder.pid} on {socket.gethostname()}"):
        ExemplarMemory.open(folder, mode="r+")
    with pytest.raises(LockedError):
        ExemplarMemory.open(folder, mode="r+", take_lock=True)  # a living process of this host keeps it
    assert len(ExemplarMemory.open(folder)) == 1
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    with ExemplarMemory.open(folder, mode="r+") as memory:
        memory.add([exemplar(2)])
    assert len(ExemplarMemory.open(folder)) == 2


def test_of_many_rivals_for_a_dead_writer_s_lock_exactly_one_wins(request, folder):
    holder = opened(start(request, HOLDER, folder=str(folder)))
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    script = (HEAD + RIVAL).format(root=str(request.config.rootpath), folder=str(folder))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    rivals = [opened(subprocess.Popen([sys.executable, "-c", script], **pipes)) for _ in range(6)]
    for rival in rivals:
        rival.stdin.write("go\n")
        rival.stdin.flush()
    told = [rival.communicate(timeout=60)[0].strip() for rival in rivals]
    assert sorted(told) == ["holds"] + ["refused"] * 5


def test_another_host_s_lock_needs_an_explicit_word(folder):
    document = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    own = {"pid": 1, "host": "elsewhere", "process_start": "5", "since": "2026-01-01T00:00:00+00:00"}
    (folder / "lock").mkdir(exist_ok=True)
    (folder / "lock" / "zarr.json").write_text(json.dumps(document | {"attributes": {"exmem": own}}))
    with pytest.raises(LockedError, match="process 1 on elsewhere since 2026-01-01"):
        ExemplarMemory.open(folder, mode="r+")
    assert json.loads((folder / "lock" / "zarr.json").read_text())["attributes"]["exmem"]["host"] == "elsewhere"
    with ExemplarMemory.open(folder, mode="r+", take_lock=True) as memory:
        memory.add([exemplar(3)])
    assert not (folder / "lock" / "zarr.json").exists()


def test_forked_children_read_with_threads_of_their_own(folder):
    memory = ExemplarMemory.open(folder, threads=2)
    memory.read([0])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            memory.read([0, 0, 0])
            code = 0
        finally:
            os._exit(code)
    for _ in range(200):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    assert done, "the child hangs"
    assert status == 0
