"""A memory on an S3 server, written by rank 0 and read by the ranks that torchrun started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from exmem import ExemplarMemory
from tests.store.made import NUMBERS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
RANKS = Path(__file__).with_name("ranks.py")
BUCKET, FIRST, ALL = "ranks", 48, 80  # as in ranks.py, which needs torch


@pytest.fixture(scope="module")
def server():
    """A process of its own; the ranks would wait for a thread of this one."""
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


_PATIENCE_S = 120
_SERVER = f"""
import threading, boto3
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
address = "http://%s:%d" % server.get_host_and_port()
names = dict(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
boto3.client("s3", endpoint_url=address, **names).create_bucket(Bucket={BUCKET!r})
print(address, flush=True)
threading.Event().wait()
"""


@pytest.fixture
def torchrun(server, tmp_path):
    """Run two ranks; what they told, by rank."""

    def run(task, *, killed=False):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        variables = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        words = [*command, str(RANKS), task, server, str(tmp_path)]
        log = tmp_path / "log"
        with log.open("w") as output, subprocess.Popen(words, env=variables, stderr=output) as process:
            try:
                code = process.wait(_PATIENCE_S)
            finally:
                process.terminate()  # it ends its ranks
        assert (code != 0) == killed, log.read_text()[-6000:]
        paths = [tmp_path / f"{task}-{rank}.json" for rank in range(2)]
        return [json.loads(path.read_text()) if path.exists() else None for path in paths]

    return run


def slots_of(batches):
    return [slot for slots, _, _ in batches for slot in slots]


def assert_right(batches):
    """Exemplar n has the values 100 + n and the class n % 4, and is in slot n."""
    for slots, labels, values in batches:
        assert values == [100 + slot for slot in slots]
        assert labels == [slot % 4 for slot in slots]


def test_ranks_read_disjoint_shares_of_one_pass_and_follow_what_rank_0_commits(torchrun):
    zero, one = torchrun("follow")
    assert zero["uncommitted"] == one["uncommitted"] == FIRST
    for number, held in enumerate([FIRST, ALL]):
        shares, whole = [zero["passes"][number], one["passes"][number]], zero["whole"][number]
        assert whole == one["whole"][number]
        assert_right([*shares[0], *shares[1]])
        assert [len(slots) for slots, _, _ in shares[0]] == [len(slots) for slots, _, _ in shares[1]]
        assert sorted(slots_of(shares[0]) + slots_of(shares[1])) == list(range(held)), "disjoint, and all"
        assert slots_of(whole)[0::2] == slots_of(shares[0])
        assert slots_of(whole)[1::2] == slots_of(shares[1])
    assert "is open for writing by process" in one["refusal"]
    assert one["refusal_afterwards"] == "", "the writer has closed it"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_workers_of_a_loader_read_the_store_although_its_client_does_not_survive_a_fork(server):
    from tests.machines import ranks

    store = ranks.place(server, "workers")
    with ExemplarMemory.create(store, schema=NUMBERS, max_bytes="1MB", threads=1) as memory:
        ranks.added(memory, ranks.FIRST)
    batches = ranks.drawn(ranks.replay_loader(store, **ranks.DRAWS, num_workers=2, timeout=120))
    assert_right(batches)
    assert sorted(slots_of(batches)) == list(range(FIRST))


@pytest.mark.kills
def test_ranks_read_what_was_committed_when_rank_0_is_killed_in_a_commit_and_the_next_one_goes_on(torchrun):
    writer, reader = torchrun("die", killed=True)
    assert writer is None
    assert_right([*reader["before"], *reader["after"]])
    assert sorted(slots_of(reader["before"])) == sorted(slots_of(reader["after"])) == list(range(FIRST))
    zero, one = torchrun("go_on")
    assert zero["found"] == one["found"] == FIRST
    assert zero["left"] < reader["left"], "what the dead writer had put beside the committed state is gone"
    for rank in (zero, one):
        assert_right(rank["passes"][0])
        assert sorted(slots_of(rank["passes"][0])) == list(range(ALL))
