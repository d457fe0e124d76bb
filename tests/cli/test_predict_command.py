"""`exmem predict` and `exmem eval` on a run that has ended, and on images as people have them."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from exmem.train.data import load_data
from tests.cli.running import outcome
from tests.tiny import load_joint, start, write_imagefolder, write_models


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, what it measured last, and the folder of its data."""
    folder = tmp_path_factory.mktemp("predict")
    data, models = write_imagefolder(folder / "data"), write_models(folder / "models")
    vision, text = map(str, models)
    options = {"backbone": {"vision": vision, "text": text}, "max_bytes": "400kB"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXMEM_CACHE", str(folder / "cache"))
        trainer = start(folder / "run", lambda: load_joint(models), load_data(data), "raw", **options)
        entry = trainer.run(Console(quiet=True))[-1]
    return folder / "run", entry, data


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command; return its exit code, what it printed, and its errors."""
    return lambda *words: outcome(words, monkeypatch, capsys)


def test_the_test_examples_are_measured_as_by_the_run(finished, run):
    folder, entry, data = finished
    code, out, _ = run("eval", folder, data, "--json")
    assert (code, json.loads(out)) == (0, {"examples": 12, "classes": 4, **entry["head"]})
    code, out, _ = run("eval", folder, data)
    assert out.splitlines()[0] == f"{entry['head']['all']:.1%} right of 12 examples of 4 classes"
    assert len(out.splitlines()) == 4


def test_each_image_is_named_with_its_class(finished, run, tmp_path):
    folder, _, data = finished
    files = sorted((data / "test").glob("*.png"))[:3]
    odd = [tmp_path / "a [1] b.png", tmp_path / "clear.png", tmp_path / "grey.jpg"]
    crop = np.array(Image.open(files[0]))
    Image.fromarray(crop).save(odd[0])
    Image.fromarray(np.dstack([crop, np.full(crop.shape[:2], 128, np.uint8)])).save(odd[1])
    Image.fromarray(crop[..., 0]).save(odd[2])
    code, out, errors = run("predict", folder, *files, *odd, "--text", "temple red stone")
    assert code == 0, errors
    names = [line.rpartition(": ") for line in out.splitlines()]
    assert [name[0] for name in names] == [*map(str, files), *map(str, odd)]
    assert {name[2] for name in names} <= {f"class{label}" for label in range(4)}
    assert names[0][2] == names[3][2], "the same image by another name"
    code, out, _ = run("predict", folder, *files, "--text", "temple red stone", "--json")
    answers = json.loads(out)["predictions"]
    assert answers == [{"image": name[0], "text": "temple red stone", "class": name[2]} for name in names[:3]]


def test_images_that_are_broken_are_told_beside_the_classes_of_the_others(finished, run, tmp_path):
    folder, _, data = finished
    (tmp_path / "broken.png").write_bytes(b"none")
    whole = sorted((data / "test").glob("*.png"))[:2]
    files = [tmp_path / "none.png", whole[0], tmp_path / "broken.png", whole[1]]
    _, expected, _ = run("predict", folder, *whole, "--text", "temple red stone")
    code, out, errors = run("predict", folder, *files, "--text", "temple red stone")
    assert (code, out) == (1, expected)
    told = [line for line in errors.splitlines() if line.startswith("broken: ")]
    assert [line.partition(": expected an image")[0] for line in told] == [f"broken: {files[0]}", f"broken: {files[2]}"]
    code, out, _ = run("predict", folder, *files, "--json")
    answer = json.loads(out)
    assert code == 1
    assert [found["image"] for found in answer["predictions"]] == [str(file) for file in whole]
    assert [line.partition(": expected an image")[0] for line in answer["broken"]] == [str(files[0]), str(files[2])]
    code, out, _ = run("predict", folder, tmp_path / "none.png", "--json")
    assert (code, json.loads(out)["predictions"]) == (1, [])


def test_a_pipe_or_a_name_that_cannot_be_written_is_broken_as_others_are(finished, run, tmp_path):
    folder, _, data = finished
    (whole, *_) = sorted((data / "test").glob("*.png"))
    os.mkfifo(tmp_path / "pipe.jpg")
    named = tmp_path / os.fsdecode(b"latin\xfc.png")
    shutil.copy(whole, named)
    code, out, errors = run("predict", folder, tmp_path / "pipe.jpg", named, whole, "--text", "temple red stone")
    assert (code, len(out.splitlines())) == (1, 1)
    assert "pipe.jpg: expected an image, got a pipe or a device" in errors
    assert r"latin\udcfc.png': expected a name in UTF-8; rename the file" in errors


def test_classes_that_are_not_learnt_or_not_there_are_told(finished, run, tmp_path):
    folder, _, data = finished
    part = tmp_path / "run"
    shutil.copytree(folder, part)
    lines = (part / "metrics.jsonl").read_text().splitlines(keepends=True)
    (part / "metrics.jsonl").write_text("".join(lines[:-1]))
    (whole, *_) = sorted((data / "test").glob("*.png"))
    code, _, errors = run("predict", part, whole, "--text", "temple red stone")
    assert code == 0, errors
    assert "it has learnt 3 of its 4 classes so far" in " ".join(errors.split())
    fewer = tmp_path / "fewer"
    shutil.copytree(data, fewer)
    for split in ("train", "test"):
        metadata = fewer / split / "metadata.jsonl"
        rows = [line for line in metadata.read_text().splitlines() if json.loads(line)["label"] in {"class0", "class1"}]
        metadata.write_text("\n".join(rows))
        for path in {*(fewer / split).glob("*.png")} - {fewer / split / json.loads(row)["file_name"] for row in rows}:
            path.unlink()
    code, out, errors = run("eval", folder, fewer)
    assert code == 0, errors
    assert out.splitlines()[0].endswith("right of 6 examples of 2 classes")
    assert "none" in out


def test_what_cannot_be_asked_is_one_line(finished, run, tmp_path):
    folder, _, data = finished
    for words, expected, code in (
        (("predict", folder), "expected one or more images", 2),
        (("predict", tmp_path, data / "none.png"), "expected the folder of a run", 1),
        (("eval", folder, tmp_path), "expected the folders train/ and test/", 1),
    ):
        found, _, errors = run(*words)
        assert found == code, errors
        assert expected in errors
        assert "Traceback" not in errors
