"""`exmem tradeoff` and `exmem compare` as a user runs them."""

import json
import sys

import pandas as pd
import pytest

from tests.cli.running import outcome
from tests.tiny import SIDE, write_imagefolder, write_models


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    vision, text = write_models(tmp_path_factory.mktemp("models"))
    return {
        "data": {"own": str(write_imagefolder(tmp_path_factory.mktemp("data") / "own"))},
        "recipes": ["half_jpeg", "features"],
        "budgets": ["20kB"],
        "seeds": [0, 1],
        "kinds": {"probe": None, "trainer": {"recipes": ["half_jpeg"]}},
        "base": {
            "data": {"first_classes": 2, "increments": [1]},
            "backbone": {"vision": str(vision), "text": str(text), "image_size": SIDE, "max_text": 8},
            "tuner": {"blocks": 1},
            "loop": {"epochs": 1, "batch": 8, "replay_batch": 8},
        },
    }


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, document):
    """Run a command here; return its exit code and what it printed."""
    monkeypatch.setenv("EXMEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(document))

    def command(*words):
        return outcome(words, monkeypatch, capsys)

    return command


def test_a_trade_off_from_the_first_look_to_the_comparison_of_its_runs(run, tmp_path, document):
    code, out, _ = run("tradeoff", "config.json", "--out", "out", "--dry-run")
    assert code == 0
    assert "0 cells are done, 0 failed, 6 are left" in out
    assert "how long they take is not known" in out
    assert not (tmp_path / "out" / "table.csv").exists()

    code, out, err = run("tradeoff", "config.json", "--out", "out", "--slice", "1/2")
    assert code == 0, err
    assert "[1/3]" in out
    assert len(pd.read_csv(tmp_path / "out" / "table.csv")) == 2 + 3

    _, out, _ = run("tradeoff", "config.json", "--out", "out", "--dry-run")
    assert "3 cells are done, 0 failed, 3 are left" in out
    assert "To run: 3 cells with --jobs 1; about" in out

    code, out, err = run("tradeoff", "config.json", "--out", "out")
    assert code == 0, err
    assert "[6/6]" in out
    assert "own, probe\n" in out
    assert "own, trainer\n" in out
    rows = [line for line in out.splitlines() if line.startswith("│")]
    assert [row.split()[1] for row in rows] == ["half_jpeg", "features", "half_jpeg"]
    assert all("±" in row for row in rows)

    runs = sorted((tmp_path / "out" / "cells").glob("trainer*/run"))
    code, out, _ = run("compare", *runs, "--out", "runs.png", "--json")
    assert code == 0
    (group,) = json.loads(out)["groups"]
    assert len(group["runs"]) == 2
    assert (tmp_path / "runs.png").stat().st_size > 1000
    _, out, _ = run("compare", *runs)
    assert "half_jpeg, 20000" in out
    assert "Accuracy over phases: compare.png" in out

    document = {**document, "kinds": ["trainer"], "methods": {"tuned": {"tuner": {"phases": "all"}}}, "seeds": [0]}
    (tmp_path / "config.json").write_text(json.dumps(document))
    code, out, _ = run("tradeoff", "config.json", "--out", "out")
    assert code == 1, "a cell failed"
    assert "1 cells failed, the first: recipe 'features' stores features, which tuning makes stale" in out
    assert "--retry runs them again" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--slice", "3/2"], "slice: expected I/N with I from 1 to N, such as 2/8, got '3/2'"),
        (["--jobs", "0"], "--jobs must be 1 or more, got 0"),
    ],
)
def test_wrong_words_are_told(run, words, told):
    code, _, err = run("tradeoff", "config.json", "--out", "out", *words)
    assert code == 2
    assert told in err


def test_ray_is_named_with_the_remedy_where_it_lacks(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = run("tradeoff", "config.json", "--out", "out", "--executor", "ray")
    assert code == 1
    assert "--executor ray needs the package ray; pip install 'exmem[ray]'" in err
