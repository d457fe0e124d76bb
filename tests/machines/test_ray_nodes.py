"""`exmem tradeoff --executor ray` on two nodes, one of which is killed in the middle."""

import contextlib
import importlib.util
import json
import subprocess
import sys
import time

import pytest

from tests.machines.nodes import ROOT, environment_of, in_namespaces, in_one_place, namespaces

pytestmark = [
    pytest.mark.proof,  # minutes: nodes start slowly, and one that is lost is given up late
    pytest.mark.kills,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="pip install 'exmem[ray]'"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning"),
]
_PATIENCE_S = 240
SLOW = ("slow_one", "slow_two")
MEASURED = ["kind", "data", "recipe", "method", "budget", "seed", "phase", "bytes", "exemplars", "average", "last"]


@pytest.fixture(params=["in_namespaces", "in_one_place"])
def nodes(request, tmp_path, in_full):
    """In namespaces where they can be had, else beside each other; the name of the test says which."""
    try:
        with namespaces():
            can = True
    except OSError as error:
        can = False
        if request.param == "in_namespaces":
            pytest.skip(f"network namespaces cannot be had: {error}")
    if can and request.param == "in_one_place" and not in_full:
        pytest.skip("it runs in network namespaces")
    with contextlib.ExitStack() as stack:
        make = {"in_namespaces": in_namespaces, "in_one_place": in_one_place}[request.param]
        yield stack.enter_context(make(tmp_path))


@pytest.fixture
def config(tmp_path):
    """Four recipes, two of which wait in the middle until they are told to go on."""
    from tests.tiny import SIDE, write_imagefolder, write_models

    vision, text = write_models(tmp_path / "models")
    waiting = {"name": "slow", "goes_on": str(tmp_path / "goes_on")}
    slow = [{"of": "masked", "name": name, "scorer": {**waiting, "begun": str(tmp_path / name)}} for name in SLOW]
    document = {
        "data": {"own": str(write_imagefolder(tmp_path / "data"))},
        "recipes": ["half_jpeg", "features", *slow],
        "budgets": ["20kB"],
        "own": {"scorer": {"slow": "tests.report.tradeoff.parts.Slow"}},
        "base": {
            "data": {"first_classes": 2, "increments": [1]},
            "backbone": {"vision": str(vision), "text": str(text), "image_size": SIDE, "max_text": 8},
            "tuner": {"blocks": 1, "rank": 2},
            "loop": {"epochs": 1, "batch": 8, "replay_batch": 8},
        },
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps(document))
    return file


def command(config, out, *words):
    return [sys.executable, "-m", "exmem", "tradeoff", str(config), "--out", str(out), *words]


def measured(out):
    import pandas as pd

    table = pd.read_csv(out / "table.csv")
    return table[MEASURED].sort_values(MEASURED[:7]).to_dict("records")


def wait_until(true, process, log):
    ends = time.monotonic() + _PATIENCE_S
    while not true():
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < ends, log.read_text()[-4000:]
        time.sleep(0.05)


def test_all_cells_are_done_and_right_when_one_of_two_nodes_is_killed_in_the_middle(nodes, config, tmp_path):
    log, begun = tmp_path / "log", [tmp_path / name for name in SLOW]
    words = [*nodes.before, *command(config, tmp_path / "ray", "--executor", "ray")]
    with log.open("w") as output:
        process = subprocess.Popen(words, env=nodes.environment, cwd=ROOT, stdout=output, stderr=output)
    with process:
        try:
            wait_until(lambda: all(file.exists() and file.read_text() for file in begun), process, log)
            pids = [int(file.read_text()) for file in begun]
            there = [nodes.holds(pid) for pid in pids]
            assert sorted(there) == [False, True], "each node has one of the two"
            nodes.kill_second()
            (tmp_path / "goes_on").touch()
            code = process.wait(_PATIENCE_S)
        finally:
            process.kill()
    assert code == 0, log.read_text()[-4000:]
    again = int(begun[there.index(True)].read_text())
    assert again != pids[there.index(True)], "what the dead node did was begun once more"
    alone = command(config, tmp_path / "alone")
    subprocess.run(
        alone, env=environment_of(tmp_path / "cache"), cwd=ROOT, check=True, capture_output=True, timeout=_PATIENCE_S
    )
    assert len(measured(tmp_path / "alone")) == 4
    assert measured(tmp_path / "ray") == measured(tmp_path / "alone")
