"""Worker processes: what they share, what becomes of a job whose worker dies, and what an interrupt leaves."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from exmem.report.tradeoff import Processes, Setup, Watcher
from exmem.report.tradeoff.executors import died
from exmem.report.tradeoff.work import jobs_of
from tests.cli.running import fork_command
from tests.report.tradeoff.cells import cell

OWN = {"scorer": {"deadly": "tests.report.tradeoff.parts.Deadly", "slow": "tests.report.tradeoff.parts.Slow"}}


class Told(Watcher):
    def __init__(self):
        self.texts, self.ended = [], []

    def told(self, title, text):
        self.texts.append(text)

    def finished(self, cell, outcome, left):
        self.ended.append((cell.recipe, outcome.state, outcome.reason))


def deadly(tmp_path, *, times, kind="masked"):
    return {
        "of": kind,
        "name": "deadly",
        "scorer": {"name": "deadly", "file": str(tmp_path / "deaths"), "times": times},
    }


def waited_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.05)


@pytest.fixture
def run(sweep, tmp_path):
    def go(number=1, **sections):
        made, told = sweep(**sections), Told()
        setup = Setup(made.out, tmp_path, made.design.own, threads=1)
        return made.run(Processes(setup, number), watcher=told), told

    return go


@pytest.mark.kills
def test_a_worker_that_dies_is_replaced_and_its_job_begun_once_more(run, tmp_path):
    recipes = [deadly(tmp_path, times=1), "half_jpeg"]
    table, told = run(recipes=recipes, own=OWN, budgets=["20kB", "30kB"])
    assert sorted(told.ended) == [("deadly", "done", "")] * 2 + [("half_jpeg", "done", "")] * 2
    assert told.texts.count("its worker died; begun once more") == 1
    assert len(table) == 4


@pytest.mark.kills
def test_a_job_whose_worker_dies_each_time_fails_alone(run, tmp_path):
    recipes = [deadly(tmp_path, times=5), "half_jpeg"]
    table, told = run(2, recipes=recipes, own=OWN, kinds=["trainer"])
    states = {recipe: (state, reason) for recipe, state, reason in told.ended}
    assert states["half_jpeg"] == ("done", "")
    assert states["deadly"][0] == "failed"
    assert states["deadly"][1].startswith("the worker died 2 times (exit code 9)")
    assert (tmp_path / "deaths").read_text() == "xx"
    assert table["recipe"].unique().tolist() == ["half_jpeg"]
    failure = next(tmp_path.glob("out/cells/*deadly*/failure.json"))
    assert "the worker died" in json.loads(failure.read_text())["reason"]


def test_jobs_of_a_group_follow_one_another_in_a_worker():
    setup = Setup(None, None, {}, threads=1)
    cells = [
        cell(keys=keys, recipe=name, seed=seed, config={**cell().config, "recipe": {"image": name}, "seed": seed})
        for name in "abc"
        for keys in (("one", "test"), ("two", "test"))
        for seed in (0, 1)  # are measured together
    ]
    jobs, pool = jobs_of(cells), Processes(setup, 2)
    assert len({job.group for job in jobs}) == 2
    order = [pool._next(jobs, None)]
    while len(order) < len(jobs):
        order.append(pool._next([job for job in jobs if job not in order], order[-1]))
    assert [job.cells[0].keys[0] for job in order] == ["one", "one", "one", "two", "two", "two"]
    assert {len(job.cells) for job in jobs} == {2}


def test_what_became_of_a_job_whose_worker_died_names_each_cell():
    job = jobs_of([cell(config={**cell().config, "max_bytes": size}) for size in ("1", "2")])[0]
    assert [outcome.state for outcome in died(job, "exit code -9")] == ["failed", "failed"]
    assert len({outcome.key for outcome in died(job, "exit code -9")}) == 2


@pytest.fixture
def command(config_file, cache, tmp_path):
    """A command in a process of its own, whose scorer waits until `goes_on` is there."""
    slow = {"name": "slow", "begun": str(tmp_path / "begun"), "goes_on": str(tmp_path / "goes_on")}
    recipes = ["half_jpeg", {"of": "masked", "name": "slow", "scorer": slow}]
    file = config_file(recipes=recipes, own=OWN, kinds=["trainer"])

    def start(said="said"):
        words = ["tradeoff", str(file), "--out", str(tmp_path / "out")]
        return fork_command(words, {"EXMEM_CACHE": str(cache)}, tmp_path / said)

    return start


@pytest.mark.kills
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_same_command_goes_on_after_a_kill_or_an_interrupt(command, tmp_path, number):
    process = command()
    waited_for((tmp_path / "begun").exists)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode in {-9, 130}
    worker = int((tmp_path / "begun").read_text())
    waited_for(lambda: not Path(f"/proc/{worker}").exists(), 20)  # it dies with the command, and its locks with it
    done = {file: file.stat().st_mtime_ns for file in tmp_path.glob("out/cells/*/result.json")}
    assert len(done) == 1
    if number == signal.SIGINT:
        assert "interrupted; run the same command again" in (tmp_path / "said").read_text()
        assert (tmp_path / "out" / "table.csv").exists()
    (tmp_path / "goes_on").touch()
    again = command("again")
    again.join(240)
    assert again.exitcode == 0, (tmp_path / "again").read_text()
    results = {file: file.stat().st_mtime_ns for file in tmp_path.glob("out/cells/*/result.json")}
    assert len(results) == 2
    assert results.items() >= done.items(), "what was done is not run again"


@pytest.mark.kills
def test_two_commands_at_once_run_no_cell_twice(command, tmp_path):
    first = command()
    waited_for((tmp_path / "begun").exists)
    second = command("second")
    second.join(240)
    said = (tmp_path / "second").read_text()
    assert second.exitcode == 0, said
    assert "slow, default, 20.0 kB, seed 0: another process runs it; left to it" in said
    (tmp_path / "goes_on").touch()
    first.join(240)
    assert first.exitcode == 0, (tmp_path / "said").read_text()
    assert len([*tmp_path.glob("out/cells/*/result.json")]) == 2
