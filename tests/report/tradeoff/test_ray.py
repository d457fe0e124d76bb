"""Jobs on a local Ray cluster of two nodes, and with a worker that is killed in the middle."""

import pytest

pytest.importorskip("ray", reason="the executor of --executor ray; pip install 'exmem[ray]'")

import ray
from ray.cluster_utils import Cluster

from exmem.report.tradeoff import Setup, Watcher
from exmem.report.tradeoff.on_ray import OnRay

pytestmark = [pytest.mark.slow, pytest.mark.kills, pytest.mark.filterwarnings("ignore::FutureWarning")]
pytestmark += [pytest.mark.timeout(900)]  # seven workers import torch, one after the other where cores are busy
OWN = {"scorer": {"deadly": "tests.report.tradeoff.parts.Deadly"}}


class Told(Watcher):
    def __init__(self):
        self.ended = []

    def finished(self, cell, outcome, left):
        self.ended.append((cell.recipe, outcome.state, outcome.reason))


@pytest.fixture(scope="module")
def cluster(cache):
    """Two nodes of a core each; their workers have the environment of this process."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture
def run(sweep, tmp_path, cluster):
    def go(**sections):
        made, told = sweep(**sections), Told()
        on_ray = OnRay(Setup(made.out, tmp_path, made.design.own, threads=1))
        assert on_ray.workers == 2
        return made.run(on_ray, watcher=told), told.ended

    return go


def test_cells_run_on_the_nodes_and_one_whose_worker_is_killed_is_begun_again(run, tmp_path):
    scorer = {"name": "deadly", "file": str(tmp_path / "deaths"), "times": 1}
    recipes = ["half_jpeg", "text", {"of": "masked", "name": "deadly", "scorer": scorer}]
    table, ended = run(recipes=recipes, own=OWN, kinds=["probe", "trainer"])
    assert sorted(ended) == sorted((recipe, "done", "") for recipe in ["half_jpeg", "text", "deadly"] * 2)
    assert (tmp_path / "deaths").read_text() == "x"
    assert len(table) == 3 * (1 + 3)


def test_a_job_whose_worker_is_killed_each_time_fails_alone(run, tmp_path):
    scorer = {"name": "deadly", "file": str(tmp_path / "deaths"), "times": 9}
    table, ended = run(recipes=["text", {"of": "masked", "name": "deadly", "scorer": scorer}], own=OWN)
    states = {recipe: (state, reason) for recipe, state, reason in ended}
    assert states["text"] == ("done", "")
    assert states["deadly"][0] == "failed"
    assert "the worker died 2 times" in states["deadly"][1]
    assert table["recipe"].tolist() == ["text"]
