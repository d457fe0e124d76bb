"""Parts of the trainer: scenario, metrics, run folder, ranking, progress."""

import errno
import io
import json
import math
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from exmem.errors import DataError, LockedError, SchemaError
from exmem.recipes import Recipe
from exmem.registry import Part
from exmem.selection import SELECTIONS
from exmem.train.config import DataConfig, LoopConfig, TrainConfig
from exmem.train.folder import RunFolder
from exmem.train.metrics import accuracies, average_incremental_accuracy, backward_transfer, forgetting, last_accuracy
from exmem.train.progress import RunProgress
from exmem.train.scenario import Scenario
from exmem.train.storing import rank_examples
from tests.tiny import start


def test_an_uneven_split_gives_each_class_once():
    scenario = Scenario.split(22, first=6, increments=[5, 3], seed=1)
    assert [len(phase) for phase in scenario.phases] == [6, 5, 3, 3, 3, 2]
    assert sorted(scenario.seen(5)) == list(range(22))
    assert scenario == Scenario.split(22, first=6, increments=[5, 3], seed=1)
    assert scenario != Scenario.split(22, first=6, increments=[5, 3], seed=2)


@pytest.mark.parametrize(("first", "increments"), [(23, [1]), (0, [1]), (20, [1, 1, 5])])
def test_a_split_that_does_not_fit_is_refused(first, increments):
    with pytest.raises(SchemaError, match="classes"):
        Scenario.split(22, first=first, increments=increments, seed=0)


def test_a_class_must_not_come_twice():
    with pytest.raises(SchemaError, match="two phases"):
        Scenario(((0, 1), (1,)))


def test_accuracies_worked_by_hand():
    scenario = Scenario(((0, 1), (2,)))
    found = accuracies(np.array([0, 0, 2, 1]), np.array([0, 1, 2, 2]), scenario, 1)
    assert found == {"all": 0.5, "by_phase": [0.5, 0.5]}
    rows = [[0.9], [0.5, 0.8], [0.6, 0.7, 1.0]]
    assert forgetting(rows) == pytest.approx(0.2)
    assert backward_transfer(rows) == pytest.approx(-0.2)
    assert forgetting([[0.9]]) == 0
    assert average_incremental_accuracy([0.9, 0.6]) == pytest.approx(0.75)
    assert last_accuracy([0.9, 0.6]) == 0.6
    nothing = accuracies(np.zeros(0, np.int64), np.zeros(0, np.int64), scenario, 0)
    assert math.isnan(nothing["all"])
    assert forgetting([[math.nan], [math.nan, 0.8], [math.nan, 0.7, 1.0]]) == pytest.approx(0.1)


def test_the_first_phase_is_as_large_as_an_increment_unless_it_is_given():
    sizes = {
        (first, increments): [
            len(phase)
            for phase in Scenario.of(DataConfig(first_classes=first, increments=increments), "abcdefg").phases
        ]
        for first, increments in ((None, (3,)), (None, (10,)), (4, (2,)), (None, (1, 2)))
    }
    assert sizes == {(None, (3,)): [3, 3, 1], (None, (10,)): [7], (4, (2,)): [4, 2, 1], (None, (1, 2)): [1, 1, 2, 2, 1]}
    with pytest.raises(SchemaError, match=r"first_classes must be in 1\.\.7"):
        Scenario.of(DataConfig(first_classes=10), "abcdefg")


def test_a_run_folder_keeps_metrics_notes_and_the_last_two_checkpoints(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.metrics() == []
    assert folder.checkpoint(0) is None
    folder.add_metrics({"phase": 0, "linear": {"all": math.nan, "by_phase": [0.5, math.nan]}})
    folder.add_metrics({"phase": 1, "linear": {"all": 0.25, "by_phase": []}})
    text = folder.metrics_file.read_text()
    assert "NaN" not in text
    assert len(text.splitlines()) == 2
    found = folder.metrics()
    assert math.isnan(found[0]["linear"]["all"])
    assert math.isnan(found[0]["linear"]["by_phase"][1])
    assert found[1] == {"phase": 1, "linear": {"all": 0.25, "by_phase": []}}
    for phase in range(3):
        folder.save_checkpoint(phase, {"weight": torch.full((2,), float(phase))})
    assert folder.checkpoint(0) is None
    assert folder.checkpoint(1)["weight"].tolist() == [1.0, 1.0]
    folder.save_note(1, "plan", {"rows": [3, 1]})
    assert folder.note(1, "plan") == {"rows": [3, 1]}
    assert folder.note(2, "plan") is None
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_an_error_of_the_system_where_tensors_are_saved(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "means.safetensors.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as told:
        RunFolder(tmp_path).save_tensors(tmp_path / "state" / "means.safetensors", {"a": torch.zeros(3)})
    assert told.value.errno == errno.ENOSPC
    assert not (tmp_path / "state" / "means.safetensors").exists()


def test_a_folder_with_other_things_is_not_taken(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"photo\.jpg"):
        RunFolder(tmp_path).claim(TrainConfig(), {})
    (tmp_path / "photo.jpg").rename(tmp_path / "run.json")
    with pytest.raises(DataError, match=r"run\.json: expected JSON"):
        RunFolder(tmp_path).claim(TrainConfig(), {})
    (tmp_path / "run.json").write_text('{"mine": 1}')
    with pytest.raises(DataError, match=r"expected an empty folder or a run, found \['run.json'\]"):
        RunFolder(tmp_path).claim(TrainConfig(), {})
    assert (tmp_path / "run.json").read_text() == '{"mine": 1}'


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.claim(TrainConfig(), {"train": "a", "classes": ["x", "y"]})
    return folder


OTHER = TrainConfig(recipe=Recipe.of("masked"), loop=LoopConfig(epochs=2))


def test_a_run_without_a_finished_phase_takes_other_settings_and_begins_anew(folder):
    folder.save_checkpoint(0, {"weight": torch.ones(2)})
    folder.memory.mkdir()
    (folder.memory / "zarr.json").write_text("{}")
    assert not folder.claim(TrainConfig(), {"train": "a", "classes": ["x", "y"]}), "the same run goes on"
    assert folder.checkpoint(0) is not None
    assert folder.claim(OTHER, {"train": "a", "classes": ["x", "y"]})
    assert folder.checkpoint(0) is None
    assert not folder.memory.exists()
    assert folder.described() == (OTHER, {"train": "a", "classes": ["x", "y"]})
    document = json.loads((folder.path / "run.json").read_text())
    document["config"]["recipe"] |= {"image": "patches", "scorer": "theirs"}
    (folder.path / "run.json").write_text(json.dumps(document))
    with pytest.raises(
        SchemaError, match=rf"^{folder.path}: .*'theirs'.*; use the version of exmem .* install the package"
    ):
        folder.described()


def test_what_cannot_be_removed_is_not_trained_on(folder, monkeypatch):
    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    folder.memory.mkdir()
    monkeypatch.setattr("shutil.rmtree", refused)
    with pytest.raises(DataError, match=r"memory: cannot be removed to begin anew: .*denied"):
        folder.claim(OTHER, {"train": "a", "classes": ["x", "y"]})
    assert folder.described()[0] == TrainConfig()


def test_a_run_with_a_finished_phase_is_refused_with_what_differs(folder):
    folder.add_metrics({"phase": 0})
    with pytest.raises(DataError) as refused:
        folder.claim(OTHER, {"train": "b", "classes": ["x", "y"]})
    for told in ("loop.epochs: 5, 2", "recipe.image: ", "the train data", "another folder"):
        assert told in str(refused.value)
    assert "classes" not in str(refused.value)
    assert folder.described()[0] == TrainConfig()


def test_what_may_change_is_noted_when_a_run_goes_on(folder):
    folder.add_metrics({"phase": 0})
    changed = TrainConfig(loop=LoopConfig(keep_hidden=False, num_workers=2))
    assert not folder.claim(changed, {"train": "a", "classes": ["x", "y"]})
    assert folder.described()[0] == changed
    assert len(folder.metrics()) == 1


def test_a_run_of_another_version_is_refused_once_it_has_finished_a_phase(folder):
    document = {"config": {"first_classes": 2, "increments": [1]}, "data": {"train": "a"}}
    (folder.path / "run.json").write_text(json.dumps(document))
    folder.add_metrics({"phase": 0})
    with pytest.raises(DataError, match=r"none of this version .*unknown keys"):
        folder.claim(TrainConfig(), {"train": "a"})
    folder.metrics_file.unlink()
    assert folder.claim(TrainConfig(), {"train": "a"})


HOLD = """
import sys
from exmem.train.folder import RunFolder
with RunFolder(sys.argv[1]).locked():
    print(1, flush=True)
    sys.stdin.read()
"""


def test_a_run_folder_is_for_one_process(tmp_path):
    folder = RunFolder(tmp_path / "run")
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "1\n"
        with pytest.raises(LockedError, match="another process runs in this folder"), folder.locked():
            pass
        other.stdin.close()
    with folder.locked():
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_and_a_lock_file_stands_in(tmp_path, monkeypatch, code):
    def flock(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    folder = RunFolder(tmp_path / "run")
    told = (
        "falling back to SoftFileLock" if code == errno.ENOSYS else "no locks here .*remove it if a killed run leaves"
    )
    for _ in range(2):
        held = folder.locked()
        with pytest.warns(UserWarning, match=told):
            held.__enter__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(LockedError, match="another process"), RunFolder(folder.path).locked():
                pass
        assert not folder.claim(TrainConfig(), {}), "lock files are no other program's"
        held.__exit__(None, None, None)


def test_a_lock_file_that_a_killed_run_left_is_named(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".locked").write_text("1\nanother-host\n")
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(LockedError, match=r"remove \S+/run/\.locked if there is none"), folder.locked():
        pass


def test_a_file_in_the_place_of_a_run_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(DataError, match=r"cannot make the run folder: .*choose another with --out"), folder.locked():
        pass
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize("selection", sorted(SELECTIONS))
def test_examples_are_ranked_within_their_class(selection):
    labels = np.array([4, 1, 4, 4, 1])
    features = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    options = {"selection": Part.of(selection), "seed": [0, 1], "values": np.array([0.3, 0.2, 0.1, 0.7, 0.9])}
    ranks = rank_examples(features, labels, **options)
    assert sorted(ranks[labels == 4].tolist()) == [0, 1, 2]
    assert sorted(ranks[labels == 1].tolist()) == [0, 1]
    np.testing.assert_array_equal(ranks, rank_examples(features, labels, **options))
    if selection == "loss":
        assert ranks.tolist() == [1, 1, 2, 0, 0]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_says_what_is_left(terminal, monkeypatch):
    out = io.StringIO()
    now = [100.0]
    monkeypatch.setattr("exmem.train.progress.time.monotonic", lambda: now[0])
    console = Console(file=out, force_terminal=terminal, width=100)
    with RunProgress(console, name="masked", total=100, done=20) as progress:
        advance = progress.stage("phase 2/3, learning", 40)
        now[0] += 30
        for _ in range(4):  # 40 examples in 30 s, 40 are left
            advance(10)
            progress.learnt(10)
        progress.line("second")
        now[0] += 30
        progress.learnt(40)
        progress.line("third")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "second; about 0:00:30 left" in text
    assert "third\n" in text
    assert ("phase 2/3, learning" in text) == terminal
    if terminal:
        assert "40/40" in text, "the stage counts its own examples"
        assert "100/100" in text


def test_a_run_that_goes_on_guesses_by_what_it_learnt_itself(monkeypatch):
    out, now = io.StringIO(), [0.0]
    monkeypatch.setattr("exmem.train.progress.time.monotonic", lambda: now[0])
    with RunProgress(Console(file=out, width=100), name="masked", total=100, done=90) as progress:
        now[0] += 10
        progress.line("nothing learnt")
        progress.learnt(5)
        progress.line("half")
    assert out.getvalue() == "nothing learnt\nhalf; about 0:00:10 left\n"


def test_another_precision_is_told_alone(tmp_path, backbone, data):
    start(tmp_path / "run", backbone, data, "none").run(Console(quiet=True))
    with pytest.raises(DataError) as refused:
        start(tmp_path / "run", backbone, data, "none", loop={"precision": "bfloat16"}).run(Console(quiet=True))
    assert "differs in loop.precision: 'float32', 'bfloat16' (there, here)" in str(refused.value)
