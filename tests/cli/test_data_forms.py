"""Commands on data in every form: what learns from a folder of images learns from a table of texts, too."""

import json

import pytest

from tests.backbones.models import WORDS as KNOWN
from tests.backbones.models import write
from tests.cli.running import outcome
from tests.report.tradeoff.conftest import Here
from tests.tiny import SIDE, write_models
from tests.train.data.writing import (
    captions,
    write_cifar100,
    write_csv,
    write_cub,
    write_food101,
    write_imagenet_r,
    write_tables,
)

SMALL = f"""
--max-bytes 60kB --data.first-classes 1 --data.increments 1 --backbone.image-size {SIDE} --backbone.max-text 8
--tuner.blocks 1 --loop.epochs 1 --loop.batch 8 --loop.replay-batch 8
""".split()


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("EXMEM_CACHE", str(tmp_path / "cache"))

    def command(*words, code=0):
        ended, out, errors = outcome([*map(str, words)], monkeypatch, capsys)
        assert ended == code, errors + out
        return out + errors

    return command


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    vision, text = write_models(tmp_path_factory.mktemp("models"))
    return ["--backbone.vision", str(vision), "--backbone.text", str(text)]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return ["--backbone.family", "bert", "--backbone.text", str(write("bert", tmp_path_factory.mktemp("bert"))[0])]


@pytest.fixture
def texts(tmp_path):
    """Two tables of texts and classes, and nothing else."""
    for split, count in (("train", 12), ("test", 4)):
        rows = [(f"{KNOWN[5 + row % 3]} {KNOWN[8 if row % 2 else 9]}", row % 2) for row in range(count)]
        write_csv(tmp_path / "texts" / f"{split}.csv", rows, ("text", "label"))
    return tmp_path / "texts"


def saved(root):
    import datasets

    tables = write_tables(root / "tables")
    sets = {}
    for split in ("train", "test"):
        images = [{"bytes": path.read_bytes(), "path": None} for path in sorted(tables.rglob(f"{split}*.png"))]
        values = {"image": images, "text": ["temple"] * 4, "label": [0, 1, 0, 1]}
        features = datasets.Features(
            image=datasets.Image(), text=datasets.Value("string"), label=datasets.ClassLabel(names=["a", "b"])
        )
        sets[split] = datasets.Dataset.from_dict(values, features=features)
    datasets.DatasetDict(sets).save_to_disk(root / "saved")
    return root / "saved"


def captioned(root):
    write_imagenet_r(root, count=5)
    captions(root, enumerate(sorted(root.rglob("*.jpg"))))
    return root


FORMS = {
    "tables": (write_tables, []),
    "saved": (saved, []),
    "food101": (write_food101, ["--data.layout", "food101"]),
    "mm_imagenet_r": (captioned, ["--data.layout", "mm_imagenet_r:test_ratio=0.4"]),
    "imagenet_r": (write_imagenet_r, ["--data.layout", "imagenet_r", "--data.modalities", "image"]),
    "cifar100": (write_cifar100, ["--data.layout", "cifar100", "--data.modalities", "image"]),
    "cub": (write_cub, ["--data.layout", "cub"]),
}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_data_in_every_form_is_checked_learnt_and_measured(tmp_path, run, models, form):
    make, words = FORMS[form]
    place = make(tmp_path / "data")
    layout = [words[at + 1] for at, word in enumerate(words) if word == "--data.layout"]
    assert "nothing is broken" in run("data", place, *(["--layout", layout[0]] if layout else []))
    run("train", place, "--out", tmp_path / "run", *SMALL, *models, *words)
    entries = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(entries) == (3 if form == "cifar100" else 2)
    assert entries[-1]["exemplars"] > 0
    measured = json.loads(run("eval", tmp_path / "run", place, "--json").partition("}\n")[0] + "}")
    assert measured["all"] == entries[-1]["head"]["all"]


@pytest.mark.parametrize("kind", ["bert", "joint"])
def test_texts_alone_are_checked_learnt_measured_shown_and_predicted(tmp_path, run, models, bert, texts, kind):
    words = bert if kind == "bert" else [*models, "--data.modalities", "text"]
    told = run("data", texts)
    assert "  images: none, there is no column of them: texts alone can be learnt" in told
    assert "nothing is broken" in told
    run("train", texts, "--out", tmp_path / "run", *SMALL, *words, "--recipe", "text")
    entries = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert (len(entries), entries[-1]["exemplars"]) == (2, 12)
    assert '"all": ' in run("eval", tmp_path / "run", texts, "--json")
    run("show", tmp_path / "run", "--data", texts, "--out", tmp_path)
    assert (tmp_path / "exemplars.html").stat().st_size > 0
    assert run("predict", tmp_path / "run", "--text", KNOWN[5]).startswith(f"{KNOWN[5]}: ")
    assert "expected one or more images, or a --text" in run("predict", tmp_path / "run", code=2)
    assert "it learnt from texts alone; give a --text, and no images" in run(
        "predict", tmp_path / "run", "a.png", code=2
    )


def test_features_and_the_stored_form_of_texts_need_no_images_either(tmp_path, run, bert, texts):
    run("train", texts, "--out", tmp_path / "features", *SMALL, *bert, "--recipe", "features", "--tuner.phases", "none")
    stored = ["--loop.stored-form", "0.5", "--ranked-form", "stored", "--loop.test-stored-form"]
    run("train", texts, "--out", tmp_path / "stored", *SMALL, *bert, "--recipe", "text", *stored)
    run("train", texts, "--out", tmp_path / "live", *SMALL, *bert, "--recipe", "text", "--loop.no-keep-hidden")


def test_texts_alone_are_advised_and_traded_off(tmp_path, run, bert, texts, monkeypatch):
    monkeypatch.setattr("exmem.report.tradeoff.Processes", lambda setup, jobs: Here(setup.out))  # others start slowly
    options = [*SMALL[:2], "--backbone.image-size", SIDE, "--backbone.max-text", "8", *bert]
    told = run("advise", texts, "--out", tmp_path / "advice", *options, "--data.modalities", "text")
    assert "Best at 60kB: " in told
    (tmp_path / "sweep.json").write_text(
        json.dumps(
            {
                "data": {"texts": {"folder": "texts", "modalities": "text"}},
                "recipes": ["text", "features"],
                "budgets": ["60kB"],
                "kinds": ["probe", "trainer"],
                "base": {
                    "data": {"first_classes": 1, "increments": [1]},
                    "backbone": {"family": "bert", "text": bert[-1], "image_size": SIDE, "max_text": 8},
                    "loop": {"epochs": 1},
                },
            }
        )
    )
    run("tradeoff", tmp_path / "sweep.json", "--out", tmp_path / "out")
    results = [json.loads(path.read_text()) for path in tmp_path.glob("out/cells/*/result.json")]
    assert sorted((result["kind"], result["recipe"]) for result in results) == [
        (kind, recipe) for kind in ("probe", "trainer") for recipe in ("features", "text")
    ]
    assert all(result["phases"][-1]["exemplars"] > 0 for result in results)


def test_texts_alone_where_images_are_seen_are_refused_with_the_remedy(tmp_path, run, models, texts):
    told = run("train", texts, "--out", tmp_path / "run", *SMALL, *models, code=1)
    assert told.count("\n") == 1
    assert "expected a first line with the column 'file_name', got the columns ['text', 'label']" in told


@pytest.mark.filterwarnings("default::exmem.errors.DataWarning")
def test_what_is_broken_is_skipped_by_train_only_when_asked_and_a_run_goes_on_with_the_rest(tmp_path, run, models):
    place = write_tables(tmp_path / "data", count=6)
    (place / "images" / "train0.png").write_bytes((place / "images" / "train0.png").read_bytes()[:50])
    (place / "images" / "train1.png").unlink()
    words = ["train", place, "--out", tmp_path / "run", *SMALL, *models]
    assert "train1.png (train.csv line 3): no such image; add it or drop its row" in run(*words, code=1)
    told = run(*words, "--data.skip-bad")
    assert "exmem: warning: 2 broken examples are skipped: " in told
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    run(*words, "--data.skip-bad")
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == metrics
    assert json.loads(metrics.splitlines()[-1])["exemplars"] == 4
