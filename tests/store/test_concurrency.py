"""One writer, many readers, in processes of their own."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from exmem import ExemplarMemory
from exmem.errors import LockedError
from exmem.store.objects.lock import FREE, LOCK_KEY, lock_document, parse_holder, this_process
from tests.exemplars import exemplar, folder_bytes, schema

HEAD = "import random, select, sys, time\nsys.path.insert(0, {root!r})\n"
READER = """
import numpy as np
from exmem import ExemplarMemory
from exmem.errors import StaleSnapshotError
from tests.exemplars import assert_same, exemplar
rng = random.Random({seed})
memory = ExemplarMemory.open({folder!r}, threads=1)
print("open", flush=True)
end, right, stale = time.monotonic() + {seconds}, 0, 0
last = end + 100  # on a machine that is busy with other things
while time.monotonic() < end or ((right <= 20 or not stale) and time.monotonic() < last):
    if not len(memory):
        memory.refresh()
        continue
    if rng.random() < 0.1:  # a snapshot of which nothing was read grows old
        memory.close()
        memory = ExemplarMemory.open({folder!r}, threads=1)
        time.sleep(0.05)
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
turns = 0
with ExemplarMemory.open({folder!r}, mode="r+", threads=1, durable=False) as memory:
    print("open", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:  # until it is closed
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
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", code], **pipes, text=True)


def opened(process):
    assert process.stdout.readline() == "open\n", process.communicate()
    return process


@pytest.mark.slow
def test_readers_read_right_or_are_told_to_refresh_while_a_writer_adds_and_evicts(tmp_path, request):
    readers, seconds = (request.config.getoption(name) for name in ("--readers", "--seconds"))
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=schema("lossless"), max_bytes="150kB", durable=False) as memory:
        memory.add([exemplar(seed, label=seed % 4) for seed in range(20)])
    writer = opened(start(request, WRITER, folder=str(folder)))
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


@pytest.fixture
def folder(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=schema("lossless"), max_bytes="150kB", durable=False) as memory:
        memory.add([exemplar(1)])
    return tmp_path / "m"


@pytest.mark.kills
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


def test_another_host_s_lock_needs_an_explicit_word(folder):
    lock = folder / LOCK_KEY
    elsewhere = this_process("")._replace(pid=1, host="elsewhere", since="2026-01-01T00:00:00Z")
    lock.write_bytes(lock_document(elsewhere))
    with pytest.raises(LockedError, match="process 1 on elsewhere since 2026-01-01"):
        ExemplarMemory.open(folder, mode="r+")
    assert parse_holder(lock.read_bytes()) == elsewhere
    assert len(ExemplarMemory.open(folder)) == 1
    with ExemplarMemory.open(folder, mode="r+", take_lock=True) as memory:
        memory.add([exemplar(3)])
    assert lock.read_bytes() == FREE
    ExemplarMemory.open(folder, mode="r+").close()


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
