"""Runs that exist, side by side: which belong together, what they come to, and the image."""

import json
import math

import pytest
from PIL import Image

from exmem.errors import DataError
from exmem.report.compare import compared, draw_comparison, plot_comparison
from exmem.train.config import TrainConfig


def write_run(folder, overall, *, train="a" * 32, **options):
    """Write the folder of a run of two phases, of four classes."""
    document = {"recipe": "half_jpeg", "data": {"first_classes": 2, "increments": [2]}, **options}
    config = TrainConfig.from_json(document).to_json()
    folder.mkdir(parents=True)
    data = {"train": f"{train}-{folder.name}", "test": "b", "classes": ["a", "b", "c", "d"]}
    (folder / "run.json").write_text(json.dumps({"config": config, "data": data}))
    lines = []
    for phase, accuracy in enumerate(overall):
        head = {"all": accuracy, "by_phase": [accuracy] * (phase + 1)}
        held = {"exemplars": 10, "disk_bytes": 900, "head_bytes": 50, "mean_bytes": 0, "seconds": 2.0}
        lines.append(json.dumps({"phase": phase, "classes": [0, 1], "head": head, "ncm": head, **held}) + "\n")
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def test_runs_that_differ_in_their_seeds_alone_are_one_group(tmp_path):
    data = {"first_classes": 2, "increments": [2]}
    folders = [
        write_run(tmp_path / "a", [0.8, 0.4], seed=0),
        write_run(tmp_path / "b", [0.6, 0.2], seed=1, data={**data, "class_seed": 1}),
        write_run(tmp_path / "c", [0.5, 0.5], max_bytes="1MB"),
    ]
    (two, one), notes = compared(folders)
    assert notes == []
    assert (two.name, two.folders) == ("half_jpeg, 64MB", tuple(folders[:2]))
    assert (one.name, len(one.runs)) == ("half_jpeg, 1MB", 1)
    told = two.measures()
    assert told["average"].mean == pytest.approx(0.5)
    assert told["average"].deviation == pytest.approx(0.2 / 2**0.5)
    assert told["last"].mean == pytest.approx(0.3)
    assert told["forgetting"].mean == pytest.approx(0.4)
    assert (told["kept_bytes"].mean, told["exemplars"].mean, told["seconds"].mean) == (950, 10, 4)
    assert [round(point.mean, 6) for point in two.curve()] == [0.7, 0.3]
    assert math.isnan(one.measures()["last"].deviation), "of a single run"


def test_groups_are_named_by_what_differs(tmp_path):
    write_run(tmp_path / "a", [0.5, 0.5])
    write_run(tmp_path / "b", [0.5, 0.5], loop={"epochs": 9})
    write_run(tmp_path / "c", [0.5, 0.5], train="c" * 32)
    names = [group.name for group in compared([tmp_path / name for name in "abc"])[0]]
    assert names == [
        "half_jpeg, 64MB, data.train=aaaaaaaa, loop.epochs=5",
        "half_jpeg, 64MB, data.train=aaaaaaaa, loop.epochs=9",
        "half_jpeg, 64MB, data.train=cccccccc, loop.epochs=5",
    ]


def test_recipes_of_one_name_are_told_apart_by_their_parts(tmp_path):
    write_run(tmp_path / "a", [0.5, 0.5])
    write_run(tmp_path / "b", [0.5, 0.5], recipe={"name": "half_jpeg", "codec": "patch_jpeg:quality=75"})
    first, second = (group.name for group in compared([tmp_path / "a", tmp_path / "b"])[0])
    assert first != second
    assert "recipe.codec" in first


def test_runs_that_are_not_finished_are_left_out_and_told(tmp_path):
    write_run(tmp_path / "a", [0.5, 0.5])
    write_run(tmp_path / "b", [0.5])
    groups, notes = compared([tmp_path / "a", tmp_path / "b"])
    assert [len(group.runs) for group in groups] == [1]
    assert notes == [f"{tmp_path / 'b'}: 1 of 2 phases are finished; left out"]
    with pytest.raises(DataError, match="no run is finished"):
        compared([tmp_path / "b"])


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(DataError, match="expected the folder of a run"):
        compared([tmp_path])


def test_the_image_has_a_line_a_group_and_a_band_where_there_is_a_spread(tmp_path):
    write_run(tmp_path / "a", [0.8, 0.4], seed=0)
    write_run(tmp_path / "b", [0.6, 0.2], seed=1)
    write_run(tmp_path / "c", [0.5, 0.5], max_bytes="1MB")
    groups, _ = compared([tmp_path / name for name in "abc"])
    (axis,) = plot_comparison(groups).axes
    assert {line.get_label() for line in axis.lines} == {"half_jpeg, 64MB (2 runs)", "half_jpeg, 1MB"}
    assert len(axis.collections) == 1
    draw_comparison(groups, tmp_path / "compare.png")
    with Image.open(tmp_path / "compare.png") as image:
        assert image.format == "PNG"


def test_a_run_counts_once_and_copies_are_told(tmp_path):
    one = write_run(tmp_path / "a", [0.5, 0.5])
    groups, notes = compared([one, tmp_path / "a" / ".." / "a", one])
    assert ([len(group.runs) for group in groups], notes) == ([1], [])
    copy = write_run(tmp_path / "b", [0.5, 0.5], train="a" * 32)
    _, notes = compared([one, copy])
    assert notes == [f"{one}, {copy}: the same seeds more than once, as copies have"]


@pytest.mark.parametrize("lines", [[0, 1, 1], [1], [0, "{}"]])
def test_measures_that_are_none_of_the_phases_in_turn_are_refused(tmp_path, lines):
    run = write_run(tmp_path / "a", [0.5, 0.5])
    known = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(known[one] if isinstance(one, int) else one for one in lines))
    with pytest.raises(DataError, match=r"metrics.jsonl, line \d: expected the measures of a phase .*none of phase \d"):
        compared([run])
