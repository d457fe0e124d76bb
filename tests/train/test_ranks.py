"""A run of several processes: the numbers of one, written by the first."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from exmem import ExemplarMemory
from exmem.errors import DataError
from exmem.memory.maintenance import check
from exmem.train.ranks import ALONE, Ranks
from tests.tiny import config_of

RECIPE = {"name": "masked", "image": "patches", "codec": "patch_jpeg:quality=75", "text": "lost_patches"}
RUNS = {  # recipe and options
    "masked": ({}, {"loop": {"augment": ["token_dropout"], "epochs": 2}}),
    "live": ({"scorer": "random", "fill": "zero"}, {"loop": {"keep_hidden": False, "augment": ["flip"]}}),
    "dark": (
        {"extras": ["logits"]},
        {
            "method": {"dark_weight": 0.5, "dark_update": True, "head": "linear"},
            "loop": {"candidates": 2, "clip_norm": 1.0, "accumulation": 2, "test_stored_form": True},
        },
    ),
    "corrected": ("raw", {"method": {"head": "linear", "corrected": 0.2}, "loop": {"ema": 0.5}, "max_bytes": "400kB"}),
    "trained codec": (
        {"image": "features", "codec": "pq:parts=8,centres=16", "text": "none"},
        {"tuner": {"phases": "first"}},
    ),
    "none": ("none", {"method": {"head": "slda"}}),
}


def launch(data_folder, models, out, config, *, processes):
    """Train in a folder of its own by so many processes."""
    words, environment = words_of(data_folder, models, out, config, processes=processes)
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300, env=environment)


def words_of(data_folder, models, out, config, *, processes):
    vision, text = map(str, models)
    document = config.to_json()
    document["backbone"] |= {"vision": vision, "text": text}
    file = out.parent / f"{out.name}.json"
    file.write_text(json.dumps(document))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    words += ["--master-port", f"{port}", "-m", "exmem", "train", str(data_folder)]
    words += ["--out", str(out), "--config", str(file)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "EXMEM_CACHE": str(out.parent / f"cache{processes}")}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    return words, environment


AT_THE_END = """import atexit, os

def tell():
    from torch import distributed

    with open(os.environ["TOLD"], "a") as file:
        file.write(f"{distributed.is_initialized()} ")

if "LOCAL_RANK" in os.environ:
    import torch.distributed  # so that this is told before what torch does at the end

    atexit.register(tell)
"""


def test_processes_have_parted_when_python_ends(tmp_path, data_folder, models, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(AT_THE_END)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    recipe, options = RUNS["none"]
    ended = launch(data_folder, models, tmp_path / "run", config_of(recipe, **options), processes=2)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert (tmp_path / "told").read_text() == "False False "


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", sorted(RUNS))
def test_two_processes_come_to_the_numbers_of_one(tmp_path, data_folder, models, whole_run, name):
    recipe, options = RUNS[name]
    _, expected = whole_run(recipe, **options)
    ended = launch(data_folder, models, tmp_path / "run", config_of(recipe, **options), processes=2)
    assert ended.returncode == 0, ended.stderr[-3000:]
    entries = metrics(tmp_path / "run")
    assert len(entries) == 3
    for one, two in zip(expected, entries, strict=True):
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-3), "float32, added up otherwise"
        for key in ("classes", "classes_without_exemplars", "head_bytes"):
            assert one[key] == two[key], key
        assert two["exemplars"] == pytest.approx(one["exemplars"], abs=1)  # near ties of what is ranked first
        for key in ("head", "ncm"):
            assert two[key]["all"] == pytest.approx(one[key]["all"], abs=0.1), "of 12 examples, one may tip"
    if recipe != "none":
        with ExemplarMemory.open(tmp_path / "run" / "memory") as memory:
            assert len(memory) == entries[-1]["exemplars"]
            assert memory.used_bytes <= memory.max_bytes
        assert check(tmp_path / "run" / "memory") == []
    lines = [line for line in ended.stdout.splitlines() if "phase 3 of 3" in line]
    assert len(lines) == 1, "the first process alone tells"


def test_a_run_of_two_that_was_killed_goes_on_by_one(tmp_path, data_folder, models, whole_run):
    _, expected = whole_run()
    words, environment = words_of(data_folder, models, tmp_path / "run", config_of(), processes=2)
    running = subprocess.Popen(words, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert running.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert len(metrics(tmp_path / "run")) < 3
    ended = launch(data_folder, models, tmp_path / "run", config_of(), processes=1)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for one, two in zip(expected, metrics(tmp_path / "run"), strict=True):
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-3)
        assert two["exemplars"] == pytest.approx(one["exemplars"], abs=1)


def test_what_the_first_process_cannot_do_ends_all_of_them_with_its_reason(tmp_path, data_folder, models):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    ended = launch(data_folder, models, tmp_path / "run", config_of(), processes=2)
    assert ended.returncode != 0
    assert len(re.findall(r"expected an empty folder or a run, found \['thesis.txt'\]", ended.stderr)) >= 1
    assert "Traceback" not in ended.stderr.partition("torch/distributed")[0]
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"


def test_one_process_has_all_pieces_and_results_in_order():
    rows = np.arange(10)
    assert [piece.tolist() for piece in ALONE.pieces(rows, 3)] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert [piece.tolist() for piece in ALONE.pieces(rows[:2], 3)] == [[0], [1]]
    assert ALONE.over(rows, 4, lambda chosen: chosen.tolist()) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert ALONE.first(lambda: 3) == 3
    assert ALONE.gathered("one") == ["one"]
    (value,) = ALONE.add_up([torch.nn.Parameter(torch.zeros(2))], torch.tensor(2.0))
    assert value == 2


class Torn:
    """An accelerator of two processes whose other one is gone."""

    num_processes, process_index, is_local_main_process, device = 2, 0, True, torch.device("cpu")

    def wait_for_everyone(self):
        raise RuntimeError("Connection closed by peer\n[127.0.0.1]:4")

    def reduce(self, values, reduction):
        self.wait_for_everyone()


def test_a_process_that_is_left_alone_says_so(monkeypatch):
    def gone(*_):
        Torn().wait_for_everyone()

    monkeypatch.setattr("accelerate.utils.gather_object", gone)
    monkeypatch.setattr("accelerate.utils.broadcast_object_list", gone)
    ranks, weight = Ranks(Torn()), torch.nn.Parameter(torch.zeros(2))
    for act in (ranks.wait, lambda: ranks.gathered(1), lambda: ranks.first(int), lambda: ranks.add_up([weight])):
        with pytest.raises(DataError, match=r"another process of this run has ended, .*closed by peer.*to go on"):
            act()


def test_an_error_of_the_work_itself_is_not_taken_for_a_lost_process(monkeypatch):
    monkeypatch.setattr("accelerate.utils.broadcast_object_list", lambda outcome: outcome)

    def act():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        Ranks(Torn()).first(act)
