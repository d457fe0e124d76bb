"""Two Ray nodes of one core each: in network namespaces of their own, or as processes of one."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
PORT, HEAD, OTHER = 6379, "10.211.0.1", "10.211.0.2"
_PATIENCE_S = 60


class Nodes(NamedTuple):
    """`before` is what a command of the first node begins with; `holds` says whether a process is of the second."""

    before: list[str]
    environment: dict[str, str]
    holds: Callable[[int], bool]
    kill_second: Callable[[], object]


def environment_of(cache: Path) -> dict[str, str]:
    """What every process is told: nothing is reported, nothing goes through a proxy."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = {"PYTHONPATH": paths, "EXMEM_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    soon = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "5"}  # a node is given up
    return {**os.environ, **own, **soon, "RAY_USAGE_STATS_ENABLED": "0", "NO_PROXY": "*", "no_proxy": "*"}


@contextlib.contextmanager
def namespaces() -> Iterator[list[str]]:
    """Two network namespaces joined by a pair of virtual cards; OSError where they cannot be had."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise OSError("network namespaces take root and the command `ip`")
    number = os.getpid()
    spaces, cards = [f"exmem-{number}-{side}" for side in "ab"], [f"ex{number}{side}" for side in "ab"]
    try:
        for space in spaces:
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
        _ip("link", "add", cards[0], "type", "veth", "peer", "name", cards[1])
        for space, card, address in zip(spaces, cards, [HEAD, OTHER], strict=True):
            _ip("link", "set", card, "netns", space)
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", card)
            _ip("-n", space, "link", "set", card, "up")
        yield spaces
    finally:
        for space in spaces:
            _end_all(space)
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", cards[0]], check=False, capture_output=True)  # if it was not moved yet


@contextlib.contextmanager
def in_namespaces(folder: Path) -> Iterator[Nodes]:
    """Nodes that reach each other, and nothing else, by the network."""
    environment = environment_of(folder / "cache") | {"RAY_ADDRESS": f"{HEAD}:{PORT}"}
    with namespaces() as (first, second), _short_folder() as temporary, (folder / "ray.log").open("w") as log:
        started: list[subprocess.Popen] = []
        head = ["--head", f"--node-ip-address={HEAD}", f"--port={PORT}", f"--temp-dir={temporary}"]
        head += ["--include-dashboard=false", "--disable-usage-stats"]
        try:
            for space, words in [(first, head), (second, [f"--address={HEAD}:{PORT}", f"--node-ip-address={OTHER}"])]:
                command = [*_within(space), str(RAY), "start", "--block", "--num-cpus=1", *words]
                command += ["--object-store-memory=100000000"]
                told = {key: text for key, text in environment.items() if key != "RAY_ADDRESS"}
                started.append(subprocess.Popen(command, env=told, stdout=log, stderr=log))
                _wait_for_nodes(first, environment, started, folder / "ray.log")
            yield Nodes(_within(first), environment, lambda pid: str(pid) in _pids(second), lambda: _end_all(second))
        finally:
            for space in (second, first):
                _end_all(space)
            for process in started:
                process.wait(_PATIENCE_S)


@contextlib.contextmanager
def in_one_place(folder: Path) -> Iterator[Nodes]:
    """Nodes as Ray's own tests make them: processes beside each other."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ.update(environment_of(folder / "cache"))  # what the workers have
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        other = cluster.add_node(num_cpus=1)
        raylet = other.all_processes["raylet"][0].process.pid
        yield Nodes(
            [],
            environment_of(folder / "cache") | {"RAY_ADDRESS": cluster.address},
            lambda pid: _parent(pid) == raylet,
            lambda: cluster.remove_node(other, allow_graceful=False),
        )
    finally:
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _short_folder() -> Iterator[Path]:
    """A folder whose name leaves room for those of sockets."""
    folder = Path("/tmp") / f"ray{os.getpid()}"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _within(space: str) -> list[str]:
    return ["ip", "netns", "exec", space]


def _wait_for_nodes(space: str, environment: dict[str, str], started: list[subprocess.Popen], log: Path) -> None:
    alive = "sum(node['Alive'] for node in ray.nodes())"
    code = f"import ray; ray.init(logging_level=50); raise SystemExit({alive} != {len(started)})"
    ends = time.monotonic() + _PATIENCE_S
    while subprocess.run(
        [*_within(space), sys.executable, "-c", code], env=environment, check=False, capture_output=True
    ).returncode:
        told = log.read_text()[-4000:]
        assert started[-1].poll() is None, told
        assert time.monotonic() < ends, told
        time.sleep(0.5)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _pids(space: str) -> list[str]:
    return subprocess.run(["ip", "netns", "pids", space], check=False, capture_output=True, text=True).stdout.split()


def _end_all(space: str) -> None:
    """Kill what runs in a namespace, as when a machine goes."""
    ends = time.monotonic() + _PATIENCE_S
    while (pids := _pids(space)) and time.monotonic() < ends:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.05)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
