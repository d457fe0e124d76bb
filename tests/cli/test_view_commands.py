"""`exmem show` and `exmem score`, as a user runs them."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from rich.console import Console

from exmem import ExemplarMemory
from exmem.cli.score import Model, score
from exmem.cli.show import show
from exmem.errors import DataError, SchemaError, StoreNotFoundError
from exmem.masking.scorers import SCORERS
from exmem.train.data import load_data
from exmem.train.folder import RunFolder
from exmem.train.parts import load_run_backbone
from exmem.train.trainer import Trainer
from tests.exemplars import crop, exemplar, schema
from tests.report.test_view import Page
from tests.tiny import SIDE, config_of, write_imagefolder, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXMEM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory, cache):
    return write_imagefolder(tmp_path_factory.mktemp("data") / "own")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, models, data):
    """Makes a run of a recipe in a folder."""

    def train(recipe, **options):
        folder = tmp_path_factory.mktemp("run") / "run"
        backbone = {"vision": str(models[0]), "text": str(models[1]), **options.pop("backbone", {})}
        config = config_of(recipe, backbone=backbone, **options)
        learning, testing = load_data(data)
        trainer = Trainer(RunFolder(folder), config, load_run_backbone(config), train=learning, test=testing)
        trainer.run(Console(quiet=True))
        return folder

    return train


@pytest.fixture(scope="module")
def run(trained):
    return trained("masked")


@pytest.fixture
def plain(tmp_path):
    with ExemplarMemory.create(tmp_path / "memory", schema=schema(), max_bytes="100kB", durable=False) as memory:
        memory.add([exemplar(seed, label=seed % 2) for seed in range(5)])
    return tmp_path / "memory"


def page(folder):
    return Page((folder / "exemplars.html").read_text(encoding="utf-8"))


def command(*arguments, without=()):
    script = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {list(without)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from exmem.cli.main import main
main()
"""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_any_memory_is_shown_without_torch_and_a_page_needs_no_matplotlib(plain, tmp_path):
    found = command("show", plain, "--out", tmp_path / "out", without=["torch", "transformers"])
    assert found.returncode == 0, found.stderr
    assert str(tmp_path / "out" / "exemplars.png") in found.stdout
    assert sorted(page(tmp_path / "out").headings) == [f"class {slot % 2}, slot {slot}" for slot in (0, 2, 4, 1, 3)]
    with Image.open(tmp_path / "out" / "exemplars.png") as image:
        assert min(image.size) > 400
    found = command("show", plain, "--out", tmp_path / "one.html", "--class", "1", without=["torch", "matplotlib"])
    assert found.returncode == 0, found.stderr
    assert Page((tmp_path / "one.html").read_text()).headings == ["class 1, slot 1", "class 1, slot 3"]
    found = command("show", plain, "--out", tmp_path / "out", without=["matplotlib"])
    assert found.returncode == 1
    told = r"exmem: this needs the package matplotlib; install it .*pip install 'exmem\[train,demo\]'\)\n"
    assert re.fullmatch(told, found.stderr)


@pytest.mark.parametrize("ending", [".png", ".html", ".PNG", ".Html"])
def test_an_out_with_an_ending_is_that_file_alone_and_needs_only_what_writes_it(plain, tmp_path, ending):
    without = ["torch", "jinja2" if ending.lower() == ".png" else "matplotlib"]
    done = command("show", plain, "--out", tmp_path / "new" / f"one{ending}", "--most", "1", without=without)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"one{ending}"]
    assert done.stdout == f"Exemplars: {tmp_path / 'new' / f'one{ending}'}\n"


def test_a_run_is_described_where_torch_is_not_installed(run):
    told = command("info", run, "--json", without=["torch", "transformers", "peft", "accelerate", "datasets"])
    assert told.returncode == 0, told.stderr
    assert len(json.loads(told.stdout)["run"]["phases"]) == 3


@pytest.mark.parametrize("which", ["show", "score"])
def test_an_out_that_is_another_file_is_refused_in_one_line_before_anything_is_done(plain, tmp_path, which):
    (tmp_path / "notes.txt").write_text("mine")
    arguments = [plain] if which == "show" else [tmp_path / "no.png", "text"]
    failed = command(which, *arguments, "--out", tmp_path / "notes.txt")
    assert failed.returncode == 1
    expected = "expected a folder, or a file that ends in .png or .html; choose another place with --out"
    assert failed.stderr == f"exmem: {tmp_path / 'notes.txt'}: {expected}\n"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_out_with_another_ending_is_taken_for_a_folder_only_where_it_is_one(plain, tmp_path):
    for name in ("a.jpg", "a.htm"):
        with pytest.raises(DataError, match=r"a file that ends in .png or .html; make the folder first"):
            show(plain, out=tmp_path / name)
        assert not (tmp_path / name).exists()
    (tmp_path / "run.v2").mkdir()
    show(plain, out=tmp_path / "run.v2")
    assert page(tmp_path / "run.v2").headings


def test_classes_of_any_memory_are_shown_by_the_names_that_were_noted_with_it(plain, tmp_path):
    with ExemplarMemory.open(plain, mode="r+") as memory:
        memory.annotate(class_names={0: "red roof", 1: "temple"})
    show(plain, out=tmp_path, classes=("temple",))
    assert page(tmp_path).headings == ["temple, slot 1", "temple, slot 3"]


def test_a_memory_beside_the_configuration_of_another_program_is_shown_as_it_is(plain, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    show(plain, out=tmp_path / "out", slots=(3, 1, 3))
    assert page(tmp_path / "out").headings == ["class 1, slot 3", "class 1, slot 1"]


def test_wrong_wishes_are_refused(plain, tmp_path, run):
    for wishes, kind, message in (
        ({"slots": (0,), "classes": ("1",)}, SchemaError, "give one of them"),
        ({"grid": "4by4"}, SchemaError, "such as 12x16"),
        ({"most": 0}, SchemaError, "1 or more"),
        ({"out": plain / "zarr.json" / "x.png"}, DataError, "zarr.json is a file; choose a folder"),
        (
            {"out": plain / "zarr.json"},
            DataError,
            r"expected a folder, or a file that ends in .png or",
        ),
    ):
        with pytest.raises(kind, match=message):
            show(plain, **wishes)
    with pytest.raises(StoreNotFoundError):
        show(tmp_path / "nothing")
    with pytest.raises(SchemaError, match="there are class0, class1"):
        show(run, classes=("cat",))


@pytest.mark.parametrize(
    ("which", "metavars"),
    [
        ("show", ["STORE|RUN", "--slots INT ...", "--class NAME ...", "--out FOLDER|FILE", "--grid ROWSxCOLUMNS"]),
        ("score", ["IMAGE", "TEXT", "--layers INT ...", "--out FOLDER|FILE", "--vision MODEL", "--text-model MODEL"]),
        ("info", ["STORE|RUN"]),
        ("export", ["STORE|RUN FOLDER"]),
        ("import", ["FOLDER STORE", "--max-bytes BYTES"]),
    ],
)
def test_help_names_each_value_by_what_it_is(which, metavars):
    told = command(which, "--help").stdout
    assert all(metavar in told for metavar in metavars)
    assert "PATH" not in told
    assert "{None}" not in told


@pytest.mark.parametrize("inside", ["", "memory"])
def test_a_run_is_shown_with_originals_words_and_scores(tmp_path, run, data, inside):
    show(run / inside, out=tmp_path, data=data, slots=(0, 1), classes=())
    found = page(tmp_path)
    assert found.headings == ["class0, slot 0", "class2, slot 1"]
    assert len(found.images) == 6  # original, stored, scores
    assert {word for _, word in found.states} <= {"temple", "flower", "red", "roof", "leaf", "garden", "stone"}
    assert any("cls_attention of layers -1" in fact and "after phase 3" in fact for fact in found.facts)


def test_what_is_not_known_of_a_run_is_told(tmp_path, run, data):
    show(run, out=tmp_path / "bare", most=2)
    told = (tmp_path / "bare" / "exemplars.html").read_text()
    assert "give the folder of the data with --data" in told
    assert len(page(tmp_path / "bare").images) == 2
    assert "[CLS]" in told  # tokens are spelt where the text is not known
    show(run, out=tmp_path / "plain", most=2, data=data, scores=False)
    told = (tmp_path / "plain" / "exemplars.html").read_text()
    assert "they were not asked for" in told
    assert len(page(tmp_path / "plain").images) == 4


def test_weights_that_are_gone_and_data_that_changed_are_told(tmp_path, run, data):
    config = run / "run.json"
    known = config.read_text()
    shutil.copytree(data, tmp_path / "elsewhere")
    try:
        show(run, out=tmp_path / "copied", most=1, data=tmp_path / "elsewhere")
        changed = sorted((tmp_path / "elsewhere" / "train").glob("*.png"))[0]
        Image.fromarray(crop(9, 48)).save(changed)
        show(run, out=tmp_path / "moved", most=1, data=tmp_path / "elsewhere")
        config.write_text(known.replace("/vision", "/gone"))
        show(run, out=tmp_path / "gone", most=1, data=data)
    finally:
        config.write_text(known)
    assert "originals may be others" in (tmp_path / "moved" / "exemplars.html").read_text()
    assert "originals may be others" not in (tmp_path / "copied" / "exemplars.html").read_text()
    assert "the backbone of the run cannot be loaded" in (tmp_path / "gone" / "exemplars.html").read_text()
    assert len(page(tmp_path / "gone").images) == 2


def test_data_of_another_run_is_refused(tmp_path, run, data):
    other = write_imagefolder(tmp_path / "other")
    metadata = other / "train" / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace("class3", "class9"))
    metadata = other / "test" / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace("class3", "class9"))
    with pytest.raises(DataError, match="expected the classes"):
        show(run, out=tmp_path, data=other)


def test_whole_images_are_shown_and_a_run_without_memory_is_refused(tmp_path, trained, data):
    show(trained("half_jpeg"), out=tmp_path, most=1, data=data)
    assert "the recipe half_jpeg uses none" in (tmp_path / "exemplars.html").read_text()
    assert len(page(tmp_path).images) == 2
    with pytest.raises(StoreNotFoundError, match="no memory"):
        show(trained("none"), out=tmp_path)


@pytest.mark.parametrize(
    ("recipe", "options", "captions"),
    [
        (
            {"image": "patches:thumbnail=8", "fill": "thumbnail"},
            {},
            ["image over thumbnail", "image", "thumbnail", "scores"],
        ),
        ("foveated", {}, ["image over image_4 over image_2", "image", "image_2", "image_4", "scores"]),
        ({"image": "smoothed", "scorer": "grad_attention"}, {}, ["image", "scores"]),
        ({"image": "rate:max_bytes=300,qualities=[50]"}, {}, None),
        ("text", {}, []),
        ("text", {"backbone": {"family": "bert", "vision": None}}, []),
        ({"image": "patches", "text": "none"}, {"data": {"modalities": "image"}}, ["image", "scores"]),
    ],
)
def test_every_recipe_is_shown(tmp_path, trained, data, recipe, options, captions):
    show(trained(recipe, **options), out=tmp_path, most=2, data=data)
    found = page(tmp_path)
    assert len(found.headings) == 2
    if captions is not None:
        told = [caption.partition(":")[0] for caption in found.captions[: len(captions) + 1]]
        assert sorted(told) == sorted(["original", *captions])
    shows_lost_text = isinstance(recipe, dict) and recipe.get("text") == "none"
    assert {state for state, _ in found.states} >= ({"del"} if shows_lost_text else {"mark"})


def test_a_backbone_that_sees_no_text_keeps_none(tmp_path, models):
    Image.fromarray(crop(0, 48)).save(tmp_path / "temple.png")
    model = Model(backbone="vit", vision=str(models[0]), image_size=SIDE, tuned_blocks=1)
    score(tmp_path / "temple.png", "temple", model, out=tmp_path / "scores.html")
    found = Page((tmp_path / "scores.html").read_text())
    assert found.headings == ["everything", *sorted(SCORERS)]
    assert set(found.states) == {("del", "temple")}
    assert (found.facts.count("-1"), found.facts.count("all")) == (4, 2)  # the layers that scorers take by themselves


def test_every_scorer_is_shown_side_by_side(tmp_path, models):
    Image.fromarray(crop(0, 48)).save(tmp_path / "temple.png")
    model = Model(vision=str(models[0]), text_model=str(models[1]), image_size=SIDE, tuned_blocks=1, max_text=8)
    score(tmp_path / "temple.png", "temple <b>roof</b> garden", model, layers=(0,), quality=50, out=tmp_path)
    found = Page((tmp_path / "scores.html").read_text())
    assert found.headings == ["everything", *sorted(SCORERS)]
    assert len(found.images) == 2 * (1 + len(SCORERS))
    assert {"temple", "roof", "garden"} <= {word for _, word in found.states}
    with Image.open(tmp_path / "scores.png") as image:
        assert image.size[0] < 2_100
    patches = [fact for fact in found.facts if fact.endswith("% of all patches")]
    assert len(patches) == len(SCORERS)
    sizes = [int(fact.rpartition(", ")[0].replace(",", "")) for fact in patches]
    everything = next(int(fact.replace(",", "")) for fact in found.facts if fact.replace(",", "").isdecimal())
    assert all(0 < size <= everything for size in sizes)
    assert sum("of the kept patches, 75% of all" in fact for fact in found.facts) == len(SCORERS)  # 12 of 4 x 4
    assert found.facts.count("0") == 6  # layers of those that take layers; centre and random take none
